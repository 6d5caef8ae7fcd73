"""Moves to another KMS key, over real PostgreSQL and a KMS that can be told to fail."""

import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from uuid import UUID

import pytest
import sqlalchemy as sa

from byok.core.lifecycle import check_versions
from byok.core.model import (
    Connection,
    KeyVersion,
    RotationReason,
    RotationState,
    Tenant,
    TenantState,
    VersionEvent,
)
from byok.core.moves import KmsKeyMove, MoveState, WaitCause
from byok.errors import (
    CannotDecrypt,
    InvalidInput,
    KmsAccessRevoked,
    KmsKeyTaken,
    KmsUnavailable,
    MoveOpen,
    NotReady,
    StoreBusy,
    TenantNotActive,
    ValidationFailed,
)
from byok.failpoints import FailPoint, arm, disarm
from byok.ports import WrappedKey
from byok.services.moves import MoveStatus
from byok.store import schema
from byok.store.moves import MoveTable
from byok.store.postgres import PostgresStore
from byok.store.registry import TenantTable
from byok.store.versions import VersionTable
from tests.integration.acts import Killed, die, pass_time, request
from tests.world import World, kms_key_arn

OLD, NEW, OTHER = kms_key_arn(1), kms_key_arn(90), kms_key_arn(91)
CONTEXT = b"users.email:1"
REGION = NEW.replace("eu-central-1", "eu-west-1")


@pytest.fixture
def tokens(world: World) -> list[bytes]:
    """One of each version of two keys."""
    world.add_tenant()
    world.add_key()
    world.add_key(key="notes")
    made = [encrypt(world), encrypt(world, "notes")]
    request(world)
    world.run_published()
    return [*made, encrypt(world)]


def encrypt(world: World, key: str = "pii") -> bytes:
    token: bytes = world.services.vault.cipher("acme", key).encrypt(b"x", context=CONTEXT)
    return token


def readable(world: World, tokens: list[bytes]) -> bool:
    """Whether all open, by a process that held nothing before."""
    vault = world.another_process().vault
    keys = ["pii", "notes", *["pii"] * (len(tokens) - 2)]
    world.cache.entries.clear()
    return all(
        vault.cipher("acme", key).decrypt(token, context=CONTEXT) == b"x"
        for key, token in zip(keys, tokens, strict=True)
    )


def begin(world: World, arn: str = NEW, *, hold: bool = False) -> KmsKeyMove:
    return world.services.moves.request("acme", actor="test", kms_key_arn=arn, hold=hold)


def run(world: World) -> list[KmsKeyMove | None]:
    """Run what is published of moves, until no more is."""
    seen = []
    while world.queue.moves:
        move = world.queue.moves.pop(0)
        seen.append(world.services.moving.run(move.id, move.batch))
    return seen


def status(world: World) -> MoveStatus:
    return world.services.moves.status("acme")


def finish(world: World) -> None:
    """Bring a committed move to its end."""
    run(world)
    world.run_published()
    pass_time(world, sweeps=1.1)
    world.services.scheduling.sweep()
    run(world)


def test_a_move_ends_with_everything_under_the_new_kms_key(world: World, tokens: list[bytes]) -> None:
    before = world.tenant()
    begin(world)
    assert status(world).progress.under_old == 3
    run(world)
    seen = status(world)
    assert seen.move.state is MoveState.COMMITTED
    assert (seen.progress.under_old, seen.progress.under_both, seen.progress.under_new) == (0, 0, 3)
    assert seen.progress.keys_to_rotate == 2
    assert seen.progress.old_key_may_go
    after = world.tenant()
    assert after.connection is not None
    assert str(after.connection.kms_key_arn) == NEW
    assert (after.generation, after.external_id) == (before.generation + 1, before.external_id)
    finish(world)
    assert status(world).move.state is MoveState.DONE
    assert status(world).progress.keys_to_rotate == 0
    for key in ("pii", "notes"):
        active = world.versions(key=key)[-1]
        assert active.reason is RotationReason.MIGRATION
        assert str(active.kms_key_arn) == NEW
        check_versions(world.versions(key=key))
    world.kms.disable(OLD)
    assert readable(world, tokens)
    actions = [action for action in world.audit_actions() if action.startswith("move.")]
    assert actions == ["move.requested", "move.committed", "move.finished"]


