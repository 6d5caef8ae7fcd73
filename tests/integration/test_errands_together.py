"""Errands that meet: a tenant leaves while it moves, the master key is rotated under a move that is held."""

from collections.abc import Callable
from datetime import timedelta

import pytest
import sqlalchemy as sa

from byok.core.model import TenantState
from byok.core.moves import MoveState, WaitCause
from byok.core.stops import Member
from byok.crypto.hazmat import SecretBytes
from byok.crypto.keyring import MasterKeyRing
from byok.crypto.reports import PURPOSE, verify_report
from byok.errors import NotReady, UnknownMasterKey
from byok.wiring import Services
from tests.world import TTL, World, kms_key_arn

OLD, NEW = kms_key_arn(1), kms_key_arn(101)
CONTEXT = b"users.email:1"
_WRAPPED_KEYS = {
    "in use": "SELECT count(*) FROM key_versions WHERE encrypted_key IS NOT NULL",
    "second": "SELECT count(*) FROM kms_key_move_wrappings WHERE encrypted_key IS NOT NULL",
}


@pytest.fixture
def token(world: World, key: None) -> bytes:
    """A value under a version that is retired by now."""
    sealed = world.services.vault.cipher("acme", "pii").encrypt(b"ada", context=CONTEXT)
    world.services.vault.request_rotation("acme", "pii")
    world.run_published()
    return sealed


@pytest.fixture
def held(world: World, token: bytes) -> None:
    """A move with both wrappings of every version."""
    world.services.moves.request("acme", actor="test", kms_key_arn=NEW, hold=True)
    run_moves(world, world.services)
    assert world.services.moves.status("acme").move.state is MoveState.HELD


def run_moves(world: World, services: Services) -> None:
    while world.queue.moves:
        move = world.queue.moves.pop(0)
        services.moving.run(move.id, move.batch)


def wrapped_keys(engine: sa.Engine) -> dict[str, int]:
    with engine.connect() as connection:
        return {
            which: connection.execute(sa.text(query)).scalar_one() for which, query in _WRAPPED_KEYS.items()
        }


def test_who_leaves_while_it_moves_leaves_no_second_wrapping(
    world: World, held: None, engine: sa.Engine
) -> None:
    assert wrapped_keys(engine) == {"in use": 2, "second": 2}
    retention = timedelta(days=1)
    world.services.offboardings.begin("acme", "contract ended", retention=retention, actor="test")
    world.clock.advance(seconds=(retention + TTL).total_seconds() + 61)
    signed = world.services.offboardings.finish("acme", actor="test")
    assert verify_report(signed, world.master_keys.signing_keys(PURPOSE).values())["passed"]
    assert wrapped_keys(engine) == {"in use": 0, "second": 0}


def test_a_held_move_outlives_the_master_key_that_sealed_it(
    world: World, held: None, token: bytes, engine: sa.Engine
) -> None:
    newer = SecretBytes(world.random.bytes(32))
    older = world.master_keys._keys["mk-1"]
    world.services.watch.close()
    world.master_keys = MasterKeyRing([("mk-2", newer), ("mk-1", older)], world.random.bytes)
    both = world.another_process()
    both.watch.join()
    both.reseals.start(requested_by="test")
    while world.queue.reseals:
        reseal, _ = world.queue.reseals.pop(0)
        both.resealing.run(reseal.id, reseal.batch)
    both.watch.close()

    world.master_keys = MasterKeyRing([("mk-2", newer)], world.random.bytes)
    alone = world.another_process()
    world.cache.entries.clear()
    alone.moves.release("acme", actor="test")
    run_moves(world, alone)
    assert alone.moves.status("acme").move.state is MoveState.COMMITTED
    world.kms.disable(OLD)
    assert alone.vault.cipher("acme", "pii").decrypt(token, context=CONTEXT) == b"ada"
    with engine.connect() as connection:
        sealed_by = connection.execute(sa.text("SELECT DISTINCT master_key_id FROM key_versions")).scalars()
        assert list(sealed_by) == ["mk-2"]
    with pytest.raises(UnknownMasterKey):
        open_with_the_older(world, older)


def open_with_the_older(world: World, older: SecretBytes) -> None:
    world.master_keys = MasterKeyRing([("mk-1", older)], world.random.bytes)
    world.cache.entries.clear()
    world.another_process().vault.cipher("acme", "pii").encrypt(b"x", context=CONTEXT)


