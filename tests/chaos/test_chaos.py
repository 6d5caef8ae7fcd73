"""A cut of ``make chaos``: the faults that differ in kind, each once, on a smaller fleet."""

import os
from collections.abc import Iterator

import pytest

from tests.chaos.fleet import Fleet, chaos_fleet
from tests.chaos.run import run_one
from tests.chaos.scenarios import SCENARIOS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

CUT = (
    "SIGKILL of workers, at each step",
    "SIGKILL of a requester",
    "SIGTERM, warm shutdown",
    "SIGSTOP beyond the claim",
    "broker and cache lose all data",
    "PostgreSQL restarts and crashes",
    "a fifth of KMS calls fails",
    "delivered twice, late, out of order",
    "two Beats, one killed",
    "clock jumps by hours and days",
)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    before = dict(os.environ)
    with chaos_fleet(tmp_path_factory.mktemp("chaos"), tenants=2, keys=4) as fleet:
        fleet.start()
        yield fleet
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize("fault", CUT)
def test_nothing_is_lost_and_nothing_doubled(fleet: Fleet, fault: str) -> None:
    outcome = run_one(fleet, fault, SCENARIOS[fault], rounds=1)
    assert outcome.verdict.problems == []
    assert (outcome.verdict.lost, outcome.verdict.doubled) == (0, 0)
    assert outcome.struck.times >= 1
    assert outcome.rotations >= 1
