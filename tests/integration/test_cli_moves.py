"""``byok tenant migrate`` over real servers and the simulator of AWS, in every mode and direction."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from byok.core import policies
from byok.core.model import TenantState
from byok.core.moves import MoveState
from byok.core.reconciliation import Reconciliation
from byok.embedded.stack import Stack
from byok.errors import TenantNotActive
from byok.services.moves import MoveStatus
from byok.simulator.control import SimulatorControl
from byok.simulator.customer import CustomerAccount
from byok.wiring import Runtime
from tests.customers import VENDOR, Customer, add_key, new_account
from tests.integration.test_cli import Byok, acme, byok

__all__ = ["acme", "byok"]

CONTEXT = b"users.email:1"


@dataclass
class Side:
    """One side of a move: the customer's account there, its KMS key and its role."""

    account: CustomerAccount
    kms_key: str
    role: str | None

    @property
    def options(self) -> list[str]:
        role = ["--mode", "key-policy"] if self.role is None else ["--role-arn", self.role]
        return ["--kms-key-arn", self.kms_key, *role]


@contextmanager
def working(runtime: Runtime) -> Iterator[None]:
    """A worker, in a thread: it runs what is open of acme's move, and rotations."""
    stopped = threading.Event()

    def work() -> None:
        while not stopped.wait(0.05):
            with runtime.store.transaction() as tx:
                move = tx.moves.find_latest(tx.tenants.get("acme").id)
            if move is not None:
                runtime.services.moving.run(move.id)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join(20)


def same_role(stack: Stack, acme: Customer) -> Side:
    new = acme.account.create_key()
    both = policies.role_permissions([acme.kms_key, new], acme.tenant.id)
    both["Statement"] += [
        policies.migration_source_statement(acme.kms_key, acme.tenant.id),
        policies.migration_target_statement(new, acme.tenant.id),
    ]
    acme.account.put_role_policy("byok", both)
    return Side(acme.account, new, acme.role)


def other_account(stack: Stack, acme: Customer) -> Side:
    return _with_role(new_account(stack), acme)


def other_region(stack: Stack, acme: Customer) -> Side:
    return _with_role(
        CustomerAccount(stack.simulator.url, acme.account.account_id, "eu-west-1"), acme, "byok-west"
    )


def _with_role(account: CustomerAccount, acme: Customer, name: str = "byok") -> Side:
    new = account.create_key()
    permissions = policies.role_permissions(new, acme.tenant.id)
    permissions["Statement"].append(
        policies.migration_target_statement(new, acme.tenant.id, is_crossing=True)
    )
    role = account.create_role(name, policies.trust_policy(VENDOR, acme.tenant.external_id), permissions)
    return Side(account, new, role)


def key_policy(stack: Stack, acme: Customer) -> Side:
    account = new_account(stack)
    new = account.create_key()
    statements = [
        *policies.key_policy_statements(VENDOR, acme.tenant.id),
        _in_key_policy(policies.migration_target_statement(new, acme.tenant.id, is_crossing=True), "Encrypt"),
    ]
    account.put_key_policy(new, _whole(account, statements))
    return Side(account, new, None)


def _in_key_policy(statement: dict[str, Any], sid: str) -> dict[str, Any]:
    condition = {"ArnEquals": {"aws:PrincipalArn": str(VENDOR)}} | statement["Condition"]
    principal = {"AWS": f"arn:aws:iam::{VENDOR.account}:root"}
    return {**statement, "Sid": sid, "Principal": principal, "Resource": "*", "Condition": condition}


def _whole(account: CustomerAccount, statements: list[dict[str, Any]]) -> dict[str, Any]:
    return policies.whole_key_policy(f"arn:aws:iam::{account.account_id}:root", statements)