@pytest.mark.parametrize("held_back", [True, False])
def test_who_leaves_gives_its_open_move_up_and_the_new_kms_key_free(
    world: World, token: bytes, held_back: bool
) -> None:
    world.services.moves.request("acme", actor="test", kms_key_arn=NEW, hold=True)
    if held_back:
        run_moves(world, world.services)
    leave(world)
    world.services.offboardings.finish("acme", actor="test")
    assert world.services.moves.status("acme").move.state is MoveState.ROLLED_BACK
    assert "move.rolled-back" in world.audit_actions()
    world.add_tenant("globex")
    world.services.moves.request("globex", actor="test", kms_key_arn=NEW)
    run_moves(world, world.services)
    assert world.services.moves.status("globex").move.committed_at is not None


def leave(world: World, tenant: str = "acme") -> None:
    retention = timedelta(days=1)
    world.services.offboardings.begin(tenant, "contract ended", retention=retention, actor="test")
    world.clock.advance(seconds=(retention + TTL).total_seconds() + 61)


def test_the_certificate_of_who_moved_names_every_kms_key_and_each_is_tried(
    world: World, token: bytes
) -> None:
    world.services.moves.request("acme", actor="test", kms_key_arn=NEW)
    run_moves(world, world.services)
    leave(world)
    report = world.services.offboardings.finish("acme", actor="test")["report"]
    assert report["kms_key_arn"] == NEW
    assert [one["kms_key_arn"] for one in report["other_connections"]] == [OLD]
    key_ids = [arn.rpartition("/")[2] for arn in (NEW, OLD)]
    assert all(key_id in report["remains"][0]["remedy"] for key_id in key_ids)

    world.kms.disable(NEW)
    stands = world.services.offboardings.check_access("acme", actor="test")["report"]
    assert [one["kms_key_arn"] for one in stands["calls"]] == [NEW, NEW, OLD, OLD]
    assert stands["shut_out"] is False, "the KMS key from before the move lets us in still"


def test_a_kms_key_stays_while_a_tenant_has_it_or_moves_to_it_and_not_for_one_that_left(
    world: World, held: None
) -> None:
    world.add_tenant("globex")
    world.services.moves.release("acme", actor="test")
    run_moves(world, world.services)
    assert world.services.moves.status("acme").progress.old_key_may_go
    world.services.moves.request("globex", actor="test", kms_key_arn=OLD, hold=True)
    seen = world.services.moves.status("acme").progress
    assert (seen.old_key_may_go, seen.sharing.kms_key) == (False, ("globex",))
    run_moves(world, world.services)
    world.services.moves.release("globex", actor="test")
    run_moves(world, world.services)
    assert not world.services.moves.status("acme").progress.old_key_may_go
    leave(world, "globex")
    world.services.offboardings.finish("globex", actor="test")
    assert world.services.moves.status("acme").progress.old_key_may_go


@pytest.fixture
def older_release(world: World) -> Callable[[], None]:
    """Lets a process of a release that has no word for its ring join the fleet."""
    older = Member(world.random.uuid(), "worker", "host", 7)

    def join() -> None:
        with world.store.transaction() as tx:
            tx.members.enrol(older, world.clock.now())

    return join


def test_no_move_begins_or_is_committed_while_a_process_is_of_an_older_release(
    world: World, held: None, older_release: Callable[[], None]
) -> None:
    older_release()
    world.services.moves.release("acme", actor="test")
    run_moves(world, world.services)
    move = world.services.moves.status("acme").move
    assert (move.state, move.wait and move.wait.cause) == (MoveState.WRAPPING, WaitCause.TROUBLE)
    world.services.moves.roll_back("acme", actor="test")
    with pytest.raises(NotReady, match="of an older release: worker 7@host"):
        world.services.moves.request("acme", actor="test", kms_key_arn=NEW)


def test_no_tenant_leaves_while_a_process_can_not_read_that(
    world: World, token: bytes, older_release: Callable[[], None]
) -> None:
    older_release()
    with pytest.raises(NotReady, match="older release") as refused:
        leave(world)
    assert "byok tenant suspend" in str(refused.value.remedy)
    assert world.tenant().state is TenantState.ACTIVE
    world.clock.advance(seconds=46)
    leave(world)
