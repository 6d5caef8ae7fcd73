"""Stops over a real PostgreSQL: committed, told, obeyed by every process, and acknowledged."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from byok.core.model import SuspensionKind, TenantState
from byok.errors import (
    ByokError,
    IllegalTransition,
    KmsAccessRevoked,
    KmsIntegrityError,
    KmsUnavailable,
    NotReady,
    StoreUnavailable,
    TenantNotActive,
)
from byok.ports import Notice
from byok.services.fields import Cipher
from byok.wiring import Services
from tests.world import World

CONTEXT = b"users.email:1"
PATIENCE = timedelta(seconds=1)
EVER = datetime(1970, 1, 1, tzinfo=UTC)


def cipher(services: Services) -> Cipher:
    return services.vault.cipher("acme", "pii")


def use(services: Services) -> str:
    """``served``, or the code of the error."""
    try:
        cipher(services).encrypt(b"x", context=CONTEXT)
    except ByokError as error:
        return error.code
    return "served"


@pytest.fixture
def fleet(world: World, key: None) -> list[Services]:
    """Three processes with leases."""
    processes = [world.another_process() for _ in range(3)]
    assert [use(one) for one in processes] == ["served"] * 3
    return processes


def disable(world: World) -> None:
    world.kms.disable(world.versions()[0].kms_key_arn)


def enable(world: World) -> None:
    world.kms.enable(world.versions()[0].kms_key_arn)


def look(fleet: list[Services]) -> None:
    for process in fleet:
        process.watch.look()


def test_a_pushed_stop_is_obeyed_at_once_though_every_lease_would_last_an_hour(
    world: World, fleet: list[Services]
) -> None:
    disable(world)
    world.services.checkups.probe("acme")
    assert [use(one) for one in fleet] == ["tenant-not-active"] * 3
    assert all(not one.desk._held.leases for one in fleet)


def test_a_lost_push_costs_a_look(world: World, fleet: list[Services]) -> None:
    world.board.loses_all = True
    disable(world)
    world.services.checkups.probe("acme")
    assert use(fleet[0]) == "served", "nobody told it yet"
    look(fleet)
    assert [use(one) for one in fleet] == ["tenant-not-active"] * 3


def test_a_process_that_neither_hears_nor_looks_stops_at_its_next_recheck(
    world: World, fleet: list[Services]
) -> None:
    world.board.loses_all = True
    disable(world)
    world.services.checkups.probe("acme")
    world.clock.advance(seconds=5)
    assert [use(one) for one in fleet] == ["tenant-not-active"] * 3


def test_every_process_acknowledges_with_the_time_at_which_it_dropped(
    world: World, fleet: list[Services]
) -> None:
    world.board.loses_all = True
    disable(world)
    world.services.checkups.probe("acme")
    (report,) = world.services.kill_switch.reports(world.tenant())
    assert (report.answered, len(report.silent)) == (0, 3)
    world.clock.advance(seconds=2)
    look(fleet[:1])
    world.clock.advance(seconds=1)
    look(fleet)
    (report,) = world.services.kill_switch.reports(world.tenant())
    assert (report.answered, report.silent) == (3, [])
    assert report.latency == timedelta(seconds=3)
    assert report.stop.kind is SuspensionKind.REVOKED
    assert sorted(one.leases or 0 for one in report.acknowledgements) == [1, 1, 1]
    assert world.metrics.counts["stop"] == 3
    look(fleet)
    assert world.metrics.counts["stop"] == 3, "each stop is acknowledged once"


def test_a_push_is_acknowledged_with_the_time_of_the_push_not_of_the_look(
    world: World, fleet: list[Services]
) -> None:
    disable(world)
    world.services.checkups.probe("acme")
    world.clock.advance(seconds=4)
    look(fleet)
    (report,) = world.services.kill_switch.reports(world.tenant())
    assert report.latency == timedelta(0)


def test_a_dead_process_owes_nothing_after_a_while_and_is_forgotten(
    world: World, fleet: list[Services]
) -> None:
    world.clock.advance(seconds=40)
    look(fleet[:2])  # the third is dead
    world.clock.advance(seconds=10)
    disable(world)
    world.services.checkups.probe("acme")
    look(fleet[:2])
    (report,) = world.services.kill_switch.reports(world.tenant())
    assert (report.answered, report.silent) == (2, [])
    world.clock.advance(minutes=20)
    look(fleet[:2])
    world.services.scheduling.sweep()
    with world.store.transaction() as tx:
        assert tx.members.count(EVER) == 2
        assert dict(tx.stops.worst_latencies(EVER, world.clock.now(), 3))["acme"] >= timedelta(0)


def test_a_member_that_was_forgotten_while_it_froze_comes_back(world: World, fleet: list[Services]) -> None:
    world.clock.advance(hours=1)
    world.services.scheduling.sweep()
    look(fleet)
    with world.store.transaction() as tx:
        assert tx.members.count(EVER) == 3


def test_a_notice_says_only_look_and_postgresql_decides(world: World, fleet: list[Services]) -> None:
    asked = world.kms.count("Decrypt")
    world.board.publish(Notice(world.tenant().id, world.random.uuid()))  # forged
    assert [use(one) for one in fleet] == ["served"] * 3
    assert world.kms.count("Decrypt") == asked, "the shared lease is still there"


# --- what is under way when the stop comes --------------------------------------------------------


def test_a_fetch_that_is_under_way_when_the_stop_comes_serves_nothing(world: World, key: None) -> None:
    slow = world.another_process()
    world.cache.entries.clear()

    def stop_meanwhile() -> None:
        world.kms.hooks.clear()
        world.services.kill_switch.suspend("acme", "stop", actor="test")

    world.kms.hooks["Decrypt"] = stop_meanwhile
    assert use(slow) == "tenant-not-active"
    assert not slow.desk._held.leases


def test_a_stop_and_a_resume_during_a_fetch_leave_no_lease_from_before(world: World, key: None) -> None:
    slow = world.another_process()
    world.cache.entries.clear()

    def stop_and_resume() -> None:
        world.kms.hooks.clear()
        world.services.kill_switch.suspend("acme", "stop", actor="test")
        world.services.kill_switch.resume("acme", actor="test")

    world.kms.hooks["Decrypt"] = stop_and_resume
    assert use(slow) == "served", "under the new generation"
    assert {lease_id.generation for lease_id in slow.desk._held.leases} == {world.tenant().generation}


def test_without_caching_a_stop_during_the_call_still_counts(world: World) -> None:
    world.add_tenant()
    world.add_key(ttl=timedelta(0))

    def stop_meanwhile() -> None:
        world.kms.hooks.clear()
        world.services.kill_switch.suspend("acme", "stop", actor="test")

    world.kms.hooks["Decrypt"] = stop_meanwhile
    assert use(world.services) == "tenant-not-active"


def test_a_view_read_before_the_stop_is_not_kept_after_it(world: World, fleet: list[Services]) -> None:
    """The thread reads PostgreSQL, the stop comes, the thread files what it read."""
    held = fleet[0].desk._held
    view = held.views["acme", "pii"]
    since = held.drops
    world.services.kill_switch.suspend("acme", "stop", actor="test")
    assert not held.keep_view(since, ("acme", "pii"), view)
    assert use(fleet[0]) == "tenant-not-active"


def test_a_refusal_stops_this_process_though_its_suspension_could_not_be_pushed(
    world: World, fleet: list[Services]
) -> None:
    world.board.is_down = world.cache.is_down = True
    disable(world)
    world.clock.advance(hours=1, seconds=1)
    assert use(fleet[0]) == "kms-access-revoked"
    assert use(fleet[0]) == "tenant-not-active"
    assert world.tenant().state is TenantState.SUSPENDED


def test_a_notice_about_one_tenant_is_nothing_to_the_fetches_of_another(world: World, key: None) -> None:
    world.add_tenant("globex")
    world.cache.is_down = True
    process = world.another_process()
    globex = world.tenant("globex").id
    world.kms.hooks["Decrypt"] = lambda: world.board.publish(Notice(globex, world.random.uuid()))
    asked = world.kms.count("Decrypt")
    assert use(process) == "served"
    assert world.kms.count("Decrypt") == asked + 1


def test_a_look_at_postgresql_that_takes_long_lengthens_no_lease(
    world: World, fleet: list[Services], monkeypatch: pytest.MonkeyPatch
) -> None:
    world.clock.advance(minutes=47)
    disable(world)
    slow = Slow(world.store, lambda: world.clock.advance(minutes=14))
    monkeypatch.setattr(fleet[0].desk, "_store", slow)
    assert use(fleet[0]) == "kms-access-revoked"


def test_what_passes_while_a_cached_lease_is_unsealed_lengthens_no_lease(
    world: World, key: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, began = world.another_process(), world.clock.ticks()
    open_ = world.master_keys.open

    def slow(*arguments: Any) -> bytes:
        world.clock.advance(minutes=30)
        return open_(*arguments)

    monkeypatch.setattr(process.desk._source, "_master_keys", SlowRing(slow))
    cipher(process).encrypt(b"x", context=CONTEXT)
    (lease,) = process.desk._held.leases.values()
    assert lease.began_ticks <= began


def test_a_refusal_that_cannot_be_committed_stops_this_process_all_the_same(
    world: World, fleet: list[Services], monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add_key(key="other")
    process = fleet[0]
    process.vault.cipher("acme", "other").encrypt(b"x", context=CONTEXT)
    use(process)
    disable(world)
    (lease_id,) = [one for one in process.desk._held.leases if one.key_id == world.show().key.id]
    process.desk._held.drop_lease(lease_id)
    world.cache.entries.clear()

    def unavailable(*_: object, **__: object) -> None:
        raise StoreUnavailable("no commit")

    monkeypatch.setattr(process.desk._source._suspensions, "suspend", unavailable)
    assert use(process) == "kms-access-revoked"
    assert not process.desk._held.leases, "those of other keys of the tenant, too"


def test_a_process_that_joins_during_a_stop_looks_again(world: World, key: None) -> None:
    late = world.another_process()
    late.desk._look_again("acme", "pii")  # read before it was a member
    world.board.ears.clear()
    entries = dict(world.cache.entries)
    world.services.kill_switch.suspend("acme", "stop", actor="test")
    world.cache.entries |= entries
    assert use(late) == "tenant-not-active"


def test_a_process_that_could_not_enrol_does_so_when_postgresql_is_back(
    world: World, key: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = world.another_process()

    def unavailable() -> None:
        raise StoreUnavailable("not now")

    with monkeypatch.context() as patch:
        patch.setattr(process.watch, "_store", Slow(world.store, unavailable))
        assert use(process) == "served"
    with world.store.transaction() as tx:
        assert tx.members.count(EVER) == 0
    process.watch.look()
    with world.store.transaction() as tx:
        assert tx.members.count(EVER) == 1


def test_leases_end_in_memory_while_postgresql_is_down(
    world: World, fleet: list[Services], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, held = fleet[0].watch, fleet[0].desk._held
    assert held.leases

    def fail_and_end() -> int:
        watch._ended.set()
        raise StoreUnavailable("down")

    monkeypatch.setattr(watch, "look", fail_and_end)
    world.clock.advance(days=1)
    watch._look_now.set()
    watch._look_for_ever(watch._ended)
    assert not held.leases


def test_a_vault_that_is_used_after_its_close_joins_anew(world: World, fleet: list[Services]) -> None:
    fleet[0].watch.close()
    assert use(fleet[0]) == "served"
    world.services.kill_switch.suspend("acme", "stop", actor="test")
    look(fleet)
    (report,) = world.services.kill_switch.reports(world.tenant())
    assert report.answered == 3


def test_whoever_leaves_owes_nothing(world: World, fleet: list[Services]) -> None:
    world.board.loses_all = True
    world.services.kill_switch.suspend("acme", "stop", actor="test")
    fleet[0].watch.close()
    (report,) = world.services.kill_switch.reports(world.tenant())
    assert report.answered == 1
    with world.store.transaction() as tx:
        assert tx.members.count(EVER) == 2


def test_what_a_caller_dropped_before_the_look_is_counted_with_its_time(
    world: World, fleet: list[Services]
) -> None:
    world.board.loses_all = True
    world.services.kill_switch.suspend("acme", "stop", actor="test")
    world.clock.advance(seconds=5)
    assert use(fleet[0]) == "tenant-not-active"  # its own look, at the recheck
    world.clock.advance(seconds=3)
    look(fleet[:1])
    (report,) = world.services.kill_switch.reports(world.tenant())
    assert [(one.leases, one.dropped_at) for one in report.acknowledgements if one.dropped_at] == [
        (1, world.clock.now() - timedelta(seconds=3))
    ]


def test_looks_side_by_side_acknowledge_once(world: World, fleet: list[Services]) -> None:
    world.services.kill_switch.suspend("acme", "stop", actor="test")
    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(lambda _: fleet[0].watch.look(), range(8))) == [0] * 7 + [1]
    assert world.metrics.counts["stop"] == 1


class Slow:
    """A store whose transactions begin by something."""

    def __init__(self, store: Any, begin: Callable[[], None]) -> None:
        self._store = store
        self._begin = begin

    def transaction(self) -> Any:
        self._begin()
        return self._store.transaction()


class SlowRing:
    """A key ring that takes its time to open."""

    def __init__(self, open_: Callable[..., bytes]) -> None:
        self.open = open_


# --- purge ----------------------------------------------------------------------------------------


def test_a_purge_that_failed_is_made_up_for_by_the_sweeper(world: World, fleet: list[Services]) -> None:
    assert world.cache.entries
    world.cache.is_down = True
    world.services.kill_switch.suspend("acme", "stop", actor="test")
    world.cache.is_down = False
    assert world.cache.entries, "sealed, and nobody looks there; but it should not lie about"
    world.services.scheduling.sweep()
    assert world.cache.entries == {}
    assert world.metrics.counts["found", "purged"] == 1
    world.services.scheduling.sweep()
    assert world.metrics.counts["found", "purged"] == 1


# --- who stopped it decides how it comes back -----------------------------------------------------


def test_what_a_person_stopped_no_probe_lets_go_on(world: World, fleet: list[Services]) -> None:
    tenant, _ = world.services.kill_switch.suspend("acme", "customer called", actor="cli:eve")
    assert tenant.suspension is not None
    assert (tenant.suspension.kind, tenant.suspension.reason) == (SuspensionKind.LOCKED, "customer called")
    world.clock.advance(hours=10)
    assert world.services.checkups.probe("acme") is TenantState.SUSPENDED
    assert use(fleet[0]) == "tenant-not-active"
    assert world.services.kill_switch.resume("acme", actor="cli:eve").state is TenantState.ACTIVE
    assert [use(one) for one in fleet] == ["served"] * 3, "told at once: no recheck is waited for"


def test_resume_asks_kms_first(world: World, fleet: list[Services]) -> None:
    world.services.kill_switch.suspend("acme", "stop", actor="test")
    disable(world)
    with pytest.raises(KmsAccessRevoked):
        world.services.kill_switch.resume("acme", actor="test")
    world.kms.fail_next(KmsUnavailable("timeout"))
    with pytest.raises(KmsUnavailable):
        world.services.kill_switch.resume("acme", actor="test")
    assert world.tenant().state is TenantState.SUSPENDED
    enable(world)
    asked = world.kms.count("Decrypt")
    world.services.kill_switch.resume("acme", actor="test")
    assert world.kms.count("Decrypt") == asked + 1


def test_resume_wants_the_secret_that_it_knows(world: World, fleet: list[Services]) -> None:
    import sqlalchemy as sa

    world.services.kill_switch.suspend("acme", "stop", actor="test")
    with world.store._engine.begin() as connection:  # type: ignore[attr-defined]  # raw SQL around the code
        connection.execute(sa.text("UPDATE key_versions SET fingerprint = sha256('x')"))
    with pytest.raises(KmsIntegrityError):
        world.services.kill_switch.resume("acme", actor="test")
    assert world.tenant().state is TenantState.SUSPENDED


def test_only_active_tenants_stop_and_only_stopped_ones_go_on(world: World, key: None) -> None:
    with pytest.raises(IllegalTransition):
        world.services.kill_switch.resume("acme", actor="test")
    world.services.kill_switch.suspend("acme", "stop", actor="test")
    with pytest.raises(TenantNotActive):
        world.services.kill_switch.suspend("acme", "again", actor="test")


def test_a_tenant_without_a_version_resumes_by_the_checks_of_its_connection(world: World) -> None:
    tenant = world.add_tenant()
    world.services.kill_switch.suspend("acme", "stop", actor="test")
    assert tenant.connection is not None
    world.kms.disable(tenant.connection.kms_key_arn)
    with pytest.raises(KmsAccessRevoked):
        world.services.kill_switch.resume("acme", actor="test")
    world.kms.enable(tenant.connection.kms_key_arn)
    assert world.services.kill_switch.resume("acme", actor="test").state is TenantState.ACTIVE


# --- drills ---------------------------------------------------------------------------------------


def test_a_drill_stops_measures_and_lets_go_on(world: World, fleet: list[Services]) -> None:
    during: list[str] = []

    def seen(_: object) -> None:
        during.append(use(fleet[0]))
        look(fleet)

    done = world.services.kill_switch.drill("acme", actor="cli:eve", patience=PATIENCE, seen=seen)
    assert set(during) == {"tenant-not-active"}, "it is a real stop"
    assert done.passed
    assert (done.report.answered, done.report.silent) == (3, [])
    assert [use(one) for one in fleet] == ["served"] * 3
    assert world.audit_actions()[-2:] == ["tenant.suspended", "tenant.resumed"]


def test_a_drill_that_a_process_does_not_answer_fails_and_the_tenant_goes_on(
    world: World, fleet: list[Services]
) -> None:
    done = world.services.kill_switch.drill(
        "acme", actor="test", patience=PATIENCE, seen=lambda _: look(fleet[1:])
    )
    assert not done.passed
    assert len(done.report.silent) == 1
    assert world.tenant().state is TenantState.ACTIVE


def test_a_drill_whose_conductor_dies_ends_by_itself(world: World, fleet: list[Services]) -> None:
    def die(_: object) -> None:
        raise SystemExit

    world.kms.fail_next(KmsUnavailable("gone"), times=1)  # so that even its last act comes to nothing
    with pytest.raises(KmsUnavailable):
        world.services.kill_switch.drill("acme", actor="test", patience=PATIENCE, seen=die)
    assert world.services.checkups.probe("acme") is TenantState.SUSPENDED, "it may still be under way"
    world.clock.advance(seconds=61)
    assert world.services.checkups.probe("acme") is TenantState.ACTIVE


def test_a_drill_does_not_let_go_on_what_kms_refuses(world: World, fleet: list[Services]) -> None:
    def refuse_meanwhile(_: object) -> None:
        look(fleet)
        disable(world)

    with pytest.raises(KmsAccessRevoked):
        world.services.kill_switch.drill("acme", actor="test", patience=PATIENCE, seen=refuse_meanwhile)
    assert world.tenant().state is TenantState.SUSPENDED


def test_what_aws_refuses_during_a_drill_is_a_revocation_with_its_evidence(
    world: World, fleet: list[Services]
) -> None:
    test_a_drill_does_not_let_go_on_what_kms_refuses(world, fleet)
    suspension = world.tenant().suspension
    assert suspension is not None
    assert (suspension.kind, suspension.aws_code) == (SuspensionKind.REVOKED, "DisabledException")
    enable(world)
    assert world.services.checkups.probe("acme") is TenantState.ACTIVE


def test_a_lock_during_a_drill_outlasts_it(world: World, fleet: list[Services]) -> None:
    def lock_meanwhile(_: object) -> None:
        look(fleet)
        kind = world.tenant().suspension
        if kind is not None and kind.kind is SuspensionKind.DRILL:
            world.services.kill_switch.suspend("acme", "customer called", actor="cli:eve")

    world.services.kill_switch.drill("acme", actor="test", patience=PATIENCE, seen=lock_meanwhile)
    suspension = world.tenant().suspension
    assert suspension is not None
    assert (suspension.kind, suspension.reason) == (SuspensionKind.LOCKED, "customer called")


def test_a_lock_between_a_proof_and_its_resumption_wins(world: World, fleet: list[Services]) -> None:
    disable(world)
    world.services.checkups.probe("acme")
    enable(world)

    def lock_meanwhile() -> None:
        world.kms.hooks.clear()
        world.services.kill_switch.suspend("acme", "customer called", actor="cli:eve")

    world.kms.hooks["Decrypt"] = lock_meanwhile
    assert world.services.checkups.probe("acme") is TenantState.SUSPENDED
    assert world.services.checkups.probe("acme") is TenantState.SUSPENDED
    assert world.audit_actions()[-2:] == ["tenant.suspended", "tenant.suspension-replaced"]


def test_a_revoked_tenant_can_be_locked_and_a_locked_one_is_not_unlocked_by_aws(
    world: World, fleet: list[Services]
) -> None:
    disable(world)
    world.services.checkups.probe("acme")
    tenant, _ = world.services.kill_switch.suspend("acme", "customer called", actor="cli:eve")
    assert tenant.suspension is not None
    assert tenant.suspension.kind is SuspensionKind.LOCKED
    world.services.checkups.probe("acme")  # refused: says nothing new
    enable(world)
    assert world.services.checkups.probe("acme") is TenantState.SUSPENDED
    assert world.services.kill_switch.resume("acme", actor="cli:eve").state is TenantState.ACTIVE


def test_a_drill_is_measured_against_the_time_that_telling_takes(world: World, fleet: list[Services]) -> None:
    world.board.loses_all = True

    def look_late(_: object) -> None:
        world.clock.advance(seconds=7)
        look(fleet)

    done = world.services.kill_switch.drill(
        "acme", actor="test", patience=timedelta(minutes=1), seen=look_late
    )
    assert done.report.silent == []
    assert not done.passed, "seven seconds are more than a recheck of five and one"


def test_without_any_process_there_is_nothing_to_drill(world: World, key: None) -> None:
    world.clock.advance(minutes=10)
    with pytest.raises(NotReady):
        world.services.kill_switch.drill("acme", actor="test", patience=PATIENCE, seen=lambda _: None)
