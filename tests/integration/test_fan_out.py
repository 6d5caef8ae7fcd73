"""Validations and syncs, each key's and each tenant's in its own time."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from byok.core.model import Job
from tests.world import PERIODS, World

DAY = timedelta(days=1)


def make_due(engine: sa.Engine, world: World, ago: timedelta = timedelta(seconds=1)) -> None:
    """Every validation and every sync is due since then."""
    with engine.begin() as connection:
        due_at = {"at": world.clock.now() - ago}
        connection.execute(sa.text("UPDATE keys SET next_validation_at = :at"), due_at)
        connection.execute(sa.text("UPDATE tenants SET next_sync_at = :at"), due_at)


@pytest.fixture
def fleet(world: World, engine: sa.Engine) -> World:
    """Three tenants with two keys each, all due."""
    for tenant in ("acme", "globex", "initech"):
        world.add_tenant(tenant)
        for key in ("pii", "notes"):
            world.add_key(tenant, key)
    make_due(engine, world)
    return world


ALL_KEYS = [(tenant, key) for tenant in ("acme", "globex", "initech") for key in ("notes", "pii")]


def test_every_key_is_validated_and_every_tenant_synced_once_a_period(fleet: World) -> None:
    fan_out = fleet.services.fan_out
    assert (fan_out.publish_validations(), fan_out.publish_syncs()) == (6, 3)
    assert sorted(fleet.queue.validations) == ALL_KEYS
    assert sorted(fleet.queue.syncs) == ["acme", "globex", "initech"]
    assert (fan_out.publish_validations(), fan_out.publish_syncs()) == (0, 0)
    fleet.clock.advance(hours=11)
    assert fan_out.publish_syncs() == 0
    fleet.clock.advance(hours=1)
    assert fan_out.publish_syncs() == 3
    assert fan_out.publish_validations() == 0
    fleet.clock.advance(hours=12)
    assert fan_out.publish_validations() == 6


def test_two_processes_publish_each_once(fleet: World) -> None:
    beats = [fleet.another_process(), fleet.another_process()]
    for _ in range(2):
        for beat in beats:
            beat.scheduling.tick(Job.VALIDATE)
            beat.fan_out.publish_validations()
    assert sorted(fleet.queue.validations) == ALL_KEYS


def test_what_was_made_together_drifts_apart(fleet: World, engine: sa.Engine) -> None:
    fleet.services.fan_out.publish_validations()
    with engine.connect() as connection:
        times = connection.execute(sa.text("SELECT next_validation_at FROM keys")).scalars().all()
    ahead = [time - fleet.clock.now() for time in times]
    assert len(set(ahead)) == 6
    assert 0.95 * DAY <= min(ahead) <= max(ahead) <= DAY


def test_a_period_of_ticks_publishes_evenly(fleet: World, engine: sa.Engine) -> None:
    """Also of a fleet that was made in one go, by the column's default."""
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO keys (id, tenant_id, name, rotation_period_seconds, rotation_source,"
                " lease_ttl_seconds, created_at) SELECT gen_random_uuid(), (SELECT id FROM tenants LIMIT 1),"
                " 'key-' || n, 86400, 'default', 3600, now() FROM generate_series(1, 2394) AS n"
            )
        )
        made = connection.execute(
            sa.text(
                "SELECT max(next_validation_at) - min(next_validation_at) FROM keys WHERE name LIKE 'key-%'"
            )
        ).scalar_one()
    assert made > timedelta(hours=22)
    make_due(engine, fleet, ago=-timedelta(days=7))  # whatever the database's clock says: all are drawn in
    assert fleet.services.fan_out.publish_validations() == 0
    an_hour: list[int] = []
    for _ in range(24):
        fleet.clock.advance(hours=1)
        an_hour.append(fleet.services.fan_out.publish_validations())
        fleet.queue.validations.clear()
    assert sum(an_hour) >= 2_400
    assert max(an_hour) < 170, "a hundred an hour, give or take"


def test_keys_of_suspended_tenants_are_moved_on_without_a_validation(fleet: World) -> None:
    fleet.services.kill_switch.suspend("globex", actor="test", reason="on request")
    assert fleet.services.fan_out.publish_validations() == 4
    assert Counter(tenant for tenant, _ in fleet.queue.validations) == {"acme": 2, "initech": 2}
    assert fleet.services.fan_out.publish_validations() == 0
    assert fleet.services.fan_out.publish_syncs() == 2


def test_a_broker_that_fails_costs_no_period(fleet: World) -> None:
    fan_out = fleet.services.fan_out
    fleet.queue.is_down = True
    assert (fan_out.publish_validations(), fan_out.publish_syncs()) == (0, 0)
    fleet.queue.is_down = False
    fleet.queue.fail_after = 2
    assert (fan_out.publish_validations(), fan_out.publish_syncs()) == (2, 2)
    fleet.queue.fail_after = None
    assert (fan_out.publish_validations(), fan_out.publish_syncs()) == (4, 1)
    assert sorted(fleet.queue.validations) == ALL_KEYS
    assert sorted(fleet.queue.syncs) == ["acme", "globex", "initech"]


def test_a_full_queue_is_not_made_longer(fleet: World) -> None:
    fleet.queue.validations = [("other", "key")] * 497
    assert fleet.services.fan_out.publish_validations() == 3
    assert fleet.services.fan_out.publish_validations() == 0
    fleet.queue.validations.clear()
    assert fleet.services.fan_out.publish_validations() == 3


@pytest.mark.parametrize("period", [timedelta(hours=2), DAY], ids=["shorter setting", "clock was ahead"])
def test_a_time_too_far_ahead_is_drawn_in(fleet: World, engine: sa.Engine, period: timedelta) -> None:
    make_due(engine, fleet, ago=-timedelta(days=7))
    fan_out = fleet.another_process(periods=replace(PERIODS, validate=period)).fan_out
    assert fan_out.publish_validations() == 0
    fleet.clock.advance(seconds=period.total_seconds())
    assert fan_out.publish_validations() == 6
