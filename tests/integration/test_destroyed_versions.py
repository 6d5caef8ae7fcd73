"""Floors and destroyed versions over a real PostgreSQL: what opens, who is told, what refuses it."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from byok.core.destruction import DEFAULT_UNUSED_FOR, Evidence, Objection
from byok.core.lifecycle import check_versions
from byok.core.model import (
    Key,
    KeyVersion,
    RotationReason,
    RotationState,
    Tenant,
    TenantState,
    VersionEvent,
    VersionState,
)
from byok.errors import (
    CannotDecrypt,
    IllegalTransition,
    LostRace,
    NotReady,
    OutOfBounds,
    StillInUse,
    UnknownKey,
    UnknownVersion,
    ValidationFailed,
)
from byok.ports import Transaction
from byok.services.destruction import Destruction
from byok.services.held import lease_id
from byok.wiring import Services
from tests.world import RECHECK, World, flush

CONTEXT = b"users.email:1"
DAY = timedelta(days=1)


@pytest.fixture
def token(world: World) -> bytes:
    """A token of version 1 of three."""
    world.add_tenant()
    world.add_key()
    token = world.services.vault.cipher("acme", "pii").encrypt(b"ada", context=CONTEXT)
    rotate(world)
    rotate(world)
    return token


def rotate(world: World, reason: RotationReason = RotationReason.FORCED) -> None:
    world.services.vault.request_rotation("acme", "pii", reason=reason)
    (rotation,) = world.run_published()
    assert rotation is not None
    assert rotation.state is RotationState.DONE


def opens(services: Services, token: bytes) -> bool:
    try:
        return services.vault.cipher("acme", "pii").decrypt(token, context=CONTEXT) == b"ada"
    except CannotDecrypt:
        return False


def set_floor(world: World, floor: int) -> Key:
    return world.services.destruction.set_floor("acme", "pii", floor, actor="cli:eve")


def destroy(
    world: World, number: int = 1, *, unused_for: timedelta = DEFAULT_UNUSED_FOR, force: bool = False
) -> Evidence:
    return world.services.destruction.destroy(
        "acme", "pii", number, actor="cli:eve", unused_for=unused_for, force=force
    )


def settle(world: World) -> None:
    """Raise the floor to the active version, let the processes know and a day pass."""
    set_floor(world, 3)
    world.clock.advance(seconds=RECHECK.total_seconds())
    flush(world.services)
    world.clock.advance(days=1)


# --- the floor ------------------------------------------------------------------------------------


def test_below_the_floor_nothing_decrypts_and_a_lower_floor_undoes_it(world: World, token: bytes) -> None:
    asked = world.kms.count("Decrypt")
    assert set_floor(world, 2).decryption_floor == 2
    assert not opens(world.services, token)
    assert not opens(world.another_process(), token)
    assert world.kms.count("Decrypt") == asked, "KMS is not asked for it, either"
    set_floor(world, 1)
    assert opens(world.services, token)


def test_the_floor_is_told_by_push_and_found_without_it(world: World, token: bytes) -> None:
    pushed, polled = world.another_process(), world.another_process()
    assert opens(pushed, token)
    assert opens(polled, token)
    world.board.ears = [pushed.watch.hear]
    set_floor(world, 2)
    assert not opens(pushed, token)
    assert opens(polled, token), "it has not heard yet"
    world.clock.advance(seconds=RECHECK.total_seconds())
    assert not opens(polled, token)


def test_secrets_below_the_floor_leave_the_memory(world: World, token: bytes) -> None:
    process = world.another_process()
    process.vault.cipher("acme", "pii").encrypt(b"x", context=CONTEXT)
    assert opens(process, token)
    set_floor(world, 2)
    process.vault.cipher("acme", "pii").encrypt(b"x", context=CONTEXT)
    assert [one.version_number for one in process.desk._held.leases] == [3]


def test_keys_below_the_floor_leave_the_lanes_of_ciphers(world: World, token: bytes) -> None:
    cipher = world.services.vault.cipher("acme", "pii")
    for _ in range(2):
        cipher.decrypt(token, context=CONTEXT)
    assert cipher._lane.openings
    set_floor(world, 2)
    cipher.encrypt(b"x", context=CONTEXT)  # looks again
    assert not cipher._lane.openings


def test_the_inner_answer_says_why_and_how_to_undo_it(world: World, token: bytes) -> None:
    set_floor(world, 2)
    with pytest.raises(UnknownVersion, match="below the decryption floor, 2") as caught:
        world.services.desk.decrypting("acme", "pii", 1)
    assert caught.value.remedy == "if it is still needed: byok key set-floor acme pii 1"


def test_who_set_the_floor_is_in_the_audit_log_once(world: World, token: bytes) -> None:
    set_floor(world, 2)
    set_floor(world, 2)
    events = [e for e in world.services.registry.audit_log("acme") if e.action == "key.decryption-floor-set"]
    assert [(event.actor, event.details) for event in events] == [
        ("cli:eve", {"key": "pii", "decryption_floor": 2, "before": 1})
    ]


@pytest.mark.parametrize("floor", [0, -1, 4])
def test_a_floor_lies_between_1_and_the_active_version(world: World, token: bytes, floor: int) -> None:
    with pytest.raises(OutOfBounds):
        set_floor(world, floor)
    assert world.show().key.decryption_floor == 1


def test_a_key_without_an_active_version_has_no_floor(world: World) -> None:
    world.add_tenant()
    world.services.registry.create_key("acme", "pii", rotation_period=DAY, lease_ttl=DAY, actor="test")
    with pytest.raises(NotReady):
        set_floor(world, 2)


def test_other_changes_of_a_key_keep_its_floor(world: World, token: bytes) -> None:
    stale = world.show().key
    set_floor(world, 2)
    with world.store.transaction() as tx:
        tx.keys.update(stale)
    rotate(world)
    assert world.show().key.decryption_floor == 2


def test_rotations_go_on_where_every_earlier_version_is_below_the_floor(world: World, token: bytes) -> None:
    set_floor(world, 3)
    rotate(world)
    set_floor(world, 4)
    number, checks = world.services.checkups.validate("acme", "pii", actor="test")
    assert number == 4
    previous = next(check for check in checks if check.name == "previous-canary")
    assert previous.detail == "there is no earlier version that decrypts"


def test_a_floor_raised_during_a_validation_fails_nothing(world: World, token: bytes) -> None:
    """Its reading of the key and the versions is out of date then."""

    def raise_it() -> None:
        set_floor(world, 3)

    world.kms.hooks["DescribeKey"] = raise_it
    _, checks = world.services.checkups.validate("acme", "pii", actor="test")
    previous = next(check for check in checks if check.name == "previous-canary")
    assert previous.detail == "version 2 decrypts no more"


def test_waiting_for_a_floor_ends_when_the_last_living_process_has_written(
    world: World, token: bytes
) -> None:
    process = world.another_process()
    opens(process, token)
    changed = set_floor(world, 2)
    seen: list[int] = []

    def look(waiting: object) -> None:
        assert isinstance(waiting, list)
        seen.append(len(waiting))
        if len(seen) == 2:
            world.clock.advance(seconds=RECHECK.total_seconds())
            flush(world.services, process)

    wait = world.services.destruction.wait_for_floor
    assert wait(changed, timedelta(minutes=1), look) == []
    assert seen == [2, 2, 0]
    changed = set_floor(world, 3)
    assert len(wait(changed, timedelta(seconds=1), lambda _: None)) == 2
    world.clock.advance(minutes=5)
    assert wait(changed, timedelta(0), lambda _: None) == [], "both have not been seen for long"


# --- destruction ----------------------------------------------------------------------------------


def test_a_destroyed_version_has_no_wrapped_key_and_no_lease_anywhere(
    world: World, token: bytes, engine: sa.Engine
) -> None:
    assert opens(world.services, token)
    settle(world)
    opens(world.services, token)
    filed = lease_id(world.tenant(), world.show().key, 1)
    world.cache.entries[filed] = next(iter(world.cache.entries.values()))
    destroy(world)
    assert world.states() == ["destroyed", "retired", "active"]
    with engine.connect() as connection:
        row = connection.execute(
            sa.text("SELECT encrypted_key, iv, master_key_id, ended_at FROM key_versions WHERE number = 1")
        ).one()
    assert tuple(row) == (None, None, None, world.clock.now())
    assert filed not in world.cache.entries
    assert not opens(world.services, token)
    assert not opens(world.another_process(), token)
    check_versions(world.versions())


def test_it_is_told_in_the_audit_log_with_its_evidence(world: World, token: bytes) -> None:
    opens(world.services, token)
    used_at = world.clock.now()
    flush(world.services)
    settle(world)
    destroy(world)
    event = world.services.registry.audit_log("acme")[-1]
    assert (event.actor, event.action) == ("cli:eve", "version.destroyed")
    assert event.details == {
        "key": "pii", "version": 1, "decryption_floor": 3, "uses": 2, "last_used_at": used_at.isoformat(),
        "wanted_unused_seconds": 86400, "forced": 0, "overruled": "",
    }  # fmt: skip


def test_what_still_decrypts_is_not_destroyed_force_or_not(world: World, token: bytes) -> None:
    for force in (False, True):
        with pytest.raises(StillInUse, match="still decrypts: the decryption floor is 1") as caught:
            destroy(world, force=force)
        assert caught.value.remedy is not None
        assert "byok key set-floor acme pii 2" in caught.value.remedy
    assert opens(world.services, token)


def test_what_was_used_within_the_day_is_not_destroyed_unless_forced(world: World, token: bytes) -> None:
    opens(world.services, token)
    set_floor(world, 3)
    world.clock.advance(seconds=RECHECK.total_seconds())
    flush(world.services)
    world.clock.advance(hours=23)
    with pytest.raises(StillInUse, match=r"version 1 was used 23 h ago .*, 2 times in all"):
        destroy(world)
    destroy(world, 2)  # never used
    with pytest.raises(StillInUse):
        destroy(world, unused_for=timedelta(days=2))
    destroy(world, force=True)
    details = world.services.registry.audit_log("acme")[-1].details
    assert details["forced"] == 1
    assert "23 h ago" in str(details["overruled"])


def test_uses_that_a_process_has_not_written_since_the_floor_stand_against_it(
    world: World, token: bytes
) -> None:
    silent = world.another_process()
    opens(silent, token)
    settle(world)
    with pytest.raises(StillInUse, match="may lack uses") as caught:
        destroy(world)
    assert caught.value.message.count(str(silent.watch.member)) == 1, "the other one has written"
    flush(silent)
    with pytest.raises(StillInUse, match="was used 0 s ago"):
        destroy(world)
    world.clock.advance(days=1)
    destroy(world)


def test_a_write_from_before_everybody_knew_of_the_floor_is_not_enough(world: World, token: bytes) -> None:
    opens(world.services, token)
    flush(world.services)
    world.clock.advance(days=2)
    set_floor(world, 3)
    flush(world.services)
    world.clock.advance(seconds=RECHECK.total_seconds())
    with pytest.raises(StillInUse, match="may lack uses"):
        destroy(world)
    flush(world.services)
    destroy(world)


def test_a_pinned_version_is_not_destroyed_even_by_force(world: World, token: bytes) -> None:
    settle(world)

    def pin(tx: Transaction, tenant: Tenant, key: Key, version: KeyVersion) -> list[Objection]:
        return [Objection(f"{tenant.name} keeps version {version.number} of {key.name}", "ask it")]

    services = world.services.destruction
    pinned = Destruction(
        store=world.store, cache=world.cache, suspensions=services._suspensions, clock=world.clock,
        recheck=RECHECK, pins=[pin],
    )  # fmt: skip
    with pytest.raises(StillInUse, match="acme keeps version 1 of pii"):
        pinned.destroy("acme", "pii", 1, actor="test", unused_for=DAY, force=True)


@pytest.mark.parametrize("number", [3, 4])
def test_active_and_pending_versions_are_not_destroyed(world: World, token: bytes, number: int) -> None:
    settle(world)
    world.services.vault.request_rotation("acme", "pii")
    generated: list[BaseException] = []

    def try_it() -> None:
        try:
            destroy(world, number, force=True)
        except IllegalTransition as refused:
            generated.append(refused)

    world.kms.hooks["DescribeKey"] = try_it  # version 4 is pending then
    world.run_published()
    assert len(generated) == 1
    assert world.states() == ["retired", "retired", "retired", "active"]


def test_a_rejected_version_needs_no_destruction(world: World, token: bytes) -> None:
    world.services.vault.request_rotation("acme", "pii")

    def spoil() -> None:
        for key in world.kms.keys.values():
            key.spec = "RSA_2048"

    world.kms.hooks["DescribeKey"] = spoil
    with pytest.raises(ValidationFailed):
        world.run_published()
    assert world.states()[-1] == "rejected"
    with pytest.raises(IllegalTransition):
        destroy(world, 4, force=True)


def test_what_is_not_there_is_not_destroyed(world: World, token: bytes) -> None:
    with pytest.raises(UnknownVersion):
        destroy(world, 9)
    with pytest.raises(UnknownKey):
        world.services.destruction.examine("acme", "nothing", 1)


def test_a_compromised_version_is_destroyed_as_well(world: World, token: bytes) -> None:
    rotate(world, RotationReason.COMPROMISE)
    set_floor(world, 4)
    destroy(world, 3, force=True)
    assert world.states() == ["retired", "retired", "destroyed", "active"]


def test_destroyed_twice_at_once_it_is_destroyed_once(world: World, token: bytes) -> None:
    settle(world)
    barrier = threading.Barrier(4)

    def one() -> Evidence:
        barrier.wait()
        return destroy(world)

    with ThreadPoolExecutor(4) as pool:
        done = [each.result() for each in [pool.submit(one) for _ in range(4)]]
    assert sorted(evidence.version.state.value for evidence in done) == ["destroyed"] * 3 + ["retired"]
    assert world.audit_actions().count("version.destroyed") == 1


def test_a_destruction_and_a_lower_floor_at_once_come_one_after_the_other(world: World, token: bytes) -> None:
    settle(world)
    barrier = threading.Barrier(2)

    def at_once(act: Callable[[], object]) -> bool:
        barrier.wait()
        try:
            act()
        except (StillInUse, LostRace):
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        destroyed = pool.submit(at_once, lambda: destroy(world))
        lowered = pool.submit(at_once, lambda: set_floor(world, 1))
        assert destroyed.result() is not lowered.result()
    assert (world.states()[0] == "destroyed") is (world.show().key.decryption_floor == 3)


def test_a_floor_does_not_bring_a_secret_back_that_a_process_may_still_hold(
    world: World, token: bytes
) -> None:
    settle(world)
    holder = world.another_process()
    destroy(world, force=True)
    with pytest.raises(StillInUse, match="version 1 was destroyed within a day"):
        set_floor(world, 1)
    assert set_floor(world, 2).decryption_floor == 2, "version 2 is none of its business"
    world.clock.advance(days=1)
    set_floor(world, 1)
    assert not opens(world.services, token)
    world.clock.advance(seconds=1)
    assert not opens(holder, token)


def test_redis_that_is_down_hinders_nothing(world: World, token: bytes) -> None:
    settle(world)
    world.cache.is_down = world.board.is_down = True
    destroy(world)
    assert world.states()[0] == "destroyed"
    assert not opens(world.services, token)


# --- life goes on where all but the active version are destroyed ----------------------------------


@pytest.fixture
def survivor(world: World, token: bytes) -> World:
    settle(world)
    for number in (1, 2):
        destroy(world, number, force=True)
    assert world.states() == ["destroyed", "destroyed", "active"]
    return world


def test_it_encrypts_decrypts_and_rotates(survivor: World, token: bytes) -> None:
    cipher = survivor.services.vault.cipher("acme", "pii")
    fresh = cipher.encrypt(b"ada", context=CONTEXT)
    rotate(survivor)
    assert opens(survivor.another_process(), fresh)
    assert not opens(survivor.services, token)
    assert survivor.states() == ["destroyed", "destroyed", "retired", "active"]
    check_versions(survivor.versions())


def test_it_is_validated_and_the_previous_canary_that_still_opens_is_tried(survivor: World) -> None:
    rotate(survivor)
    rotate(survivor)
    set_floor(survivor, 4)
    number, checks = survivor.services.checkups.validate("acme", "pii", actor="test")
    assert number == 5
    assert next(c for c in checks if c.name == "previous-canary").detail == "version 4 still opens"


def test_its_fingerprint_stays_so_that_its_secret_is_never_taken_again(survivor: World) -> None:
    assert survivor.versions()[0].fingerprint is not None


def test_it_is_probed_stopped_resumed_and_drilled(survivor: World) -> None:
    services = survivor.services
    assert services.checkups.probe("acme") is TenantState.ACTIVE
    services.vault.cipher("acme", "pii").encrypt(b"x", context=CONTEXT)
    services.kill_switch.suspend("acme", "a test", actor="test")
    assert services.kill_switch.resume("acme", actor="test").state is TenantState.ACTIVE
    services.vault.cipher("acme", "pii").encrypt(b"x", context=CONTEXT)
    services.watch.look()

    def answer(_: object) -> None:
        services.watch.look()

    drill = services.kill_switch.drill("acme", actor="test", patience=timedelta(seconds=5), seen=answer)
    assert drill.passed
    assert services.checkups.probe("acme") is TenantState.ACTIVE


def test_it_follows_its_kms_key_and_is_verified_again(survivor: World) -> None:
    (kms_key,) = survivor.kms.keys.values()
    survivor.services.follower.sync("acme", actor="test")
    kms_key.material_id = "material-2"
    assert survivor.services.follower.sync("acme", actor="test").rotated
    survivor.run_published()
    assert survivor.states()[-1] == "active"
    assert survivor.services.onboarding.verify_tenant("acme", actor="test").passed


def test_a_row_that_was_read_before_is_not_brought_back(survivor: World) -> None:
    stale = replace(survivor.versions()[0], state=VersionState.RETIRED)
    with pytest.raises(LostRace), survivor.store.transaction() as tx:
        tx.versions.transition([stale], VersionEvent.DESTROY, survivor.clock.now())
