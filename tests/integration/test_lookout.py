"""The watch over customers' sides: what changes there is found, told once, and resolved when it is gone."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from byok.core import policies
from byok.core.findings import Cause, Finding, Verdict
from byok.core.lookout import FindingKind, Severity
from byok.core.model import Job, TenantEvent
from byok.embedded.stack import Stack
from byok.errors import KmsUnavailable, UnknownTenant
from byok.services.lookout import Looked
from byok.simulator.control import SimulatorControl
from byok.wiring import Runtime
from tests.customers import VENDOR, Customer, join
from tests.fakes import FakeKmsKey
from tests.world import PERIODS, World, kms_key_arn

DAY = timedelta(days=1)
ROTATION_OFF = FindingKind.KMS_KEY_ROTATION_OFF
DELETION = FindingKind.KMS_KEY_PENDING_DELETION


def look(world: World, tenant: str = "acme") -> Looked:
    return world.services.lookout.look(tenant, actor="watch")


def found(looked: Looked) -> Mapping[FindingKind, Severity]:
    return {finding.kind: finding.severity for finding in looked.open}


def told(world: World, tenant: str = "acme") -> list[tuple[str, object, object]]:
    """What the audit log has of findings."""
    return [
        (event.action.removeprefix("finding."), event.details["kind"], event.details["severity"])
        for event in world.services.registry.audit_log(tenant)
        if event.action.startswith("finding.")
    ]


@pytest.fixture
def acme(world: World) -> FakeKmsKey:
    """A tenant's KMS key that rotates by itself, as it was when the tenant was verified."""
    key = world.kms.keys[kms_key_arn(1)] = FakeKmsKey(rotation_days=365)
    world.add_tenant()
    return key


def test_nothing_is_found_where_nothing_changed(world: World, acme: FakeKmsKey) -> None:
    looked = look(world)
    assert (looked.open, looked.changes, looked.unreached) == ([], [], None)
    assert told(world) == []


def test_a_finding_opens_once_and_is_resolved_once(world: World, acme: FakeKmsKey) -> None:
    acme.rotation_days = None
    for _ in range(3):
        assert found(look(world)) == {ROTATION_OFF: Severity.WARNING}
        world.clock.advance(days=1)
    acme.rotation_days = 365
    for _ in range(2):
        assert found(look(world)) == {}
    assert told(world) == [
        ("opened", "kms-key-rotation-off", "warning"),
        ("resolved", "kms-key-rotation-off", "warning"),
    ]
    (row,) = world.services.lookout.list_of("acme", resolved=True)
    assert row[1].resolved_at == world.clock.now()


def test_rotation_that_never_was_on_is_a_note_also_after_a_sync(world: World) -> None:
    world.add_tenant()
    assert found(look(world)) == {ROTATION_OFF: Severity.NOTE}


def test_rotation_that_was_on_is_remembered_past_syncs(world: World, acme: FakeKmsKey) -> None:
    acme.rotation_days = None
    world.services.follower.sync("acme", actor="beat")
    assert found(look(world)) == {ROTATION_OFF: Severity.WARNING}


def test_a_deletion_counts_down_with_an_event_for_each_step(world: World, acme: FakeKmsKey) -> None:
    acme.state, acme.deletion_at = "PendingDeletion", world.clock.now() + 30 * DAY
    for _ in range(31):
        look(world)
        world.clock.advance(days=1)
    assert [event for event in told(world) if event[1] == "kms-key-pending-deletion"] == [
        ("opened", "kms-key-pending-deletion", "warning"),
        ("severity-changed", "kms-key-pending-deletion", "urgent"),
        ("severity-changed", "kms-key-pending-deletion", "critical"),
    ]


def test_a_suspended_tenant_is_looked_over_too(world: World, acme: FakeKmsKey) -> None:
    world.services.kill_switch.suspend("acme", actor="test", reason="on request")
    acme.state, acme.deletion_at = "PendingDeletion", world.clock.now() + 5 * DAY
    assert found(look(world)) == {DELETION: Severity.URGENT}


def test_an_outage_opens_nothing_and_resolves_nothing(world: World, acme: FakeKmsKey) -> None:
    acme.state = "Disabled"
    look(world)
    acme.state, acme.rotation_days = "Enabled", None
    world.kms.hooks["CheckConnection"] = away
    looked = look(world)
    assert looked.unreached == "away"
    assert found(looked) == {FindingKind.KMS_KEY_DISABLED: Severity.URGENT}
    del world.kms.hooks["CheckConnection"]
    assert found(look(world)) == {ROTATION_OFF: Severity.WARNING}


