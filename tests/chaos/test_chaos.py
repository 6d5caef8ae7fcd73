"""A cut of ``make chaos``: the faults that differ in kind, each once, on a smaller fleet."""

import os
import signal
from collections.abc import Iterator

import pytest

from tests.chaos.fleet import Fleet, chaos_fleet
from tests.chaos.invariants import look
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


def test_a_request_by_name_waits_out_the_database(fleet: Fleet) -> None:
    """The message is all there is of it: the worker gives it back until PostgreSQL is there again."""
    fleet.stop_postgres(signal.SIGINT)
    asked = fleet.ask_by_name(fleet.keys[0])

    def went_back() -> bool:
        return any("goes_back_to_the_queue" in worker.log_file.read_text() for worker in fleet.workers)

    try:
        assert fleet.wait_until(went_back, 30)
    finally:
        fleet.start_postgres()
    assert fleet.settle()
    assert fleet.unrecorded() == []
    assert look(fleet).problems == []
    query = f"SELECT count(*) FROM rotation_requests WHERE idempotency_key = '{asked.idempotency_key}'"
    assert fleet.count(query) == 1


@pytest.mark.parametrize("fault", CUT)
def test_nothing_is_lost_and_nothing_doubled(fleet: Fleet, fault: str) -> None:
    outcome = run_one(fleet, fault, SCENARIOS[fault], rounds=1)
    assert outcome.verdict.problems == []
    assert (outcome.verdict.lost, outcome.verdict.doubled) == (0, 0)
    assert outcome.struck.times >= 1
    assert outcome.rotations >= 1
