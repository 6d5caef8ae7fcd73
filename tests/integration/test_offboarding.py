"""Tenants that leave, over a real PostgreSQL: what goes, what stays, who may die when."""

import copy
import itertools
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from byok.core.lifecycle import check_versions
from byok.core.model import RotationReason, RotationState, SuspensionKind, TenantState, VersionState
from byok.core.offboarding import DEFAULT_RETENTION, Offboarding, OffboardingState, Signed
from byok.core.reencryption import TargetColumn
from byok.core.shred_certificate import ACCESS_KIND, KIND
from byok.crypto.reports import PURPOSE, verify_report
from byok.embedded.stack import Stack
from byok.errors import (
    CacheUnavailable,
    IllegalTransition,
    InvariantBroken,
    KmsAccessRevoked,
    KmsIntegrityError,
    LostRace,
    NotReady,
    OutOfBounds,
    ReportNotAuthentic,
    TenantNotActive,
    ValidationFailed,
)
from byok.failpoints import FailPoint, arm, disarm
from byok.ports import LeaseId
from byok.services.certification import Certification
from byok.services.offboarding import Departure
from byok.services.shredding import end_tenant
from byok.store import schema
from byok.store.application import PostgresRows
from tests.applications import Application, application
from tests.fakes import FakeKmsKey
from tests.integration.acts import Killed, die, request
from tests.leaving import wrapped_keys
from tests.world import TTL, World, kms_key_arn

CONTEXT = b"users.email:1"
NOW = timedelta(0)


def leave(world: World, tenant: str = "acme", retention: timedelta = DEFAULT_RETENTION) -> Departure:
    return world.services.offboardings.begin(tenant, "contract ended", retention=retention, actor="cli:eve")


def wait(world: World, retention: timedelta = DEFAULT_RETENTION) -> None:
    """Let the retention pass."""
    world.clock.advance(seconds=retention.total_seconds() + TTL.total_seconds() + 61)


def finish(world: World, tenant: str = "acme") -> Mapping[str, Any]:
    """Finish, and return the report of the certificate, verified."""
    signed = world.services.offboardings.finish(tenant, actor="cli:eve")
    return verify_report(signed, world.master_keys.signing_keys(PURPOSE).values())


def proofs(report: Mapping[str, Any]) -> dict[str, bool]:
    return {proof["name"]: proof["passed"] for proof in report["proofs"]}


def rotate(world: World, reason: RotationReason = RotationReason.FORCED, tenant: str = "acme") -> None:
    world.services.vault.request_rotation(tenant, "pii", reason=reason)
    world.run_published()


@pytest.fixture
def token(world: World, key: None) -> bytes:
    return world.services.vault.cipher("acme", "pii").encrypt(b"ada", context=CONTEXT)


# --- the stop -------------------------------------------------------------------------------------


def test_a_tenant_that_leaves_is_stopped_at_once_and_everywhere(world: World, token: bytes) -> None:
    others = [world.another_process() for _ in range(2)]
    for process in others:
        process.vault.cipher("acme", "pii").decrypt(token, context=CONTEXT)
    departure = leave(world)
    assert departure.tenant.state is TenantState.SUSPENDED
    assert departure.offboarding.state is OffboardingState.WAITING
    assert departure.stop is not None
    assert departure.stop.stop.kind is SuspensionKind.LEAVING
    for process in [world.services, *others]:
        with pytest.raises(TenantNotActive, match="leaves: contract ended") as caught:
            process.vault.cipher("acme", "pii").decrypt(token, context=CONTEXT)
        assert caught.value.remedy is not None
        assert "byok tenant offboard acme --cancel" in caught.value.remedy
        process.watch.look()
    assert world.services.offboardings.wait_for(departure.stop, NOW, print).answered == 0
    report = world.services.offboardings.show("acme").stop
    assert report is not None
    assert (report.answered, report.silent) == (3, [])
    assert not world.cache.entries
    assert world.audit_actions()[-2:] == ["tenant.suspended", "tenant.offboarding-began"]


