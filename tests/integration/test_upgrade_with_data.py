"""A database of the former release, with versions in every state, under this one: moved, resealed, left."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
import sqlalchemy as sa

from byok.core.model import RotationReason, VersionEvent
from byok.core.moves import MoveState
from byok.crypto.hazmat import SecretBytes
from byok.crypto.keyring import MasterKeyRing
from byok.embedded.stack import Stack
from byok.errors import KmsIntegrityError, ValidationFailed
from byok.failpoints import FailPoint, arm, disarm
from byok.store import migrate
from byok.store.postgres import PostgresStore, create_engine
from tests.audited import AuditedStore
from tests.integration.acts import Killed, die, request
from tests.world import World, kms_key_arn

FORMER = "0012"
NEW = kms_key_arn(90)
CONTEXT = b"users.email:1"


@pytest.fixture
def former(stack: Stack, engine: sa.Engine) -> Iterator[sa.Engine]:
    """A database beside the tests' own, as the former release left it."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("CREATE DATABASE former"))
    other = create_engine(stack.environment["BYOK_DATABASE_URL"].removesuffix("/byok") + "/former", 5)
    migrate.upgrade(other, FORMER)
    yield other
    other.dispose()
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("DROP DATABASE former WITH (FORCE)"))


@pytest.fixture
def token(world: World, key: None) -> bytes:
    """A value under the second of five versions: destroyed, retired, rejected, active, pending."""
    rotate(world)
    made: bytes = world.services.vault.cipher("acme", "pii").encrypt(b"ada", context=CONTEXT)
    world.services.destruction.set_floor("acme", "pii", 2, actor="test")
    with world.store.transaction() as tx:
        tx.versions.transition([world.versions()[0]], VersionEvent.DESTROY, world.clock.now())
    die_after_generating(world)
    world.clock.advance(minutes=1)
    world.kms.fail_next(KmsIntegrityError("broken"))
    world.services.scheduling.sweep()
    with pytest.raises(ValidationFailed):
        world.run_published()
    rotate(world)
    die_after_generating(world)
    assert world.states() == ["destroyed", "retired", "rejected", "active", "pending"]
    return made


def die_after_generating(world: World) -> None:
    request(world)
    arm(FailPoint.GENERATED, die)
    with pytest.raises(Killed):
        world.run_published()
    disarm()


def rotate(world: World) -> None:
    world.services.vault.request_rotation("acme", "pii", reason=RotationReason.FORCED)
    world.run_published()


def upgrade(world: World, engine: sa.Engine, former: sa.Engine) -> None:
    """Bring the world's rows into the former release's tables, and those to this release's."""
    tables = sa.inspect(former).get_table_names()
    with engine.connect() as source, former.begin() as target:
        target.execute(sa.text("SET session_replication_role = replica"))
        for name in tables:
            if name == "alembic_version":
                continue
            table = sa.Table(name, sa.MetaData(), autoload_with=target)
            columns = [column.name for column in table.c if column.computed is None]
            rows = source.execute(sa.text(f"SELECT {', '.join(columns)} FROM {name}")).mappings().all()
            if rows:
                target.execute(sa.delete(table))
                target.execute(sa.insert(table), [dict(row) for row in rows])
    migrate.upgrade(former)
    assert migrate.differences(former) == []
    world.audited = AuditedStore(PostgresStore(former))
    world.board.ears.clear()
    world.services = world.another_process()


def run_moves(world: World) -> None:
    while world.queue.moves:
        move = world.queue.moves.pop(0)
        world.services.moving.run(move.id, move.batch)


def test_what_the_former_release_left_moves_is_resealed_and_leaves(
    world: World, token: bytes, engine: sa.Engine, former: sa.Engine
) -> None:
    upgrade(world, engine, former)
    cipher = world.services.vault.cipher("acme", "pii")
    assert cipher.decrypt(token, context=CONTEXT) == b"ada"

    world.services.moves.request("acme", actor="test", kms_key_arn=NEW)
    run_moves(world)
    seen = world.services.moves.status("acme")
    assert seen.move.committed_at is not None
    assert (seen.progress.under_new, seen.progress.old_key_may_go) == (3, True)
    world.kms.disable(kms_key_arn())
    for _ in range(3):  # the rotation from before the upgrade, then the one that the move asks for
        world.clock.advance(seconds=600)
        world.services.scheduling.sweep()
        run_moves(world)
        world.run_published()
    assert world.services.moves.status("acme").move.state is MoveState.DONE

    newer, older = SecretBytes(world.random.bytes(32)), world.master_keys._keys["mk-1"]
    world.master_keys = MasterKeyRing([("mk-2", newer), ("mk-1", older)], world.random.bytes)
    world.services = world.another_process()
    world.services.reseals.start(requested_by="test")
    while world.queue.reseals:
        reseal, _ = world.queue.reseals.pop(0)
        world.services.resealing.run(reseal.id, reseal.batch)
    assert {one.sealed.master_key_id: one.sealed.records for one in world.services.ring_status.read().keys}[
        "mk-1"
    ] == 0
    world.cache.entries.clear()
    assert world.services.vault.cipher("acme", "pii").decrypt(token, context=CONTEXT) == b"ada"

    offboardings = world.services.offboardings
    offboardings.begin("acme", "contract ended", retention=timedelta(days=1), actor="test")
    world.clock.advance(seconds=2 * 86400)
    report = offboardings.finish("acme", actor="test")["report"]
    assert report["passed"]
    assert {one["state"] for key in report["keys"] for one in key["versions"]} == {"destroyed"}