@pytest.mark.parametrize(
    ("provision", "crossing"),
    [(same_role, False), (other_account, True), (other_region, True), (key_policy, True)],
)
def test_a_customer_moves_and_the_old_side_may_go(
    byok: Byok,
    stack: Stack,
    runtime: Runtime,
    acme: Customer,
    provision: Callable[[Stack, Customer], Side],
    crossing: bool,
) -> None:
    cipher = runtime.services.vault.cipher("acme", "pii")
    token = cipher.encrypt(b"x", context=CONTEXT)
    side = provision(stack, acme)
    with working(runtime):
        held = byok("tenant", "migrate", "acme", *side.options, "--hold", "--json")
        assert held.exit_code == 0, held.err
        told = held.json()
        assert (told["state"], told["versions_under_both"]) == ("held", 1)
        assert (told["old_key_may_go"], told["crossing"]) == (False, crossing)
        assert "keep the old KMS key" in byok("tenant", "migrate", "acme", "--status").out
        moved = byok("tenant", "migrate", "acme", "--commit")
    assert moved.exit_code == 0, moved.err
    assert "the old KMS key may go" in moved.out
    assert "ByokMigrationTarget" in moved.out
    assert "ByokMigrationTarget" in byok("tenant", "migrate", "acme", "--status").out, "who lost the first"
    assert byok("tenant", "show", "acme", "--json").json()["kms_key_arn"] == side.kms_key
    acme.account.disable_key(acme.kms_key)
    runtime.services.desk.forget()
    assert cipher.decrypt(token, context=CONTEXT) == b"x"
    assert runtime.services.checkups.probe("acme") is TenantState.ACTIVE
    assert runtime.services.follower.sync("acme", actor="test").tenant.name == "acme"
    runtime.services.checkups.validate("acme", "pii", actor="test")
    looked = runtime.services.lookout.look("acme", actor="test")
    assert looked.unreached is None
    assert byok("audit", "verify", "acme").exit_code == 0
    side.account.disable_key(side.kms_key)
    assert runtime.services.checkups.probe("acme") is TenantState.SUSPENDED
    with pytest.raises(TenantNotActive):  # noqa: PT012  # once the stop has reached this process
        for _ in range(200):
            cipher.decrypt(token, context=CONTEXT)
            time.sleep(0.05)


@pytest.mark.parametrize("provision", [same_role, other_account, other_region, key_policy])
def test_both_sides_trails_agree_after_a_move_and_a_theft_from_before_is_found(
    byok: Byok,
    stack: Stack,
    runtime: Runtime,
    simulator: SimulatorControl,
    acme: Customer,
    provision: Callable[[Stack, Customer], Side],
) -> None:
    side = provision(stack, acme)
    with working(runtime):
        assert byok("tenant", "migrate", "acme", *side.options).exit_code == 0
    accounts = {acme.account.account_id, side.account.account_id, VENDOR.account}
    trail = [record for account in accounts for record in simulator.cloudtrail(account)]

    def compare(records: list[dict[str, Any]]) -> Reconciliation:
        return runtime.services.reconciler.compare(
            "acme", records, vendor_account=VENDOR.account, delay=timedelta(0)
        )

    honest = compare(trail)
    assert (honest.stranger_count, honest.missing_count) == (0, 0)
    assert honest.agreed > 20
    described = next(one for one in trail if one["eventName"] == "DescribeKey")
    identity = {"sessionContext": {"sessionIssuer": {"arn": acme.role}}, "arn": f"{acme.role}/mallory"}
    stolen = described | {"userIdentity": identity, "requestID": "r-stolen"}
    assert [one.call_id for one in compare([*trail, stolen]).strangers] == ["r-stolen"]