def test_nothing_ends_it_but_taking_it_back(world: World, token: bytes) -> None:
    leave(world)
    asked = len(world.kms.calls)
    assert world.services.checkups.probe("acme") is TenantState.SUSPENDED
    world.services.lookout.look("acme", actor="watch")
    assert len(world.kms.calls) == asked, "AWS is not asked any more"
    with pytest.raises(IllegalTransition, match="leaves") as caught:
        world.services.kill_switch.resume("acme", actor="test")
    assert caught.value.remedy == "byok tenant offboard acme --cancel"
    with pytest.raises(TenantNotActive):
        world.services.kill_switch.suspend("acme", "customer called", actor="test")
    with pytest.raises(TenantNotActive):
        world.services.kill_switch.drill("acme", actor="test", patience=NOW, seen=print)
    with pytest.raises(IllegalTransition, match="leaves already"):
        leave(world)
    with world.store.transaction() as tx:
        assert tx.tenants.list_suspended(20) == [], "nobody has to mend that"


@pytest.mark.parametrize("before", ["locked", "revoked", "drill"])
def test_one_that_is_stopped_already_leaves_as_well(world: World, token: bytes, before: str) -> None:
    if before == "revoked":
        world.kms.disable(kms_key_arn())
        world.services.checkups.probe("acme")
    else:
        world.services.kill_switch.suspend("acme", "x", actor="test", kind=SuspensionKind(before))
    departure = leave(world)
    assert departure.tenant.suspension is not None
    assert departure.tenant.suspension.kind is SuspensionKind.LEAVING
    assert departure.stop is not None
    assert departure.stop.stop.kind is SuspensionKind(before), "what ended its use was that stop"
    world.kms.enable(kms_key_arn())
    world.clock.advance(minutes=2)
    assert world.services.checkups.probe("acme") is TenantState.SUSPENDED
    wait(world)
    assert finish(world)["passed"]


def test_of_two_who_offboard_at_once_one_is_told_so(world: World, key: None) -> None:
    with ThreadPoolExecutor(2) as pool:
        ends = [pool.submit(leave, world) for _ in range(2)]
    errors = [end.exception() for end in ends]
    assert sum(error is None for error in errors) == 1
    assert next(type(error) for error in errors if error is not None) in (LostRace, IllegalTransition)
    assert world.audit_actions().count("tenant.offboarding-began") == 1


@pytest.mark.parametrize("days", [-1, 3651])
def test_a_retention_has_bounds(world: World, key: None, days: int) -> None:
    with pytest.raises(OutOfBounds):
        leave(world, retention=timedelta(days=days))
    assert world.tenant().state is TenantState.ACTIVE


# --- taking it back -------------------------------------------------------------------------------


def test_taken_back_everything_decrypts_again(world: World, token: bytes) -> None:
    leave(world)
    wait(world)  # nobody came by, and nothing is destroyed yet
    assert world.services.offboardings.cancel("acme", actor="cli:eve").state is TenantState.ACTIVE
    for process in (world.services, world.another_process()):
        assert process.vault.cipher("acme", "pii").decrypt(token, context=CONTEXT) == b"ada"
    assert world.audit_actions()[-2:] == ["tenant.offboarding-cancelled", "tenant.resumed"]
    assert world.services.scheduling.sweep() == 0
    assert world.states() == ["active"]
    with pytest.raises(NotReady, match="not on its way out"):
        world.services.offboardings.cancel("acme", actor="cli:eve")
    leave(world)  # and may leave again
    wait(world)
    assert finish(world)["passed"]


def test_taken_back_while_kms_refuses_the_wrapped_keys_are_safe_all_the_same(
    world: World, token: bytes
) -> None:
    leave(world)
    world.kms.disable(kms_key_arn())
    with pytest.raises(KmsAccessRevoked):
        world.services.offboardings.cancel("acme", actor="cli:eve")
    tenant = world.tenant()
    assert tenant.suspension is not None
    assert tenant.suspension.kind is SuspensionKind.LOCKED
    wait(world)
    world.services.scheduling.sweep()
    assert world.states() == ["active"]
    world.kms.enable(kms_key_arn())
    world.services.kill_switch.resume("acme", actor="test")
    assert world.another_process().vault.cipher("acme", "pii").decrypt(token, context=CONTEXT) == b"ada"


