"""Rounds of Hypothesis over one corpus."""

from collections.abc import Callable

from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import seed as seeded

from tests.fuzz.inputs import Case, cases, inputs_of
from tests.fuzz.judge import Judge, Wrong

_CASES_PER_ROUND = 50  # Hypothesis remembers what it has tried: a round is what it may remember


def fuzz(
    judge: Judge, corpus_seed: int, count: int, on_progress: Callable[[int], None] = lambda _: None
) -> int:
    """Check ``count`` inputs or a few more; return how many. The same seed gives the same inputs.

    Raises:
        Wrong: the smallest input for which something that must not happen does.
    """
    done, number = 0, 0
    while done < count:
        done += _round(judge, corpus_seed * 1_000_003 + number)
        number += 1
        on_progress(done)
    return done


def _round(judge: Judge, seed: int) -> int:
    made, ciphers = judge.corpus.tokens + judge.corpus.streams, len(judge.corpus.ciphers)
    checked, smallest = 0, list[Wrong]()

    @seeded(seed)
    @settings(
        max_examples=_CASES_PER_ROUND,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
    )
    @given(cases(len(made)))
    def check_all(case: Case) -> None:
        nonlocal checked
        for one in inputs_of(case, made, ciphers):
            checked += 1
            try:
                judge.check(one)
            except Wrong as wrong:
                smallest[:] = [wrong]
                raise

    try:
        check_all()
    except BaseException:
        if smallest:  # Hypothesis may have wrapped it
            raise smallest[0] from None
        raise
    return checked