def test_between_two_key_policies_of_one_account(byok: Byok, stack: Stack, runtime: Runtime) -> None:
    account = new_account(stack)
    tenant = runtime.services.onboarding.add_tenant("acme", actor="test")
    old, new = account.create_key(), account.create_key()
    using = policies.key_policy_statements(VENDOR, tenant.id)
    account.put_key_policy(old, _whole(account, using))
    account.put_key_policy(new, _whole(account, using))
    verified = runtime.services.onboarding.verify_tenant("acme", actor="test", kms_key_arn=old)
    assert verified.passed
    add_key(runtime, "acme")
    with working(runtime):
        refused = byok("tenant", "migrate", "acme", "--kms-key-arn", new)
        assert refused.exit_code == 8
        assert f"ByokMigrationSource to the policy of the KMS key {old}" in refused.err
        printed = byok("tenant", "migrate", "acme", "--kms-key-arn", new, "--policy", "--json").json()
        for one in printed:
            (arn,) = [arn for arn in (old, new) if arn in one["place"]]
            has = [] if len(one["statements"]) > 1 else using
            account.put_key_policy(arn, _whole(account, [*has, *one["statements"]]))
        wait_until(lambda: runtime.services.moves.status("acme").move.state is not MoveState.WRAPPING)
        moved = byok("tenant", "migrate", "acme", "--status", "--json").json()
    assert (moved["state"], moved["crossing"], moved["versions_under_new"]) == ("committed", False, 1)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_missing_right_is_told_and_given_it_the_same_command_goes_on(
    byok: Byok, stack: Stack, runtime: Runtime, acme: Customer
) -> None:
    new = acme.account.create_key()
    both = policies.role_permissions([acme.kms_key, new], acme.tenant.id)
    acme.account.put_role_policy("byok", both)
    with working(runtime):
        refused = byok("tenant", "migrate", "acme", "--kms-key-arn", new)
        assert refused.exit_code == 8
        assert "the move waits, and can be rolled back" in refused.err
        assert "ByokMigrationSource" in refused.err
        shown = byok("tenant", "migrate", "acme", "--status")
        assert "refusal" in shown.out
        assert runtime.services.registry.show_tenant("acme")[0].state is TenantState.ACTIVE
        printed = byok("tenant", "migrate", "acme", "--kms-key-arn", new, "--policy", "--json").json()
        (whole,) = printed
        acme.account.put_role_policy("byok", {"Version": "2012-10-17", "Statement": whole["statements"]})
        wait_until(lambda: runtime.services.moves.status("acme").move.state is MoveState.COMMITTED)
        moved = byok("tenant", "migrate", "acme", "--kms-key-arn", new)
    assert moved.exit_code == 0, moved.err
    assert "the old KMS key may go" in moved.out
    assert runtime.services.moves.status("acme").progress.under_new == 1


def test_the_rights_of_a_move_are_printed_for_people(byok: Byok, acme: Customer) -> None:
    new = acme.account.create_key()
    printed = byok("tenant", "migrate", "acme", "--kms-key-arn", new, "--policy")
    assert printed.exit_code == 0
    assert f"the policy of the role {acme.role} is, until the commit" in printed.out
    assert '"kms:ReEncryptTo"' in printed.out
    assert byok("tenant", "migrate", "acme", "--status").exit_code == 4


def test_a_move_is_rolled_back_by_command(byok: Byok, stack: Stack, runtime: Runtime, acme: Customer) -> None:
    side = same_role(stack, acme)
    with working(runtime):
        assert byok("tenant", "migrate", "acme", *side.options, "--hold").exit_code == 0
        rolled_back = byok("tenant", "migrate", "acme", "--rollback")
    assert rolled_back.exit_code == 0
    assert "rolled-back" in rolled_back.out
    assert byok("tenant", "migrate", "acme", "--rollback").exit_code == 4


def test_who_waits_for_a_move_that_somebody_rolls_back_is_told(
    byok: Byok, stack: Stack, runtime: Runtime, acme: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def roll_back(look: Callable[[], MoveStatus]) -> MoveStatus:
        runtime.services.moves.roll_back("acme", actor="somebody")
        return look()

    monkeypatch.setattr("byok.cli.migration.wait_for", roll_back)
    ended = byok("tenant", "migrate", "acme", *same_role(stack, acme).options)
    assert ended.exit_code == 4
    assert "rolled the move of tenant 'acme' back meanwhile" in ended.err
    assert "rolled-back" in ended.out


@pytest.mark.parametrize(
    "options", [[], ["--commit", "--rollback"], ["--kms-key-arn", "x", "--status"], ["--kms-key-arn", "x"]]
)
def test_what_makes_no_sense_is_refused(byok: Byok, acme: Customer, options: list[str]) -> None:
    assert byok("tenant", "migrate", "acme", *options).exit_code == 2