def test_from_the_first_key_on_it_is_too_late(world: World, key: None) -> None:
    leave(world)
    wait(world)
    arm(FailPoint.SHREDDING_BEGUN, die)
    with pytest.raises(Killed):
        finish(world)
    disarm()
    with pytest.raises(IllegalTransition, match="too late"):
        world.services.offboardings.cancel("acme", actor="cli:eve")
    assert finish(world)["passed"]


# --- when -----------------------------------------------------------------------------------------


def test_nothing_is_destroyed_before_the_retention_has_passed(world: World, key: None) -> None:
    leave(world)
    world.clock.advance(days=30, seconds=-1)
    assert world.services.scheduling.sweep() == 0
    with pytest.raises(NotReady, match="no wrapped key is destroyed before 2026-01-31"):
        finish(world)
    assert world.states() == ["active"]
    world.clock.advance(seconds=1)
    assert world.services.scheduling.sweep() == 1
    assert world.states() == ["destroyed"]
    assert world.tenant().state is TenantState.OFFBOARDED
    assert world.services.scheduling.sweep() == 0


def test_without_retention_it_is_still_later_than_the_longest_lease(world: World, key: None) -> None:
    world.add_key(key="notes", ttl=timedelta(hours=3))
    leave(world, retention=NOW)
    world.clock.advance(hours=3, seconds=59)
    with pytest.raises(NotReady):
        finish(world)
    world.clock.advance(seconds=1)
    assert finish(world)["passed"]


def test_a_ttl_that_was_lowered_just_now_counts_as_the_longest_there_may_be(world: World, key: None) -> None:
    world.services.registry.set_rotation("acme", "pii", lease_ttl=timedelta(minutes=1), actor="test")
    leave(world, retention=NOW)
    world.clock.advance(hours=24, seconds=59)
    with pytest.raises(NotReady):
        finish(world)
    world.clock.advance(seconds=1)
    assert finish(world)["passed"]


def test_a_ttl_that_was_lowered_long_ago_counts_as_it_is(world: World, key: None) -> None:
    world.services.registry.set_rotation("acme", "pii", lease_ttl=timedelta(minutes=1), actor="test")
    world.clock.advance(days=1)
    leave(world, retention=NOW)
    world.clock.advance(minutes=2)
    assert finish(world)["passed"]


def test_a_process_that_is_cut_off_is_named_and_serves_nothing_when_the_keys_go(
    world: World, token: bytes
) -> None:
    cut_off = world.another_process()
    cipher = cut_off.vault.cipher("acme", "pii")
    cipher.decrypt(token, context=CONTEXT)
    world.board.ears = [world.services.watch.hear]  # no push reaches it, and it never looks
    leave(world, retention=NOW)
    world.services.watch.look()
    assert cipher.decrypt(token, context=CONTEXT) == b"ada", "it does not know"
    wait(world, NOW)
    report = finish(world)
    assert report["stop"]["not_answered"] == [str(cut_off.watch.member)]
    (told,) = [one["detail"] for one in report["proofs"] if one["name"] == "no-lease-lives"]
    assert f"not answered: {cut_off.watch.member}" in told
    assert "1 of 2 processes" in told
    with pytest.raises(TenantNotActive):
        cipher.decrypt(token, context=CONTEXT)


# --- what goes ------------------------------------------------------------------------------------


def reach(world: World, state: VersionState) -> None:
    """Bring the newest version of acme's key into a state."""
    if state is VersionState.COMPROMISED:
        rotate(world, RotationReason.COMPROMISE)
    elif state is VersionState.RETIRED:
        rotate(world)
    elif state in (VersionState.PENDING, VersionState.REJECTED):
        request(world)
        arm(FailPoint.GENERATED, die)
        with pytest.raises(Killed):
            world.run_published()
        disarm()
        if state is VersionState.REJECTED:
            world.clock.advance(minutes=1)
            world.kms.fail_next(KmsIntegrityError("broken"))
            world.services.scheduling.sweep()
            with pytest.raises(ValidationFailed):
                world.run_published()


HISTORIES = [
    (*history, last)
    for history in itertools.product((VersionState.RETIRED, VersionState.COMPROMISED), repeat=2)
    for last in (VersionState.ACTIVE, VersionState.PENDING, VersionState.REJECTED)
]


