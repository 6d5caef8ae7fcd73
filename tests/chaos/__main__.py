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


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=3, help="how often each scenario does its worst")
    arguments.add_argument("--only", help="scenarios whose name contains this")
    options = arguments.parse_args()
    chosen = {name: one for name, one in SCENARIOS.items() if (options.only or "") in name}
    console, outcomes = Console(width=None if sys.stdout.isatty() else 110), list[Outcome]()
    with (
        console.status("maltreating a fleet …"),
        tempfile.TemporaryDirectory() as folder,
        chaos_fleet(Path(folder), tenants=3, keys=6) as fleet,
    ):
        for one in run(fleet, chosen, options.rounds):
            outcomes.append(one)
            found = "; ".join(one.verdict.problems) or "as it must be"
            console.print(f"{one.fault}: {one.struck.times} × in {one.seconds:.0f} s, {found}")
    _print(console, outcomes)
    return 0 if all(outcome.verdict.good for outcome in outcomes) else 1


def _print(console: Console, outcomes: list[Outcome]) -> None:
    table = Table(*_COLUMNS, title="byok under faults")
    for one in outcomes:
        table.add_row(
            one.fault,
            str(one.struck.times),
            f"{mean(one.struck.in_flight):.1f}" if one.struck.in_flight else "–",
            str(one.rotations),
            str(one.verdict.failed),
            str(one.verdict.lost),
            str(one.verdict.doubled),
            f"{one.seconds:.0f}",
        )
    table.add_section()
    table.add_row(
        "all",
        str(sum(one.struck.times for one in outcomes)),
        "",
        str(sum(one.rotations for one in outcomes)),
        str(sum(one.verdict.failed for one in outcomes)),
        str(sum(one.verdict.lost for one in outcomes)),
        str(sum(one.verdict.doubled for one in outcomes)),
        f"{sum(one.seconds for one in outcomes):.0f}",
    )
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