def away() -> None:
    raise KmsUnavailable("away")


def test_trouble_of_our_own_says_nothing_of_the_customer(world: World, acme: FakeKmsKey) -> None:
    world.kms.warnings = [Finding("role-can-be-assumed", Verdict.FAILED, "x", Cause.OUR_IDENTITY, "ours")]
    acme.rotation_days = None
    looked = look(world)
    assert looked.unreached == "role-can-be-assumed: ours"
    assert found(looked) == {}


def test_what_nobody_answers_for_three_periods_is_found_itself(world: World, acme: FakeKmsKey) -> None:
    world.kms.hooks["CheckConnection"] = away
    world.clock.advance(days=3)
    assert found(look(world)) == {}
    world.clock.advance(seconds=1)
    assert found(look(world)) == {FindingKind.NOT_LOOKED_AT: Severity.WARNING}
    del world.kms.hooks["CheckConnection"]
    assert found(look(world)) == {}


def test_a_customer_that_never_comes_is_found(world: World) -> None:
    world.services.onboarding.add_tenant("pending", actor="test")
    seen = []
    for _ in range(31):
        seen.append(found(look(world, "pending")))
        world.clock.advance(days=1)
    never = FindingKind.NEVER_VERIFIED
    assert (seen[6], seen[7], seen[29], seen[30]) == (
        {}, {never: Severity.NOTE}, {never: Severity.NOTE}, {never: Severity.WARNING},
    )  # fmt: skip
    assert world.kms.count("CheckConnection") == 0
    world.services.onboarding.verify_tenant("pending", actor="test", kms_key_arn=kms_key_arn(7))
    assert never not in found(look(world, "pending"))


def test_who_leaves_has_its_findings_closed_and_is_left_alone(world: World, acme: FakeKmsKey) -> None:
    acme.rotation_days = None
    look(world)
    world.services.kill_switch.suspend("acme", "x", actor="test")
    with world.store.transaction() as tx:
        tx.tenants.transition(world.tenant(), TenantEvent.OFFBOARD, world.clock.now())
    world.services.fan_out.publish_watches()  # draws in a time that the column's default set
    world.clock.advance(days=1)
    world.queue.watches.clear()
    assert world.services.fan_out.publish_watches() == 1
    assert found(look(world)) == {}
    assert told(world)[-1] == ("resolved", "kms-key-rotation-off", "warning")
    world.clock.advance(days=1)
    assert world.services.fan_out.publish_watches() == 0


def test_a_look_that_was_overtaken_changes_nothing(world: World, acme: FakeKmsKey) -> None:
    later: list[Looked] = []

    def while_the_first_one_asks() -> None:
        del world.kms.hooks["CheckConnection"]
        acme.rotation_days = None
        world.clock.advance(seconds=1)
        later.append(look(world))
        acme.rotation_days = 365

    world.kms.hooks["CheckConnection"] = while_the_first_one_asks
    first = look(world)
    assert first.changes == ()
    assert found(first) == found(later[0]) == {ROTATION_OFF: Severity.WARNING}


# --- audit chains ---------------------------------------------------------------------------------


def tamper(engine: sa.Engine, statement: str) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text(statement))


def test_a_broken_audit_chain_is_found_and_resolved_by_what_was_written(
    world: World, acme: FakeKmsKey, engine: sa.Engine
) -> None:
    look(world)
    world.services.registry.set_outage_wait("acme", timedelta(seconds=1), actor="test")
    tamper(engine, "UPDATE audit_events SET actor = 'nobody' WHERE action = 'tenant.outage-wait-set'")
    for _ in range(2):  # its own event does not mend the chain
        assert found(look(world)) == {FindingKind.AUDIT_CHAIN_BROKEN: Severity.CRITICAL}
    tamper(engine, "UPDATE audit_events SET actor = 'test' WHERE action = 'tenant.outage-wait-set'")
    assert found(look(world)) == {}


