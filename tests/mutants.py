"""``make mutants``: take a guard out of the code, and see that the test which is named for it turns red.

Each mutant is made in a copy of the tree; the tests run there as they are.
"""

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Mutant:
    """What is taken out, by replacing ``old`` with ``new`` in ``file``, and the test that must notice."""

    what: str
    file: str
    old: str
    new: str
    test: str


_IN = "tests/integration"

MUTANTS = (
    Mutant(
        "the unique index on open rotations",
        "byok/store/migrations/versions/0001_initial.py",
        '"uq_rotations_open",\n        "rotations",\n        ["key_id"],\n        unique=True,',
        '"uq_rotations_open",\n        "rotations",\n        ["key_id"],\n        unique=False,',
        f"{_IN}/test_requests.py::test_requests_at_once_make_one_rotation",
    ),
    Mutant(
        "the unique index on active versions",
        "byok/store/migrations/versions/0001_initial.py",
        '"uq_key_versions_active",\n        "key_versions",\n        ["key_id"],\n        unique=True,',
        '"uq_key_versions_active",\n        "key_versions",\n        ["key_id"],\n        unique=False,',
        "tests/integration/test_schema_agrees.py::test_on_every_row_of_up_to_three_versions_with_and_without_gaps",
    ),
    Mutant(
        "the compare-and-swap of rotations",
        "byok/store/rotations.py",
        ".where(_rotations.c.id == rotation.id, _rotations.c.state == rotation.state)",
        ".where(_rotations.c.id == rotation.id)",
        f"{_IN}/test_deaths.py::test_a_clock_that_goes_ahead_lets_two_work_and_one_win",
    ),
    Mutant(
        "the compare-and-swap of versions",
        "byok/store/versions.py",
        "                    _versions.c.state == version.state,\n",
        "",
        "tests/integration/test_store.py::test_a_version_that_another_changed_is_not_changed_again",
    ),
    Mutant(
        "the sweeper",
        "byok/services/scheduling.py",
        "        return self._republish() + self._reject_orphans()\n",
        "        return 0\n",
        f"{_IN}/test_deaths.py::test_a_worker_that_dies_is_followed_by_another_within_two_sweeps",
    ),
    Mutant(
        "the sweeper, seen by real processes",
        "byok/services/scheduling.py",
        "        return self._republish() + self._reject_orphans()\n",
        "        return 0\n",
        "tests/chaos/test_chaos.py::test_nothing_is_lost_and_nothing_doubled[SIGKILL of a requester]",
    ),
    Mutant(
        "the idempotency key of a request that joined",
        "byok/store/rotations.py",
        "                self._answer_with(earlier, idempotency_key)\n",
        "                self._forget(earlier, idempotency_key)\n",
        f"{_IN}/test_requests.py::test_a_request_that_joined_gets_the_same_answer_when_it_is_repeated",
    ),
    Mutant(
        "the claim",
        "byok/store/rotations.py",
        ".where(_rotations.c.id == rotation_id, schema.OPEN_ROTATION, unclaimed)",
        ".where(_rotations.c.id == rotation_id, schema.OPEN_ROTATION)",
        f"{_IN}/test_deaths.py::test_a_worker_that_dies_is_followed_by_another_within_two_sweeps",
    ),
    Mutant(
        "the renewal of claims",
        "byok/services/claims.py",
        "                tx.rotations.renew(held, self._clock.now() + self._duration)\n",
        "                pass\n",
        f"{_IN}/test_deaths.py::test_a_claim_is_renewed_while_its_process_lives",
    ),
    Mutant(
        "the gravity of a compromise that joins",
        "byok/services/requests.py",
        "            rotation = tx.rotations.set_reason(rotation, reason)\n",
        "            pass\n",
        f"{_IN}/test_requests.py::test_a_compromise_that_joins_makes_the_open_rotation_one",
    ),
    Mutant(
        "the bound on attempts",
        "byok/services/rotations.py",
        "            if rotation.attempts > MAX_ATTEMPTS:\n",
        "            if False:\n",
        f"{_IN}/test_requests.py::test_poison_ends_as_failed_with_its_reason_is_counted_and_can_be_retried",
    ),
    Mutant(
        "one tick a period for two Beats",
        "byok/services/scheduling.py",
        "            if not tx.ticks.begin(job, began_at, period):\n",
        "            if tx.ticks.begin(job, began_at, period) is None:\n",
        f"{_IN}/test_scheduling.py::test_a_tick_runs_once_a_period_however_many_beats_there_are",
    ),
    Mutant(
        "times that never run backwards",
        "byok/store/versions.py",
        "values[_TIME_OF[to]] = max(at, version.changed_at)",
        "values[_TIME_OF[to]] = at",
        f"{_IN}/test_deaths.py::test_a_clock_that_goes_back_does_not_hold_a_dead_workers_rotation",
    ),
)


def is_noticed(mutant: Mutant, folder: Path) -> bool:
    """Whether the test that is named for the mutant fails on it."""
    file = folder / mutant.file
    whole = file.read_text()
    if whole.count(mutant.old) != 1:
        raise SystemExit(
            f"{mutant.file} has no single {mutant.old!r}: the code has moved on, and so must this"
        )
    file.write_text(whole.replace(mutant.old, mutant.new))
    try:
        return not passes([mutant.test], folder)
    finally:
        file.write_text(whole)


def passes(tests: list[str], folder: Path) -> bool:
    """Whether all these tests are green in the tree there."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    ended = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    if ended.returncode not in (0, 1):  # neither green nor red: the test was not found, say
        raise SystemExit(f"{tests}: {ended.stdout[-2000:]}{ended.stderr[-2000:]}")
    return ended.returncode == 0


def main() -> int:
    """Try each mutant; 0 if all were noticed."""
    table, missed = Table("taken out", "noticed by", "", title="mutants"), 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "tree"
        ignored = shutil.ignore_patterns(".git", ".venv", ".byok", ".*_cache", ".hypothesis", "__pycache__")
        shutil.copytree(ROOT, folder, ignore=ignored)
        console = Console(width=140)
        with console.status("the tree as it is"):
            if not passes(sorted({mutant.test for mutant in MUTANTS}), folder):
                raise SystemExit("the tests are red without any mutant")
        for mutant in MUTANTS:
            with console.status(mutant.what):
                noticed = is_noticed(mutant, folder)
            missed += not noticed
            test = mutant.test.rpartition("::")[2]
            table.add_row(mutant.what, test, "[green]red[/]" if noticed else "[bold red]STILL GREEN[/]")
            console.print(f"{mutant.what}: {'noticed' if noticed else 'MISSED'}")
    console.print(table)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
