"""``make chaos``: every fault, several times, and a table of what was lost and doubled."""

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import mean

from rich.console import Console
from rich.table import Table

from tests.chaos.fleet import chaos_fleet
from tests.chaos.run import Outcome, run
from tests.chaos.scenarios import SCENARIOS

_COLUMNS = (
    "fault",
    "injected",
    "in flight, mean",
    "rotations",
    "failed, with reason",
    "lost",
    "doubled",
    "s",
)

# No scenario takes longer than a minute or two: with this the whole stays within ten.
_MAX_SECONDS = 480.0


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=2, help="how often each scenario does its worst")
    arguments.add_argument("--only", help="scenarios whose name contains this")
    arguments.add_argument("--markdown", type=Path, help="write the table to this file, too")
    options = arguments.parse_args()
    chosen = {name: one for name, one in SCENARIOS.items() if (options.only or "") in name}
    console, outcomes = Console(width=None if sys.stdout.isatty() else 110), list[Outcome]()
    with (
        console.status("maltreating a fleet …"),
        tempfile.TemporaryDirectory() as folder,
        chaos_fleet(Path(folder), tenants=3, keys=6) as fleet,
    ):
        for one in run(fleet, chosen, options.rounds, _MAX_SECONDS):
            outcomes.append(one)
            found = "; ".join(one.verdict.problems) or ("as it must be" if one.verdict.good else "NOT SO")
            console.print(f"{one.fault}: {one.struck.times} × in {one.seconds:.0f} s, {found}")
    _print(console, outcomes)
    if options.markdown is not None:
        options.markdown.write_text(_markdown(outcomes))
    return 0 if all(outcome.verdict.good for outcome in outcomes) else 1


def _rows(outcomes: list[Outcome]) -> list[tuple[str, ...]]:
    """A row a fault, and their sum."""
    rows = [
        (
            one.fault,
            str(one.struck.times),
            f"{mean(one.struck.in_flight):.1f}" if one.struck.in_flight else "–",
            str(one.rotations),
            str(one.verdict.failed),
            str(one.verdict.lost),
            str(one.verdict.doubled),
            f"{one.seconds:.0f}",
        )
        for one in outcomes
    ]
    sums = [str(sum(int(row[column]) for row in rows)) for column in (1, 3, 4, 5, 6, 7)]
    return [*rows, ("all", sums[0], "", *sums[1:])]


def _print(console: Console, outcomes: list[Outcome]) -> None:
    table = Table(*_COLUMNS, title="byok under faults")
    for row in _rows(outcomes):
        table.add_row(*row, end_section=row[0] == outcomes[-1].fault)
    console.print(table)


def _markdown(outcomes: list[Outcome]) -> str:
    lines = [_COLUMNS, ("---",) * len(_COLUMNS), *_rows(outcomes)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