@pytest.mark.parametrize("history", HISTORIES, ids="-".join)
def test_whatever_the_states_of_the_versions_no_wrapped_key_is_left(
    world: World, key: None, engine: sa.Engine, history: tuple[VersionState, ...]
) -> None:
    for state in history:
        reach(world, state)
    before = [version.state for version in world.versions()]
    assert set(history) <= set(before)
    leave(world)
    wait(world)
    report = finish(world)
    assert wrapped_keys(engine) == 0
    assert set(world.states()) == {"destroyed"}
    check_versions(world.versions())
    assert all(not rotation.is_open for rotation in world.show().rotations)
    shredded = [e for e in world.services.registry.audit_log("acme") if e.action == "version.shredded"]
    assert [event.details["was"] for event in shredded] == [state.value for state in before]
    told = report["keys"][0]["versions"]
    assert [one["version"] for one in told] == list(range(1, len(before) + 1))
    day = report["shredded_at"][:10]
    assert {one["destroyed_at"][:10] for one in told} == {day}, "also of those that were rejected before"


def test_a_version_that_was_destroyed_before_keeps_its_time(world: World, key: None) -> None:
    rotate(world)
    world.services.destruction.set_floor("acme", "pii", 2, actor="test")
    world.clock.advance(days=2)
    world.services.destruction.destroy("acme", "pii", 1, actor="test", unused_for=NOW, force=True)
    ended_at = world.versions()[0].ended_at
    leave(world)
    wait(world)
    finish(world)
    assert world.versions()[0].ended_at == ended_at


def test_a_worker_that_is_at_it_stores_no_version_after_the_end(
    world: World, key: None, engine: sa.Engine
) -> None:
    """The slowest one: it asked KMS before the tenant was stopped, and comes back after it is gone."""
    request(world)

    def meanwhile() -> None:
        world.kms.hooks.clear()
        leave(world)
        wait(world)
        assert finish(world)["passed"]

    world.kms.hooks["GenerateDataKeyWithoutPlaintext"] = meanwhile
    world.run_published()
    assert wrapped_keys(engine) == 0
    assert world.states() == ["destroyed"]
    assert world.show().rotations[0].state is RotationState.FAILED
    with world.store.transaction() as tx:
        assert tx.rotations.list_failed(20) == [], "nobody has to mend that"


def test_pinned_blind_indexes_and_due_times_hold_nothing_back(world: World, key: None) -> None:
    world.services.indexes.enable("acme", "pii", actor="test")
    leave(world)
    wait(world)
    finish(world)
    details = world.show()
    assert (details.key.index, details.key.next_rotation_at) == (None, None)


@pytest.fixture(scope="module")
def application_database(stack: Stack) -> Iterator[Application]:
    with application(stack) as made:
        yield made


def test_campaigns_end_tables_are_forgotten_and_so_are_row_ids(
    world: World, engine: sa.Engine, application_database: Application
) -> None:
    application_database.create()
    world.rows = PostgresRows(application_database.engine)
    world.services = world.another_process()
    world.add_tenant()
    world.add_key()
    application_database.insert(world.services.vault.cipher("acme", "pii"), {7: "ada@example.com"})
    world.services.targets.register(
        "acme",
        "pii",
        table="users",
        primary_key="id",
        columns=(TargetColumn.parse("email=users.email:{id}"),),
        actor="test",
    )
    rotate(world)
    started = world.services.campaigns.start("acme", "pii", requested_by="test")[0].work.campaign
    with engine.begin() as connection:
        connection.execute(
            schema.reencryption_campaigns.update().values(
                cursor="7", unreadable_rows=[{"column": "email", "row_id": "7"}]
            )
        )
    leave(world)
    wait(world)
    finish(world)
    assert world.services.campaigns.get(started.id).campaign.state == "cancelled"
    assert world.services.targets.list("acme", "pii") == []
    with engine.connect() as connection:
        kept = connection.execute(
            sa.select(schema.reencryption_campaigns.c.cursor, schema.reencryption_campaigns.c.unreadable_rows)
        ).one()
    assert tuple(kept) == (None, [])
    assert {"campaign.cancelled", "target.unregistered"} <= set(world.audit_actions())
    world.clock.advance(days=1)
    world.services.scheduling.sweep()