@pytest.mark.parametrize(
    ("statement", "at_once"),
    [
        ("UPDATE audit_events SET actor = 'nobody' WHERE sequence = 1", False),
        ("UPDATE audit_events SET actor = 'nobody' WHERE sequence = 3", True),
        ("DELETE FROM audit_events WHERE sequence = 3", True),
        ("DELETE FROM audit_events WHERE sequence = 3; UPDATE audit_heads SET sequence = 2", True),
    ],
    ids=["before the checkpoint", "at the checkpoint", "cut off", "cut off with the head"],
)
def test_what_was_verified_before_is_walked_again_once_in_a_while(
    world: World, acme: FakeKmsKey, engine: sa.Engine, statement: str, at_once: bool
) -> None:
    look(world)
    with world.store.transaction() as tx:
        checkpoint = tx.audit_checkpoints.find(world.tenant().id)
    assert checkpoint is not None
    assert checkpoint.place.sequence == 3
    tamper(engine, statement)
    world.clock.advance(days=29)
    broken = FindingKind.AUDIT_CHAIN_BROKEN
    assert (broken in found(look(world))) is at_once
    world.clock.advance(days=1)
    assert broken in found(look(world))


# --- in its own time ------------------------------------------------------------------------------


def test_every_tenant_is_looked_over_once_a_period(world: World, acme: FakeKmsKey) -> None:
    world.services.onboarding.add_tenant("pending", actor="test")
    world.add_tenant("globex")
    world.services.kill_switch.suspend("globex", actor="test", reason="on request")
    world.services.scheduling.tick(Job.WATCH)
    world.clock.advance(days=1)
    world.queue.watches.clear()
    assert world.services.scheduling.tick(Job.WATCH) == 3
    assert sorted(world.queue.watches) == ["acme", "globex", "pending"]
    assert world.services.fan_out.publish_watches() == 0


def test_another_period_is_another_pace(world: World, acme: FakeKmsKey) -> None:
    hourly = world.another_process(periods=replace(PERIODS, watch=timedelta(hours=1)))
    hourly.fan_out.publish_watches()
    world.clock.advance(hours=1)
    world.queue.watches.clear()
    assert hourly.fan_out.publish_watches() == 1


# --- what operators read --------------------------------------------------------------------------


def test_the_gravest_come_first_and_are_counted(world: World, acme: FakeKmsKey) -> None:
    world.add_tenant("globex")
    world.add_tenant("initech")
    at = world.clock.now() + 3 * DAY
    for number, days in ((2, 0), (3, 1)):
        key = world.kms.keys[kms_key_arn(number)]
        key.state, key.deletion_at = "PendingDeletion", at + days * DAY
    acme.state = "Disabled"
    for tenant in ("acme", "globex", "initech"):
        look(world, tenant)
    assert [(tenant.name, one.kind) for tenant, one in world.services.lookout.list_gravest()] == [
        ("globex", DELETION),
        ("initech", DELETION),
        ("acme", FindingKind.KMS_KEY_DISABLED),
    ]
    with world.store.transaction() as tx:
        assert {one.value: count.number for one, count in tx.findings.count_by_severity().items()} == {
            "urgent": 3
        }
        by_kind = tx.findings.count_by_kind()
        assert set(by_kind) == set(FindingKind)
        numbers = {one: count.number for one, count in by_kind[DELETION].items()}
        assert numbers == {one: 2 * (one is Severity.URGENT) for one in Severity}
        assert tx.findings.soonest(DELETION, 1) == [("globex", at)]
        assert tx.tenants.least_recently_looked_at() == world.clock.now()


def test_the_findings_of_an_unknown_tenant(world: World) -> None:
    with pytest.raises(UnknownTenant):
        world.services.lookout.list_of("acme")
    with pytest.raises(UnknownTenant):
        look(world)


# --- over the real adapter ------------------------------------------------------------------------


@pytest.fixture
def real(stack: Stack, runtime: Runtime, simulator: SimulatorControl) -> Customer:
    customer = join(stack, runtime, "acme")
    customer.account.enable_key_rotation(customer.kms_key, 365)
    runtime.services.follower.sync("acme", actor="test")
    return customer


def really(runtime: Runtime) -> Mapping[FindingKind, Severity]:
    return found(runtime.services.lookout.look("acme", actor="watch"))


def widen_role(real: Customer, simulator: SimulatorControl) -> None:
    permissions = policies.role_permissions(real.kms_key, real.tenant.id)
    permissions["Statement"].append({"Effect": "Allow", "Action": "kms:*", "Resource": "*"})
    real.account.put_role_policy("byok", permissions)