def test_within_kms_no_secret_passes_through_us(world: World, tokens: list[bytes]) -> None:
    begin(world)
    run(world)
    assert world.kms.count("ReEncrypt") > 0
    assert world.kms.count("Encrypt") == 0


def test_into_another_region_secrets_go_by_decrypt_and_encrypt(world: World, tokens: list[bytes]) -> None:
    begin(world, REGION)
    run(world)
    assert (world.kms.count("ReEncrypt"), world.kms.count("Encrypt")) == (0, 3)
    world.kms.disable(OLD)
    assert readable(world, tokens)


def test_after_the_commit_the_new_kms_key_stops_everything(world: World, tokens: list[bytes]) -> None:
    begin(world)
    run(world)
    cipher = world.services.vault.cipher("acme", "pii")
    cipher.decrypt(tokens[0], context=CONTEXT)
    world.kms.disable(NEW)
    assert world.services.checkups.probe("acme") is TenantState.SUSPENDED
    with pytest.raises(TenantNotActive):
        cipher.decrypt(tokens[0], context=CONTEXT)
    world.kms.enable(NEW)
    assert world.services.checkups.probe("acme") is TenantState.ACTIVE
    assert readable(world, tokens)


# --- what is held, and given up -------------------------------------------------------------------


def test_a_held_move_waits_for_a_word(world: World, tokens: list[bytes]) -> None:
    begin(world, hold=True)
    run(world)
    seen = status(world)
    assert (seen.move.state, seen.progress.under_both) == (MoveState.HELD, 3)
    assert not seen.progress.old_key_may_go
    pass_time(world, sweeps=3)
    assert world.services.moves.sweep() == 0
    request(world)  # a version that is made meanwhile gets its second wrapping before the commit
    world.run_published()
    assert status(world).progress.under_old == 1
    world.services.moves.release("acme", actor="test")
    run(world)
    assert status(world).progress.under_new == 4
    assert readable(world, tokens)


def test_a_move_that_is_rolled_back_leaves_all_as_it_was(world: World, tokens: list[bytes]) -> None:
    records = [version.sealed_wrapped_key for version in world.versions()]
    begin(world, hold=True)
    run(world)
    rolled_back = world.services.moves.roll_back("acme", actor="test")
    assert rolled_back.state is MoveState.ROLLED_BACK
    assert [version.sealed_wrapped_key for version in world.versions()] == records
    assert status(world).progress.under_old == 3
    world.kms.disable(NEW)
    assert readable(world, tokens)
    world.kms.enable(NEW)
    begin(world, OTHER)
    run(world)
    assert status(world).move.state is MoveState.COMMITTED


def test_after_the_commit_the_way_back_is_another_move(world: World, tokens: list[bytes]) -> None:
    begin(world)
    run(world)
    with pytest.raises(NotReady):
        world.services.moves.roll_back("acme", actor="test")
    begin(world, OLD)
    run(world)
    assert status(world).progress.under_new == 3
    world.kms.disable(NEW)
    assert readable(world, tokens)


def test_a_roll_back_overtakes_the_worker_that_wraps(world: World, tokens: list[bytes]) -> None:
    begin(world)

    def give_up() -> None:
        world.kms.hooks.clear()
        world.services.moves.roll_back("acme", actor="test")

    world.kms.hooks["ReEncrypt"] = give_up
    run(world)
    seen = status(world)
    assert (seen.move.state, seen.progress.under_both) == (MoveState.ROLLED_BACK, 0)


# --- what is refused at once ----------------------------------------------------------------------


def test_only_one_move_at_a_time_and_asked_again_it_goes_on(world: World, tokens: list[bytes]) -> None:
    begun = begin(world)
    world.queue.moves.clear()
    assert begin(world).id == begun.id
    assert len(world.queue.moves) == 1
    with pytest.raises(MoveOpen):
        begin(world, OTHER)
    with pytest.raises(MoveOpen):
        begin(world, hold=True)
    run(world)
    assert begin(world).state is MoveState.COMMITTED