def test_findings_are_closed_and_what_the_customer_was_told_is_forgotten(
    world: World, engine: sa.Engine
) -> None:
    acme = world.kms.keys[kms_key_arn(1)] = FakeKmsKey(rotation_days=365)
    world.add_tenant()
    world.add_key()
    world.services.registry.set_webhook(
        "acme", "https://hooks.acme.example/secret", allow_http=False, actor="test"
    )
    acme.rotation_days = None
    world.services.lookout.look("acme", actor="watch")
    leave(world)
    wait(world)
    posted = len(world.webhooks.posted)
    finish(world)
    assert world.services.lookout.list_of("acme") == []
    assert world.tenant().webhook_url is None
    with engine.connect() as connection:
        for table in (schema.webhook_messages, schema.rotation_requests):
            assert connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one() == 0
    assert len(world.webhooks.posted) == posted
    (began,) = [e for e in world.services.registry.audit_log("acme") if e.action == "tenant.shredding-began"]
    assert (began.details["forgot_webhook_urls"], began.details["forgot_webhook_messages"]) == (1, 2)


def test_a_tenant_that_never_was_active_has_left_at_once(world: World) -> None:
    world.services.onboarding.add_tenant("acme", actor="test")
    departure = leave(world)
    assert departure.tenant.state is TenantState.OFFBOARDED
    assert departure.stop is None
    report = finish(world)
    assert (report["passed"], report["keys"], report["customer_removes"]) == (True, [], [])
    assert report["kms_key_arn"] is None
    with pytest.raises(NotReady):
        world.services.offboardings.check_access("acme", actor="test")


def test_what_is_left_of_one_is_nothing_of_its_neighbour(world: World, key: None) -> None:
    world.add_tenant("globex")
    world.add_key("globex")
    theirs = world.services.vault.cipher("globex", "pii").encrypt(b"x", context=CONTEXT)
    leave(world)
    wait(world)
    finish(world)
    assert world.states("globex") == ["active"]
    assert world.another_process().vault.cipher("globex", "pii").decrypt(theirs, context=CONTEXT) == b"x"


# --- deaths and races -----------------------------------------------------------------------------

POINTS = [
    FailPoint.SHREDDING_BEGUN,
    FailPoint.KEY_SHREDDING,
    FailPoint.KEY_SHREDDED,
    FailPoint.OFFBOARDING,
    FailPoint.OFFBOARDED,
    FailPoint.CERTIFYING,
]


@pytest.mark.parametrize("by", ["sweeper", "command"])
@pytest.mark.parametrize("point", POINTS)
def test_whoever_dies_is_followed_by_another_and_nothing_is_done_twice(
    world: World, key: None, engine: sa.Engine, point: FailPoint, by: str
) -> None:
    for name in ("notes", "files"):
        world.add_key(key=name)
    rotate(world)
    leave(world)
    wait(world)
    arm(point, die)
    with pytest.raises(Killed):
        finish(world)
    disarm()
    if by == "sweeper":
        assert world.services.scheduling.sweep() == 1
    report = finish(world)
    assert report["passed"]
    assert wrapped_keys(engine) == 0
    actions = world.audit_actions()
    for once in ("tenant.shredding-began", "tenant.offboarded", "tenant.shred-certified"):
        assert actions.count(once) == 1
    assert actions.count("version.shredded") == 4
    verified = world.services.auditor.verify(world.services.auditor.chain("acme"))
    assert verified.last.sequence == len(actions)


def test_two_finishers_at_once_do_it_once_and_print_one_certificate(world: World, key: None) -> None:
    for number in range(6):
        world.add_key(key=f"key-{number}")
    leave(world)
    wait(world)
    processes = [world.services, world.another_process()]
    with ThreadPoolExecutor(2) as pool:
        ends = [pool.submit(one.offboardings.finish, "acme", actor="cli:eve") for one in processes]
    first, second = (end.result() for end in ends)
    assert first == second
    actions = world.audit_actions()
    assert actions.count("version.shredded") == 7
    for once in ("tenant.shredding-began", "tenant.offboarded", "tenant.shred-certified"):
        assert actions.count(once) == 1


def test_a_sweep_takes_its_time_in_parts(world: World, key: None) -> None:
    world.add_key(key="notes")
    leave(world)
    wait(world)
    arm(FailPoint.KEY_SHREDDED, lambda: world.clock.advance(seconds=11))
    assert world.services.scheduling.sweep() == 0
    assert world.tenant().state is TenantState.SUSPENDED
    assert world.services.scheduling.sweep() == 1


