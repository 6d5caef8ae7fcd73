"""From a customer's DisableKey to the last of eight real service processes: within the declared bound."""

from collections.abc import Iterator

import pytest

from benchmarks.kill_switch import CASES, PROCESSES, Fleet, measure_on, running_fleet

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with running_fleet() as fleet:
        yield fleet


@pytest.mark.timeout(240)
@pytest.mark.parametrize("case", ["push", "push-lost", "redis-down"])
def test_every_process_stops_within_the_declared_bound(fleet: Fleet, case: str) -> None:
    result = measure_on(fleet, CASES[case], PROCESSES)
    assert len(result.processes) == PROCESSES
    assert result.is_within, result
    assert result.served_again == 0
    assert result.answered >= PROCESSES, "each process acknowledged the stop"
    if case == "push":
        assert result.told_seconds < 1.0, "by push, not by the next look"