def test_another_tenants_kms_key_is_refused(world: World, tokens: list[bytes]) -> None:
    world.add_tenant("globex")
    with pytest.raises(KmsKeyTaken):
        begin(world, kms_key_arn(2))
    world.services.moves.request("globex", actor="test", kms_key_arn=NEW)
    with pytest.raises(KmsKeyTaken):  # the other is on its way there
        begin(world)


def test_a_kms_key_that_another_tenant_took_meanwhile_is_not_moved_to(
    world: World, tokens: list[bytes]
) -> None:
    begin(world)
    world.services.onboarding.add_tenant("globex", actor="test")
    world.services.onboarding.verify_tenant("globex", actor="test", kms_key_arn=NEW)
    run(world)
    waits = status(world).move.wait
    assert waits is not None
    assert (waits.cause, waits.why.split(":")[0]) == (WaitCause.TROUBLE, "kms-key-taken")
    assert readable(world, tokens)


def test_a_kms_key_that_does_not_pass_is_refused(world: World, tokens: list[bytes]) -> None:
    begin(world, hold=True)
    world.services.moves.roll_back("acme", actor="test")
    world.kms.disable(NEW)
    with pytest.raises(ValidationFailed, match="kms-key-disabled"):
        begin(world)


def test_the_same_kms_key_and_a_role_elsewhere_make_no_sense(world: World, tokens: list[bytes]) -> None:
    with pytest.raises(InvalidInput):
        begin(world, OLD)
    with pytest.raises(NotReady):
        status(world)


def test_an_old_kms_key_that_refuses_us_is_a_revocation(world: World, tokens: list[bytes]) -> None:
    world.kms.disable(OLD)
    with pytest.raises(KmsAccessRevoked):
        begin(world)
    assert world.tenant().state is TenantState.SUSPENDED


# --- what goes wrong under way --------------------------------------------------------------------


def wait_of(world: World) -> WaitCause | None:
    wait = status(world).move.wait
    return None if wait is None else wait.cause


def go_on(world: World) -> None:
    world.clock.advance(minutes=2)
    world.services.scheduling.sweep()
    run(world)


def test_a_missing_right_waits_with_a_remedy_and_stops_nobody(world: World, tokens: list[bytes]) -> None:
    begin(world)
    world.kms.fail_next(
        KmsAccessRevoked("ReEncrypt: AccessDeniedException", aws_code="AccessDeniedException")
    )
    run(world)
    wait = status(world).move.wait
    assert wait is not None
    assert wait.cause is WaitCause.REFUSAL
    assert "ByokMigrationSource" in wait.remedy
    assert "ByokMigrationTarget" in wait.remedy
    assert world.tenant().state is TenantState.ACTIVE
    begin(world)  # whoever asks again is not told what was
    assert wait_of(world) is None
    run(world)
    assert status(world).move.state is MoveState.COMMITTED


def test_a_tenant_without_any_version_moves_too(world: World) -> None:
    world.add_tenant()
    begin(world, hold=True)
    run(world)
    assert not status(world).progress.old_key_may_go
    world.services.moves.release("acme", actor="test")
    run(world)
    run(world)
    assert (status(world).move.state, status(world).progress.old_key_may_go) == (MoveState.DONE, True)


@pytest.mark.parametrize("target", [NEW, REGION])
def test_the_old_kms_key_revoked_midway_stops_the_tenant_and_the_move_goes_on_with_it(
    world: World, tokens: list[bytes], target: str
) -> None:
    begin(world, target)
    world.kms.hooks["Encrypt" if target == REGION else "ReEncrypt"] = lambda: world.kms.disable(OLD)
    run(world)
    assert world.tenant().state is TenantState.SUSPENDED
    assert wait_of(world) is WaitCause.STOP
    go_on(world)  # it waits, however often it is looked at
    assert wait_of(world) is WaitCause.STOP
    world.kms.hooks.clear()
    world.kms.enable(OLD)
    assert world.services.checkups.probe("acme") is TenantState.ACTIVE
    assert readable(world, tokens)
    go_on(world)
    assert status(world).move.state is MoveState.COMMITTED
    assert readable(world, tokens)