def drop_external_id(real: Customer, simulator: SimulatorControl) -> None:
    trust = policies.trust_policy(VENDOR, real.tenant.external_id)
    del trust["Statement"][0]["Condition"]
    real.account.update_trust_policy("byok", trust)


def import_material(real: Customer, simulator: SimulatorControl, runtime: Runtime) -> None:
    simulator.import_material(real.kms_key, runtime.store.now() + 6 * DAY)


Change = Callable[[Customer, SimulatorControl], None]
CHANGES: Mapping[str, tuple[Change, Mapping[FindingKind, Severity]]] = {
    "rotation off": (
        lambda real, _: real.account.disable_key_rotation(real.kms_key),
        {ROTATION_OFF: Severity.WARNING},
    ),
    "disabled": (
        lambda real, _: real.account.disable_key(real.kms_key),
        {FindingKind.KMS_KEY_DISABLED: Severity.URGENT},
    ),
    "to be deleted in 30 days": (
        lambda real, _: real.account.schedule_key_deletion(real.kms_key, 30),
        {DELETION: Severity.WARNING},
    ),
    "to be deleted in 7 days": (
        lambda real, _: real.account.schedule_key_deletion(real.kms_key, 7),
        {DELETION: Severity.URGENT},
    ),
    "material gone": (
        lambda real, simulator: simulator.put_key_in_state(real.kms_key, "PendingImport"),
        {FindingKind.KEY_MATERIAL_MISSING: Severity.CRITICAL},
    ),
    "role may do all": (
        widen_role,
        {FindingKind.EXCESS_RIGHTS: Severity.WARNING, FindingKind.CONTEXT_NOT_ENFORCED: Severity.WARNING},
    ),
    "anybody's external id": (
        drop_external_id,
        {FindingKind.EXTERNAL_ID_NOT_ENFORCED: Severity.URGENT},
    ),
    "role without rights": (
        lambda real, _: real.account.delete_role_policy("byok"),
        {FindingKind.ACCESS_BROKEN: Severity.URGENT},
    ),
    "role gone": (
        lambda real, _: real.account.delete_role("byok"),
        {FindingKind.ACCESS_BROKEN: Severity.URGENT},
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_customer_changes_is_found(
    real: Customer, runtime: Runtime, simulator: SimulatorControl, change: str
) -> None:
    assert really(runtime) == {}
    do, expected = CHANGES[change]
    do(real, simulator)
    assert really(runtime) == expected


def test_imported_material_counts_down_and_is_missing_when_it_expired(
    real: Customer, runtime: Runtime, simulator: SimulatorControl
) -> None:
    simulator.import_material(real.kms_key, runtime.store.now() + 6 * DAY)
    assert really(runtime) == {FindingKind.KEY_MATERIAL_EXPIRING: Severity.URGENT}
    simulator.import_material(real.kms_key)
    assert really(runtime) == {}
    simulator.import_material(real.kms_key, runtime.store.now() - DAY)
    assert really(runtime) == {FindingKind.KEY_MATERIAL_MISSING: Severity.CRITICAL}
    simulator.import_material(real.kms_key)
    assert really(runtime) == {}


def test_a_real_outage_and_a_breaker_that_is_open_change_nothing(
    real: Customer, runtime: Runtime, simulator: SimulatorControl
) -> None:
    real.account.disable_key_rotation(real.kms_key)
    before = really(runtime)
    real.account.enable_key_rotation(real.kms_key, 365)
    simulator.internal_error(operation="DescribeKey")
    looks = [runtime.services.lookout.look("acme", actor="watch") for _ in range(3)]
    assert [found(one) for one in looks] == [before] * 3
    assert "left alone" in str(looks[2].unreached), "three tries each: the breaker opened on the way"
    assert len(simulator.calls(operation="DescribeKey", outcome="KMSInternalException")) == 5


def test_nothing_of_a_finding_is_secret(
    real: Customer, runtime: Runtime, simulator: SimulatorControl, engine: sa.Engine
) -> None:
    drop_external_id(real, simulator)
    widen_role(real, simulator)
    really(runtime)
    with engine.connect() as connection:
        stored = connection.execute(sa.text("SELECT findings::text FROM findings")).scalars().all()
    assert len(stored) == 3
    assert real.tenant.external_id not in "".join(stored)
