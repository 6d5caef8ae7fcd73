"""A drill whose conductor died: the tenant goes on within about a minute, however seldom it is probed."""

import pytest

from byok.core.model import Job, SuspensionKind, TenantState
from byok.services.scheduling import Scheduling
from tests.world import PERIOD, TTL, World


def begin_drill_and_die(world: World) -> None:
    world.services.watch.join()
    world.services.kill_switch.suspend("acme", "a drill", actor="test", kind=SuspensionKind.DRILL)


def seconds_until_active(world: World, scheduling: Scheduling) -> float:
    began_ticks = world.clock.ticks()
    while world.tenant().state is not TenantState.ACTIVE:
        assert world.clock.ticks() < began_ticks + 3600
        world.clock.advance(seconds=5)
        scheduling.tick(Job.PROBE)
        for name in world.queue.probes:
            world.services.checkups.probe(name)
        world.queue.probes.clear()
    return world.clock.ticks() - began_ticks


@pytest.mark.parametrize("last_probe_seconds_ago", [0, 100, 200, 235])
def test_its_drill_ends_after_a_minute(world: World, key: None, last_probe_seconds_ago: int) -> None:
    world.services.scheduling.tick(Job.PROBE)
    world.queue.probes.clear()
    world.clock.advance(seconds=last_probe_seconds_ago)
    begin_drill_and_die(world)
    assert 60 <= seconds_until_active(world, world.services.scheduling) <= 70


def test_its_drill_ends_though_no_version_can_prove_access(world: World) -> None:
    tenant = world.add_tenant()
    world.services.registry.create_key("acme", "pii", rotation_period=PERIOD, lease_ttl=TTL, actor="test")
    begin_drill_and_die(world)
    assert tenant.connection is not None
    world.kms.disable(tenant.connection.kms_key_arn)
    assert world.services.checkups.probe("acme") is TenantState.SUSPENDED
    world.kms.enable(tenant.connection.kms_key_arn)
    assert seconds_until_active(world, world.services.scheduling) <= 70


def test_what_aws_refuses_then_is_a_revocation_that_ends_by_a_probe(world: World) -> None:
    tenant = world.add_tenant()
    begin_drill_and_die(world)
    assert tenant.connection is not None
    world.kms.disable(tenant.connection.kms_key_arn)
    world.clock.advance(seconds=61)
    assert world.services.checkups.probe("acme") is TenantState.SUSPENDED
    suspension = world.tenant().suspension
    assert suspension is not None
    assert suspension.kind is SuspensionKind.REVOKED
    world.kms.enable(tenant.connection.kms_key_arn)
    assert world.services.checkups.probe("acme") is TenantState.ACTIVE


def test_a_lock_without_a_version_stays(world: World) -> None:
    world.add_tenant()
    world.services.kill_switch.suspend("acme", "customer called", actor="test")
    world.clock.advance(hours=1)
    assert world.services.checkups.probe("acme") is TenantState.SUSPENDED
