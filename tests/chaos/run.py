"""Runs scenarios one after the other on one fleet, and looks at everything after each."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.chaos.fleet import Fleet
from tests.chaos.invariants import Verdict, look
from tests.chaos.scenarios import Scenario, Struck


@dataclass
class Outcome:
    """A line of the table."""

    fault: str
    struck: Struck
    rotations: int
    verdict: Verdict
    seconds: float


def run(
    fleet: Fleet, scenarios: Mapping[str, Scenario], rounds: int, max_seconds: float
) -> Iterator[Outcome]:
    """Run each scenario, let the fleet settle, look at it, and let it encrypt something new.

    What there is no time for is in the table, too, and is no success.
    """
    end = time.monotonic() + max_seconds
    fleet.start()
    for fault, scenario in scenarios.items():
        if time.monotonic() > end:
            yield Outcome(fault, Struck(), 0, Verdict(problems=["not run: out of time"]), 0.0)
        else:
            yield run_one(fleet, fault, scenario, rounds)


def run_one(fleet: Fleet, fault: str, scenario: Scenario, rounds: int) -> Outcome:
    """One scenario, and what it left."""
    begin, before = time.monotonic(), len(fleet.works())
    failed_before = sum(work.rotation.state == "failed" for work in fleet.works())
    struck = scenario(fleet, rounds)
    fleet.end_quarantines()
    settled = fleet.settle()
    fleet.end_quarantines()
    verdict = look(fleet)
    if not settled:
        verdict.problems.append("the fleet did not settle")
    verdict.problems += [f"{one.name} died: {one.log_tail(3)}" for one in fleet.died()]
    verdict.failed -= failed_before
    verdict.problems += struck.missed
    fleet.encrypt()
    return Outcome(fault, struck, len(fleet.works()) - before, verdict, time.monotonic() - begin)
