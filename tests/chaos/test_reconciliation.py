"""A smaller run of `tests.chaos.reconciliation` in the suite."""

from pathlib import Path

import pytest

from byok.embedded.stack import Stack
from byok.simulator.control import SimulatorControl
from byok.wiring import Runtime
from tests.chaos.reconciliation import run
from tests.customers import join


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_processes_and_every_fault_make_no_false_alarm(
    stack: Stack, runtime: Runtime, simulator: SimulatorControl, tmp_path: Path
) -> None:
    customer = join(stack, runtime, "acme")
    runtime.services.request_mover.move()
    done = run(stack, customer, 600, tmp_path)
    assert done.killed > 0
    assert done.agreed["outcome"] == "agree"
    assert done.agreed["agreed"] > 500
    assert done.agreed["agreed_by_mark"] > 0
    assert (done.planted["strangers"], done.planted["missing"]) == (1, 1)