def test_one_that_can_not_be_certified_holds_up_no_other(world: World, key: None) -> None:
    world.add_tenant("globex")
    world.add_key("globex")
    leave(world)
    world.clock.advance(seconds=1)
    leave(world, "globex")
    wait(world)
    world.cache.is_down = True
    assert world.services.scheduling.sweep() == 0
    assert [world.tenant(name).state for name in ("acme", "globex")] == [TenantState.OFFBOARDED] * 2
    with pytest.raises(CacheUnavailable):
        finish(world)
    world.cache.is_down = False
    assert world.services.scheduling.sweep() == 2


# --- proofs ---------------------------------------------------------------------------------------


def test_the_certificate_says_what_was_destroyed_and_how_that_was_proven(world: World, key: None) -> None:
    rotate(world)
    member = str(world.services.watch.member)
    leave(world)
    world.services.watch.look()
    wait(world)
    asked = len(world.kms.calls)
    report = finish(world)
    assert len(world.kms.calls) == asked
    tenant = world.tenant()
    assert (report["tenant"], report["tenant_id"]) == ("acme", str(tenant.id))
    assert (report["kms_key_arn"], report["requested_by"]) == (kms_key_arn(), "cli:eve")
    assert proofs(report) == {
        "no-wrapped-key": True,
        "records-gone": True,
        "canaries-refused": True,
        "redis-empty": True,
        "no-lease-lives": True,
        "audit-chain": True,
    }
    details = {proof["name"]: proof["detail"] for proof in report["proofs"]}
    assert details["records-gone"] == "records tried: 2, each refused: unknown-version"
    assert details["canaries-refused"] == "canaries tried: 2, each refused: tenant-not-active"
    assert [one["process"] for one in report["stop"]["processes"]] == [member]
    assert report["stop"]["not_answered"] == []
    events = world.services.registry.audit_log("acme")
    head = report["audit_chain"]
    assert events[head["sequence"] - 1].hash.hex() == head["hash"]
    assert [event.action for event in events[head["sequence"] :]] == ["tenant.shred-certified"]
    removed = " ".join(one["what"] + one["how"] for one in report["customer_removes"])
    for what in ("key policy", "byok:rotation-days", "grants", "webhook", "kms:Encrypt", "--check-access"):
        assert what in removed
    assert any("backups" in one["what"] and "deleted" in one["remedy"] for one in report["remains"])


# Which key to try, for a reader: it proves nothing, and is not signed (docs/spec/report.md, P-3).
UNSIGNED = {("signature",), ("signature", "algorithm"), ("signature", "master_key_id")}


def every_change(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, Mapping):
        for name, one in value.items():
            yield from every_change(one, (*path, name))
    elif isinstance(value, list):
        for place, one in enumerate(value):
            yield from every_change(one, (*path, place))
    if path:
        yield path


def test_the_certificate_verifies_and_with_any_member_changed_it_does_not(world: World, key: None) -> None:
    leave(world)
    wait(world)
    signed = dict(world.services.offboardings.finish("acme", actor="test"))
    trusted = list(world.master_keys.signing_keys(PURPOSE).values())
    assert signed["kind"] == KIND
    verify_report(signed, trusted)
    paths = set(every_change(signed)) - UNSIGNED
    assert len(paths) > 80
    for path in paths:
        changed = copy.deepcopy(signed)
        holder: Any = changed
        for step in path[:-1]:
            holder = holder[step]
        holder[path[-1]] = "forged" if holder[path[-1]] != "forged" else "other"
        with pytest.raises(ReportNotAuthentic):
            verify_report(changed, trusted)


def test_what_is_stored_is_what_was_signed(world: World, key: None) -> None:
    leave(world)
    wait(world)
    signed = world.services.offboardings.finish("acme", actor="test")
    stored = world.services.offboardings.show("acme").offboarding.certificate
    assert stored == signed
    assert world.services.offboardings.finish("acme", actor="test") == signed


