"""The store's own promises: a change that is based on what no longer holds is refused."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from byok.core.model import RotationEvent, RotationReason, TenantEvent, VersionEvent
from byok.errors import LostRace
from byok.store.clock import DatabaseClock
from byok.store.postgres import PostgresStore
from tests.world import World


@pytest.fixture
def key(world: World) -> None:
    world.add_tenant()
    world.add_key()


def twice(world: World, change: Callable[[], None]) -> None:
    """The same change, made by two who read the same."""
    change()
    with pytest.raises(LostRace):
        change()


def test_a_version_that_another_changed_is_not_changed_again(world: World, key: None) -> None:
    (version,) = world.versions()

    def retire() -> None:
        with world.store.transaction() as tx:
            tx.versions.transition([version], VersionEvent.RETIRE, world.clock.now())

    twice(world, retire)


def test_a_rotation_that_another_advanced_is_not_advanced_again(world: World, key: None) -> None:
    world.services.requests.request("acme", "pii", reason=RotationReason.FORCED, requested_by="test")
    rotation = world.show().rotations[0]

    def generate() -> None:
        with world.store.transaction() as tx:
            now = world.clock.now()
            numbered = replace(rotation, version_number=2)
            if not tx.rotations.transition([numbered], RotationEvent.GENERATE, now):
                raise LostRace("somebody was faster")

    twice(world, generate)


def test_a_tenant_that_another_stopped_is_not_stopped_again(world: World, key: None) -> None:
    world.services.kill_switch.suspend("acme", "x", actor="test")
    tenant = world.tenant()

    def offboard() -> None:
        with world.store.transaction() as tx:
            tx.tenants.transition(tenant, TenantEvent.OFFBOARD, world.clock.now())

    twice(world, offboard)


def test_a_version_compromised_later_keeps_the_time_of_its_retirement(world: World, key: None) -> None:
    world.services.requests.request("acme", "pii", reason=RotationReason.FORCED, requested_by="test")
    world.run_published()
    retired = world.versions()[0]
    world.clock.advance(days=1)
    with world.store.transaction() as tx:
        tx.versions.transition([retired], VersionEvent.COMPROMISE, world.clock.now())
    assert world.versions()[0].retired_at == retired.retired_at


def test_the_clock_is_the_databases_and_nobody_sets_it_here(
    store: PostgresStore, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine.connect() as connection:
        theirs = connection.execute(sa.text("SELECT clock_timestamp()")).scalar_one()
    assert abs(store.now() - theirs) < timedelta(seconds=5)
    before = store.now()
    monkeypatch.setattr("time.time", lambda: 0.0)  # somebody sets this machine's clock to 1970
    assert timedelta(0) <= store.now() - before < timedelta(seconds=5)


def test_the_clock_is_read_again_after_a_while_and_goes_on_without_the_database(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = [1000.0]
    monkeypatch.setattr("byok.store.clock.ticking_seconds", lambda: ticks[0])
    clock = DatabaseClock(engine)
    first = clock.now()
    ticks[0] += 20
    assert clock.now() - first == timedelta(seconds=20)  # carried on, though the database says otherwise
    with engine.connect() as connection:
        clock.read_if_old(connection)
        assert clock.now() - first == timedelta(seconds=20)
        ticks[0] += 20
        clock.read_if_old(connection)
    assert clock.now() - first < timedelta(seconds=10)
