"""Every act of the control plane leaves an event in the transaction that makes it.

`tests.audited` looks at each transaction of every service in the whole suite; this is about what it sees.
"""

import inspect
from collections.abc import Iterator
from datetime import timedelta
from typing import get_args, get_type_hints

import pytest
import sqlalchemy as sa

from byok.core.model import RotationReason
from byok.embedded.stack import Stack
from byok.errors import ByokError, KmsRequestRejected
from byok.failpoints import FailPoint, arm, disarm
from byok.ports import Transaction
from byok.services.requests import Requested
from byok.store.application import PostgresRows
from byok.store.postgres import PostgresStore
from tests.applications import Application, application
from tests.audited import ACTS, BOOKKEEPING, READS, AuditedStore
from tests.fakes import FakeKmsKey
from tests.integration.acts import Killed, die
from tests.integration.test_reencryption import COLUMNS
from tests.world import World, kms_key_arn


@pytest.fixture
def application_database(stack: Stack) -> Iterator[Application]:
    with application(stack) as made:
        yield made


def parts() -> dict[str, type]:
    """The parts of a transaction, by name; of a mapping, what it maps to."""
    found = {}
    for name, value in inspect.getmembers(Transaction, lambda one: isinstance(one, property)):
        kind = get_type_hints(value.fget)["return"]
        found[name] = get_args(kind)[-1] if get_args(kind) else kind
    return found


def test_each_method_of_the_store_is_known_as_an_act_or_none() -> None:
    unknown = [
        f"{part}.{method}"
        for part, kind in parts().items()
        if part != "counts"  # it reads alone
        for method in vars(kind)
        if not method.startswith("_")
        and f"{part}.{method}" not in {*ACTS, *BOOKKEEPING}
        and (not method.startswith(READS) and method not in ("chain", "oldest_due", "soonest"))
        and not method.startswith(("worst_", "least_"))
    ]
    assert unknown == [], "say in tests/audited.py whether this is an act that is to leave an audit event"


def test_what_is_said_of_methods_is_of_methods_that_there_are() -> None:
    names = {f"{part}.{method}" for part, kind in parts().items() for method in vars(kind)}
    assert {*ACTS, *BOOKKEEPING} <= names


def test_an_act_without_an_event_is_refused(store: PostgresStore) -> None:
    world = World(store)
    tenant = world.add_tenant()
    with (
        pytest.raises(AssertionError, match=r"tenants\.set_outage_wait"),
        AuditedStore(store).transaction() as tx,
    ):
        tx.tenants.set_outage_wait(tenant, timedelta(seconds=7))
    assert world.tenant().outage_wait == tenant.outage_wait


def test_every_act_is_done_somewhere_with_an_event(
    store: PostgresStore, engine: sa.Engine, application_database: Application
) -> None:
    """A life with everything in it: no act is left that this has not seen."""
    application_database.create()
    world = World(store, rows=PostgresRows(application_database.engine))
    services = world.services
    kms_key = world.kms.keys[kms_key_arn(1)] = FakeKmsKey(rotation_days=365)
    world.add_tenant()
    world.add_key()
    services.registry.set_outage_wait("acme", timedelta(seconds=1), actor="test")
    services.registry.set_webhook("acme", "https://x.example/", allow_http=False, actor="test")
    services.registry.set_rotation("acme", "pii", actor="test", rotation_period=timedelta(days=60))
    services.checkups.validate("acme", "pii", actor="test")
    services.indexes.enable("acme", "pii", actor="test")
    kms_key.rotation_days = 90
    services.follower.sync("acme", actor="test")
    _rotate(world)
    _reencrypt(world, application_database)
    services.indexes.rebuild("acme", "pii", actor="test")
    services.indexes.finish("acme", "pii", actor="test")
    services.destruction.set_floor("acme", "pii", 2, actor="test")
    world.clock.advance(days=1)
    services.destruction.destroy("acme", "pii", 1, actor="test", unused_for=timedelta(0), force=True)
    world.clock.advance(days=90)
    services.scheduling.dispatch_due()
    _die_and_leave_an_orphan(world, engine)
    services.scheduling.sweep()
    kms_key.state = "Disabled"
    services.lookout.look("acme", actor="test")
    services.checkups.probe("acme")
    services.kill_switch.suspend("acme", actor="test", reason="on request")
    kms_key.state = "Enabled"
    services.lookout.look("acme", actor="test")
    services.kill_switch.resume("acme", actor="test")
    _move(world)
    _leave(world)
    assert set(ACTS) - world.audited.acts == set()
    assert services.auditor.verify(services.auditor.chain("acme")).checkpoints > 0


def _move(world: World) -> None:
    """A move to another KMS key that is rolled back, and one that is committed."""
    for event in ("roll_back", "release"):
        world.services.moves.request("acme", actor="test", kms_key_arn=kms_key_arn(101), hold=True)
        _run_moves(world)
        getattr(world.services.moves, event)("acme", actor="test")
        _run_moves(world)
    world.run_published()


def _run_moves(world: World) -> None:
    while world.queue.moves:
        move = world.queue.moves.pop(0)
        world.services.moving.run(move.id, move.batch)


def _leave(world: World) -> None:
    world.services.offboardings.begin("acme", "done", retention=timedelta(0), actor="test")
    world.clock.advance(days=1, hours=1)
    world.services.offboardings.finish("acme", actor="test")
    world.kms.disable(kms_key_arn(101))
    world.services.offboardings.check_access("acme", actor="test")


def _request(world: World, reason: RotationReason) -> Requested:
    return world.services.requests.request("acme", "pii", reason=reason, requested_by="test")


def _rotate(world: World) -> None:
    """A rotation, one that a compromise joins, and one that fails."""
    _request(world, RotationReason.FORCED)
    _request(world, RotationReason.COMPROMISE)
    world.run_published()
    failing = _request(world, RotationReason.FORCED).rotation
    world.kms.hooks["Decrypt"] = _refuse
    world.queue.rotations.clear()
    with pytest.raises(ByokError):
        world.services.rotations.run(failing.id)
    del world.kms.hooks["Decrypt"]


def _refuse() -> None:
    raise KmsRequestRejected("no")


def _reencrypt(world: World, application: Application) -> None:
    application.insert(world.services.vault.cipher("acme", "pii"), {1: "ada"})
    target = world.services.targets.register(
        "acme", "pii", actor="test", table="users", primary_key="id", columns=COLUMNS
    ).target
    (started,) = world.services.campaigns.start("acme", "pii", requested_by="test")
    world.services.campaigns.pause(started.work.campaign.id, actor="test")
    world.services.campaigns.cancel(started.work.campaign.id, actor="test")
    world.services.targets.unregister(target.id, actor="test")


def _die_and_leave_an_orphan(world: World, engine: sa.Engine) -> None:
    """A pending version whose rotation has ended: no code of ours leaves one, but a hand might."""
    arm(FailPoint.GENERATED, die)
    with pytest.raises(Killed):
        world.run_published()
    disarm()
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                "UPDATE rotations SET state = 'failed', failure = 'by hand', finished_at = now(),"
                " wake_at = NULL, claimed_until = NULL WHERE state = 'generated'"
            )
        )