def put_back(engine: sa.Engine, kept: Mapping[str, Any]) -> None:
    """What somebody does who restores a row from a backup."""
    record = {column: kept[column] for column in ("encrypted_key", "iv", "master_key_id")}
    with engine.begin() as connection:
        connection.execute(schema.key_versions.update().values(state="active", ended_at=None, **record))


@pytest.fixture
def kept(key: None, engine: sa.Engine) -> Mapping[str, Any]:
    """The row of acme's version, with its wrapped key."""
    with engine.connect() as connection:
        return dict(connection.execute(sa.select(schema.key_versions)).one()._mapping)


def test_a_wrapped_key_that_is_there_again_ends_nothing(
    world: World, engine: sa.Engine, kept: Mapping[str, Any]
) -> None:
    leave(world)
    wait(world)
    arm(FailPoint.KEY_SHREDDED, lambda: put_back(engine, kept))
    with pytest.raises(InvariantBroken, match="again"):
        finish(world)
    assert world.tenant().state is TenantState.SUSPENDED
    with pytest.raises(InvariantBroken, match="1 wrapped keys"), world.store.transaction() as tx:
        end_tenant(tx, world.tenant(), world.clock.now(), "test")
    disarm()
    assert finish(world)["passed"]


def test_a_wrapped_key_that_is_there_again_is_never_certified(
    world: World, engine: sa.Engine, kept: Mapping[str, Any]
) -> None:
    leave(world)
    wait(world)
    arm(FailPoint.OFFBOARDED, lambda: put_back(engine, kept))
    with pytest.raises(ValidationFailed, match="no-wrapped-key") as caught:
        finish(world)
    assert "records-gone" in caught.value.message
    assert world.services.offboardings.show("acme").offboarding.state is OffboardingState.SHREDDED
    assert world.services.scheduling.sweep() == 0


def test_a_broken_audit_chain_is_told_in_the_certificate(world: World, key: None, engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE audit_events SET actor = 'nobody' WHERE sequence = 2"))
    leave(world)
    wait(world)
    report = finish(world)
    assert proofs(report)["audit-chain"] is False
    assert report["passed"] is False


def test_neither_a_restored_cache_nor_the_remaining_rows_decrypt_anything(
    world: World, token: bytes, engine: sa.Engine
) -> None:
    dump = dict(world.cache.entries)
    assert dump
    leave(world, retention=NOW)
    wait(world, NOW)
    finish(world)
    # Somebody restores Redis, puts the tenant back into the generation of the dump, and calls it active.
    never = world.clock.ticks() + 10**6
    world.cache.entries = {one: (lease, never) for one, (lease, _) in dump.items()}
    (one,) = dump
    assert isinstance(one, LeaseId)
    with engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE tenants SET state = 'active', generation = :generation"),
            {"generation": one.generation},
        )
    process = world.another_process()
    with pytest.raises(Exception, match=r"does not decrypt|does not open"):
        process.vault.cipher("acme", "pii").decrypt(token, context=CONTEXT)
    with pytest.raises(NotReady):
        process.vault.cipher("acme", "pii").encrypt(b"x", context=CONTEXT)


def test_what_lies_in_the_cache_by_another_way_is_purged_and_found(world: World, token: bytes) -> None:
    dump = {one: (lease, world.clock.ticks() + 10**9) for one, (lease, _) in world.cache.entries.items()}
    leave(world)
    wait(world)
    world.cache.entries = dict(dump)
    assert proofs(finish(world))["redis-empty"]
    assert not world.cache.entries


# --- afterwards -----------------------------------------------------------------------------------


def test_who_has_left_is_left_alone(world: World, key: None) -> None:
    leave(world)
    wait(world)
    finish(world)
    asked = len(world.kms.calls)
    world.clock.advance(days=40)
    services = world.services
    services.scheduling.dispatch_due()
    services.scheduling.sweep()
    for publish in ("publish_probes", "publish_validations", "publish_syncs", "publish_watches"):
        assert getattr(services.fan_out, publish)() == 0
    assert services.checkups.probe("acme") is TenantState.OFFBOARDED
    assert len(world.kms.calls) == asked
    for act in (
        lambda: services.registry.create_key("acme", "x", rotation_period=None, lease_ttl=TTL, actor="test"),
        lambda: services.registry.set_rotation("acme", "pii", actor="test"),
        lambda: services.registry.set_webhook("acme", "https://x.example", allow_http=False, actor="test"),
        lambda: services.registry.set_outage_wait("acme", NOW, actor="test"),
        lambda: services.onboarding.verify_tenant("acme", actor="test"),
        lambda: services.vault.request_rotation("acme", "pii"),
        lambda: services.follower.sync("acme", actor="test"),
    ):
        with pytest.raises(TenantNotActive, match="offboarded"):
            act()
    overview = services.observer.overview()
    assert (overview.failed, overview.stuck, overview.suspended) == ([], [], [])


