"""A customer that moved compares: calls over both connections are ours."""

from collections.abc import Callable
from pathlib import Path

import pytest

from byok.embedded.stack import Stack
from byok.simulator.cloudtrail import deliver
from byok.simulator.control import SimulatorControl
from byok.wiring import Runtime
from tests.customers import Customer
from tests.integration.test_cli import Byok, acme, byok
from tests.integration.test_cli_moves import Side, key_policy, other_account, other_region, same_role, working

__all__ = ["acme", "byok"]


@pytest.mark.parametrize("provision", [same_role, other_account, other_region, key_policy])
def test_calls_from_before_and_after_a_move_agree(
    byok: Byok,
    stack: Stack,
    runtime: Runtime,
    simulator: SimulatorControl,
    acme: Customer,
    provision: Callable[[Stack, Customer], Side],
    tmp_path: Path,
) -> None:
    side = provision(stack, acme)
    with working(runtime):
        assert byok("tenant", "migrate", "acme", *side.options).exit_code == 0
    for account in {acme.account.account_id, side.account.account_id}:
        deliver(simulator.cloudtrail(account), tmp_path / "trail")
    command = ("audit", "reconcile", "acme", "--cloudtrail", str(tmp_path / "trail"))
    compared = byok(*command, "--delivery-delay", "0s", "--json").json()
    assert compared["outcome"] == "agree"
    assert compared["agreed"] >= 30