def test_the_new_kms_key_revoked_midway_stops_the_move_alone(world: World, tokens: list[bytes]) -> None:
    begin(world)

    def disable_after_two() -> None:
        if world.kms.count("ReEncrypt") == 5:  # the fake notes both of its KMS keys
            world.kms.disable(NEW)

    world.kms.hooks["ReEncrypt"] = disable_after_two
    run(world)
    seen = status(world)
    assert (wait_of(world), seen.progress.under_both) == (WaitCause.REFUSAL, 2)
    assert world.tenant().state is TenantState.ACTIVE
    assert readable(world, tokens)
    world.services.moves.roll_back("acme", actor="test")
    assert readable(world, tokens)


def test_an_outage_is_waited_for(world: World, tokens: list[bytes]) -> None:
    begin(world)
    world.kms.fail_next(KmsUnavailable("away"))
    run(world)
    assert wait_of(world) is WaitCause.OUTAGE
    go_on(world)
    assert status(world).move.state is MoveState.COMMITTED


def test_another_secret_under_the_new_kms_key_is_never_moved_to(
    world: World, tokens: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(world)

    def answer_with_another(
        source: Connection, target: Connection, ciphertext: bytes, context: Mapping[str, str]
    ) -> WrappedKey:
        return world.kms.generate_data_key(target, context)

    monkeypatch.setattr(world.kms, "re_encrypt", answer_with_another)
    run(world)
    wait = status(world).move.wait
    assert wait is not None
    assert (wait.cause, wait.why.split(":")[0]) == (WaitCause.TROUBLE, "validation-failed")
    assert status(world).progress.under_both == 0
    assert readable(world, tokens)


def test_a_bug_waits_too_and_is_told(world: World, tokens: list[bytes]) -> None:
    begin(world)

    def break_down() -> None:
        world.kms.hooks.clear()
        raise ZeroDivisionError

    world.kms.hooks["ReEncrypt"] = break_down
    with pytest.raises(ZeroDivisionError):
        run(world)
    assert wait_of(world) is WaitCause.TROUBLE
    go_on(world)
    assert status(world).move.state is MoveState.COMMITTED


# --- workers that die -----------------------------------------------------------------------------


IN_A_WORKER = [
    FailPoint.MOVE_WRAPPING,
    FailPoint.MOVE_WRAPPED,
    FailPoint.MOVE_COMMITTING,
    FailPoint.MOVE_COMMITTED,
    FailPoint.MOVE_ROTATING,
]


@pytest.mark.parametrize("point", IN_A_WORKER)
def test_a_worker_that_dies_is_followed_by_another(
    world: World, tokens: list[bytes], point: FailPoint
) -> None:
    begin(world)
    arm(point, die)
    with pytest.raises(Killed):
        run(world)
    disarm()
    assert readable(world, tokens)
    world.queue.moves.clear()
    pass_time(world, sweeps=2.1)
    world.services.scheduling.sweep()
    finish(world)
    finish(world)
    assert status(world).move.state is MoveState.DONE
    world.kms.disable(OLD)
    assert readable(world, tokens)
    assert world.audit_actions().count("move.committed") == 1


@pytest.mark.parametrize(
    "point", [FailPoint.MOVE_WRAPPING, FailPoint.MOVE_WRAPPED, FailPoint.MOVE_COMMITTING]
)
def test_a_worker_that_dies_leaves_a_move_that_can_be_rolled_back(
    world: World, tokens: list[bytes], point: FailPoint
) -> None:
    begin(world)
    arm(point, die)
    with pytest.raises(Killed):
        run(world)
    disarm()
    world.services.moves.roll_back("acme", actor="test")
    world.kms.disable(NEW)
    assert readable(world, tokens)


def test_a_request_that_was_never_published_is_found_by_the_sweeper(
    world: World, tokens: list[bytes]
) -> None:
    arm(FailPoint.MOVE_RECORDED, die)
    with pytest.raises(Killed):
        begin(world)
    disarm()
    assert world.queue.moves == []
    pass_time(world, sweeps=1.1)
    assert world.services.scheduling.sweep() == 1
    run(world)
    assert status(world).move.state is MoveState.COMMITTED


def test_a_message_that_comes_twice_or_late_does_nothing(world: World, tokens: list[bytes]) -> None:
    move = begin(world, hold=True)
    world.queue.moves *= 2
    ends = run(world)
    assert [end is None for end in ends] == [False, True]
    assert world.services.moving.run(move.id) is None  # it is held


# --- rotations and destruction beside it ----------------------------------------------------------


def commit_now(world: World) -> None:
    """Bring the open move to its commit, whoever is at work."""
    world.kms.hooks.clear()
    run(world)
    assert status(world).move.state is MoveState.COMMITTED


@pytest.mark.parametrize("operation", ["GenerateDataKeyWithoutPlaintext", "Decrypt", "DescribeKey"])
def test_a_rotation_that_the_commit_overtakes_ends_under_the_new_kms_key(
    world: World, tokens: list[bytes], operation: str
) -> None:
    begin(world)
    request(world)
    world.kms.hooks[operation] = lambda: commit_now(world)
    world.run_published()
    assert status(world).move.state is MoveState.COMMITTED
    assert all(str(version.kms_key_arn) == NEW for version in world.versions())
    world.kms.disable(OLD)
    for _ in range(3):
        pass_time(world, sweeps=2.1)
        world.services.scheduling.sweep()
        finish(world)
    assert status(world).move.state is MoveState.DONE
    assert "rejected" not in world.states()
    check_versions(world.versions())
    assert world.versions()[-1].reason in (RotationReason.MIGRATION, RotationReason.FORCED)
    assert readable(world, tokens)


def test_a_rotation_under_way_is_not_failed_by_the_old_kms_keys_end(
    world: World, tokens: list[bytes]
) -> None:
    begin(world)
    rotation_id = UUID(request(world))

    def commit_and_disable() -> None:
        commit_now(world)
        world.kms.disable(OLD)

    world.kms.hooks["GenerateDataKeyWithoutPlaintext"] = commit_and_disable
    with pytest.raises(KmsAccessRevoked):
        world.run_published()
    assert world.tenant().state is TenantState.ACTIVE
    assert world.rotation(rotation_id).is_open
    go_on(world)
    world.run_published()
    assert world.rotation(rotation_id).state is RotationState.DONE
    assert str(world.versions()[-1].kms_key_arn) == NEW


@pytest.mark.parametrize(
    "point", [FailPoint.CLAIMED, FailPoint.GENERATED, FailPoint.GATE_PASSED, FailPoint.VALIDATED]
)
def test_a_rotation_between_two_of_its_steps_bears_the_commit(
    world: World, tokens: list[bytes], point: FailPoint
) -> None:
    begin(world)
    request(world)

    def commit() -> None:
        disarm()
        commit_now(world)

    arm(point, commit)
    world.run_published()
    assert all(str(version.kms_key_arn) == NEW for version in world.versions())
    for _ in range(3):
        pass_time(world, sweeps=2.1)
        world.services.scheduling.sweep()
        finish(world)
    world.kms.disable(OLD)
    assert status(world).move.state is MoveState.DONE
    assert "rejected" not in world.states()
    assert readable(world, tokens)


def test_a_version_made_after_the_look_for_unwrapped_ones_is_wrapped_before_the_commit(
    world: World, tokens: list[bytes]
) -> None:
    begin(world)

    def rotate() -> None:
        disarm()
        request(world)
        world.run_published()

    arm(FailPoint.MOVE_WRAPPED, rotate)
    run(world)
    assert status(world).progress.under_new == 4
    world.kms.disable(OLD)
    assert readable(world, tokens)


def test_a_version_made_at_the_very_last_moment_is_wrapped_before_the_commit(
    world: World, tokens: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(world)
    lock: Callable[..., Tenant] = TenantTable.lock
    rotated: list[str] = []

    def rotate_first(table: TenantTable, tenant_id: UUID) -> Tenant:
        if not rotated:
            rotated.append(request(world))
            world.run_published()
        return lock(table, tenant_id)

    monkeypatch.setattr(TenantTable, "lock", rotate_first)
    run(world)
    assert rotated
    assert status(world).progress.under_new == 4
    assert all(str(version.kms_key_arn) == NEW for version in world.versions())


def test_the_commit_waits_for_whoever_inserts_a_version(world: World, tokens: list[bytes]) -> None:
    begin(world, hold=True)
    run(world)
    world.services.moves.release("acme", actor="test")
    worker = threading.Thread(target=run, args=(world,))
    with world.store.transaction() as tx:
        (held,) = tx.tenants.hold_all([world.tenant().id]).values()
        worker.start()
        worker.join(0.5)
        assert worker.is_alive()
        assert tx.tenants.get_by_id(held.id).connection == held.connection
    worker.join(10)
    assert status(world).move.state is MoveState.COMMITTED


def test_a_version_destroyed_meanwhile_stays_destroyed(world: World, tokens: list[bytes]) -> None:
    begin(world, hold=True)
    run(world)
    world.services.destruction.set_floor("acme", "pii", 2, actor="test")
    pass_time(world, sweeps=600)
    with world.store.transaction() as tx:
        (first, _) = tx.versions.list(world.show().key.id)
        tx.versions.transition([first], VersionEvent.DESTROY, world.clock.now())
        left = tx.moves.progress(status(world).move)
    assert (left.under_both, second_wrappings(world, first)) == (2, 0)
    world.services.moves.release("acme", actor="test")
    run(world)
    first = world.versions()[0]
    assert first.state.value == "destroyed"
    assert first.sealed_wrapped_key.body == b""
    assert str(first.kms_key_arn) == OLD
    with pytest.raises(CannotDecrypt):
        world.another_process().vault.cipher("acme", "pii").decrypt(tokens[0], context=CONTEXT)


def second_wrappings(world: World, version: KeyVersion) -> int:
    """How many of a version are stored."""
    table = schema.kms_key_move_wrappings
    query = sa.select(sa.func.count()).where(
        table.c.key_id == version.key_id, table.c.number == version.number
    )
    assert isinstance(world.store, PostgresStore)
    with world.store._engine.connect() as connection:
        return int(connection.execute(query).scalar_one())


def test_the_rotations_after_a_move_end_with_the_tenant(world: World, tokens: list[bytes]) -> None:
    begin(world)
    run(world)
    offboardings = world.services.offboardings
    offboardings.begin("acme", "contract ended", retention=timedelta(days=1), actor="test")
    world.clock.advance(seconds=2 * 86400)
    offboardings.finish("acme", actor="test")
    assert status(world).move.state is MoveState.COMMITTED
    world.services.scheduling.sweep()
    run(world)
    assert status(world).move.state is MoveState.DONE


# --- readers whose look the commit falls into -----------------------------------------------------


@pytest.mark.parametrize("late", [False, True])
def test_a_reader_never_gets_a_record_that_does_not_fit_the_connection(
    world: World, tokens: list[bytes], monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    begin(world, hold=True)
    run(world)
    read: Callable[..., object] = VersionTable.get
    done: list[str] = []

    def commit_in_between(table: VersionTable, *arguments: object) -> object:
        found = read(table, *arguments) if late else None
        if not done:
            done.append("")
            world.services.moves.release("acme", actor="test")
            commit_now(world)
        return found or read(table, *arguments)

    reader = world.another_process().vault.cipher("acme", "pii")
    world.cache.entries.clear()
    monkeypatch.setattr(VersionTable, "get", commit_in_between)
    assert reader.decrypt(tokens[0], context=CONTEXT) == b"x"
    assert done
    assert world.metrics.counts["integrity-alarm"] == 0
    assert world.tenant().state is TenantState.ACTIVE


def test_a_reader_under_way_is_not_stopped_by_the_old_kms_keys_end(world: World, tokens: list[bytes]) -> None:
    begin(world, hold=True)
    run(world)

    def commit_and_disable() -> None:
        world.services.moves.release("acme", actor="test")
        commit_now(world)
        world.kms.disable(OLD)

    reader = world.another_process().vault.cipher("acme", "pii")
    world.cache.entries.clear()
    world.kms.hooks["Decrypt"] = commit_and_disable
    assert reader.decrypt(tokens[0], context=CONTEXT) == b"x"
    assert world.tenant().state is TenantState.ACTIVE


def test_a_lease_from_before_is_used_no_more_once_the_process_has_heard(
    world: World, tokens: list[bytes]
) -> None:
    cipher = world.services.vault.cipher("acme", "pii")
    cipher.decrypt(tokens[0], context=CONTEXT)
    begin(world)
    run(world)
    before = world.kms.count("Decrypt")
    cipher.decrypt(tokens[0], context=CONTEXT)
    assert world.kms.count("Decrypt") == before + 1


def test_who_rolls_back_while_it_is_being_committed_waits_and_is_not_waited_for(
    world: World, tokens: list[bytes], engine: sa.Engine
) -> None:
    begin(world, hold=True)
    run(world)
    released = world.services.moves.release("acme", actor="test")
    with world.store.transaction() as tx:
        move = tx.moves.claim(released.id, released.batch, world.clock.now(), timedelta(minutes=1))
    assert move is not None
    committing = threading.Thread(target=world.services.moving._commit, args=(move,))
    with world.store.transaction() as tx:
        tx.moves.lock(move.id)
        committing.start()
        wait_for_lock(engine)
        tx.moves.forget_wrappings(move)  # of two that wait for each other PostgreSQL ends one
    committing.join(timeout=30)
    assert not committing.is_alive()
    assert status(world).move.state is MoveState.WRAPPING


def wait_for_lock(engine: sa.Engine) -> None:
    """Until some transaction waits for another."""
    waiting = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    for _ in range(200):
        with engine.connect() as connection:
            if connection.execute(waiting).scalar_one():
                return
        threading.Event().wait(0.02)
    raise AssertionError("nobody waits")


def test_another_role_for_the_kms_key_in_use_is_no_move_that_was_made(
    world: World, tokens: list[bytes]
) -> None:
    begin(world)
    run(world)
    role = f"arn:aws:iam::{NEW.split(':')[4]}:role/another"
    with pytest.raises(InvalidInput, match="connected to this KMS key already"):
        world.services.moves.request("acme", actor="test", kms_key_arn=NEW, role_arn=role)
    assert begin(world).committed_at is not None


def test_a_call_that_fails_for_a_move_that_is_rolled_back_meanwhile_is_nobodys_error(
    world: World, tokens: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def roll_back_and_fail(*_: object) -> WrappedKey:
        world.services.moves.roll_back("acme", actor="test")
        raise KmsUnavailable("no answer")

    monkeypatch.setattr(world.kms, "re_encrypt", roll_back_and_fail)
    begin(world)
    (ended,) = run(world)
    assert ended is not None
    assert (ended.state, ended.wait) == (MoveState.ROLLED_BACK, None)


@pytest.mark.parametrize("order", [("pii", "notes"), ("notes", "pii")])
def test_rotations_of_several_keys_and_a_commit_do_not_wait_for_each_other(
    world: World, tokens: list[bytes], engine: sa.Engine, order: tuple[str, str]
) -> None:
    begin(world, hold=True)
    run(world)
    released = world.services.moves.release("acme", actor="test")
    with world.store.transaction() as tx:
        move = tx.moves.claim(released.id, released.batch, world.clock.now(), timedelta(minutes=1))
    assert move is not None
    committed: list[KmsKeyMove | None] = []
    committing = threading.Thread(target=lambda: committed.append(world.services.moving._commit(move)))
    newest = [world.versions(key=key)[-1] for key in order]
    with world.store.transaction() as tx:  # as a batch of rotations: the keys, then version after version
        tx.keys.lock_all([one.key_id for one in newest])
        tx.versions.set_checks(newest[0], ())
        committing.start()
        wait_for_lock(engine)
        tx.versions.set_checks(newest[1], ())
    committing.join(timeout=30)
    assert [one and one.state for one in committed] == [MoveState.COMMITTED]


def test_a_commit_that_waited_too_long_for_others_is_tried_again_soon(
    world: World, tokens: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def give_up(*_: object) -> int:
        raise StoreBusy("PostgreSQL gave up a statement")

    with monkeypatch.context() as patch:
        patch.setattr(MoveTable, "swap", give_up)
        begin(world)
        run(world)
    waiting = status(world).move
    assert (waiting.state, waiting.wait and waiting.wait.cause) == (MoveState.WRAPPING, WaitCause.OUTAGE)
    pass_time(world, sweeps=1.1)
    world.services.scheduling.sweep()
    run(world)
    assert status(world).move.committed_at is not None