def test_its_kms_key_is_free_for_whoever_comes_next_and_its_name_is_not(world: World, token: bytes) -> None:
    leave(world)
    world.services.onboarding.add_tenant("acme-2", actor="test")
    with pytest.raises(Exception, match="another tenant registered this KMS key"):
        world.services.onboarding.verify_tenant("acme-2", actor="test", kms_key_arn=kms_key_arn())
    wait(world)
    finish(world)
    verified = world.services.onboarding.verify_tenant("acme-2", actor="test", kms_key_arn=kms_key_arn())
    assert verified.tenant.state is TenantState.ACTIVE
    world.add_key("acme-2")
    with pytest.raises(Exception, match="does not open"):
        world.services.vault.cipher("acme-2", "pii").decrypt(token, context=CONTEXT)
    with pytest.raises(Exception, match="a tenant of this name exists"):
        world.services.onboarding.add_tenant("acme", actor="test")


def test_whether_the_customer_has_shut_us_out_is_tried_and_signed(world: World, key: None) -> None:
    with pytest.raises(NotReady):
        world.services.offboardings.check_access("acme", actor="test")
    leave(world)
    with pytest.raises(NotReady, match="once it has left"):
        world.services.offboardings.check_access("acme", actor="test")
    wait(world)
    finish(world)
    trusted = list(world.master_keys.signing_keys(PURPOSE).values())
    stands = verify_report(world.services.offboardings.check_access("acme", actor="test"), trusted)
    assert stands["shut_out"] is False
    refusal = KmsAccessRevoked("no", aws_code="AccessDenied", request_id="r-1")
    world.kms.fail_next(refusal, times=2)
    signed = world.services.offboardings.check_access("acme", actor="test")
    report = verify_report(signed, trusted)
    assert (signed["kind"], report["shut_out"]) == (ACCESS_KIND, True)
    assert report["calls"][0] == {
        "operation": "GenerateDataKeyWithoutPlaintext",
        "kms_key_arn": kms_key_arn(),
        "refused": True,
        "aws_code": "AccessDenied",
        "request_id": "r-1",
    }
    last = world.services.registry.audit_log("acme")[-1]
    assert (last.action, last.details["request_id"]) == ("tenant.access-checked", "r-1")
    assert world.services.offboardings.show("acme").offboarding.access_statement == signed


def test_who_can_not_be_certified_does_not_stand_before_the_others(
    world: World, key: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add_tenant("globex")
    for tenant in ("acme", "globex"):
        leave(world, tenant)
        world.clock.advance(seconds=1)
    wait(world)
    acme, certify = world.tenant().id, Certification.certify

    def fail_one(of: Certification, offboarding: Offboarding, actor: str) -> Signed:
        if offboarding.tenant_id == acme:
            raise ValidationFailed("something still decrypts")
        return certify(of, offboarding, actor)

    monkeypatch.setattr(Certification, "certify", fail_one)
    monkeypatch.setattr("byok.services.offboarding._TENANTS_A_SWEEP", 1)
    assert any(world.services.offboardings.finish_due() for _ in range(30))
    assert world.services.offboardings.show("globex").offboarding.certificate is not None


def test_who_was_stopped_before_stops_were_written_down_is_not_said_to_have_had_no_lease(
    world: World, token: bytes, engine: sa.Engine
) -> None:
    world.services.kill_switch.suspend("acme", "by hand", actor="test")
    with engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM acknowledgements; DELETE FROM stops"))
    leave(world)
    wait(world)
    report = finish(world)
    assert report["stop"] is None
    (told,) = [one["detail"] for one in report["proofs"] if one["name"] == "no-lease-lives"]
    assert told.startswith("which processes dropped theirs was not written down")
