"""A rotation whose KMS is not asked waits, and keeps its attempts."""

from datetime import timedelta

import pytest

from byok.core.model import RotationState
from byok.errors import KmsBackingOff, KmsUnavailable
from byok.services.setbacks import MAX_ATTEMPTS
from tests.world import World


@pytest.fixture
def open_rotation(world: World) -> World:
    world.add_tenant()
    world.add_key()
    world.services.vault.request_rotation("acme", "pii")
    return world


def attempt(world: World) -> None:
    """Take the rotation up again when it is due, as the sweeper's message has it."""
    world.clock.advance(minutes=10)
    world.services.scheduling.sweep()
    world.run_published()


def test_deferrals_use_up_no_attempt(open_rotation: World) -> None:
    world = open_rotation
    world.kms.fail_next(KmsBackingOff("busy", retry_after_seconds=3), times=3 * MAX_ATTEMPTS)
    for _ in range(3 * MAX_ATTEMPTS):
        with pytest.raises(KmsBackingOff):
            attempt(world)
    (rotation, *_) = world.show().rotations
    assert (rotation.attempts, rotation.deferrals, rotation.tries) == (3 * MAX_ATTEMPTS, 3 * MAX_ATTEMPTS, 0)
    assert rotation.is_open
    attempt(world)
    assert world.states() == ["retired", "active"]
    assert world.metrics.counts["tried-again", "kms-backing-off"] == 3 * MAX_ATTEMPTS


def test_failures_still_count(open_rotation: World) -> None:
    world = open_rotation
    for error in [KmsBackingOff("busy", retry_after_seconds=3), KmsUnavailable("throttled")] * MAX_ATTEMPTS:
        world.kms.fail_next(error)
        with pytest.raises(KmsUnavailable):
            attempt(world)
    assert world.show().rotations[0].state is RotationState.FAILED


def test_it_is_due_again_when_asking_makes_sense(open_rotation: World) -> None:
    world = open_rotation
    world.kms.fail_next(KmsBackingOff("left alone", retry_after_seconds=60))
    with pytest.raises(KmsBackingOff):
        world.run_published()
    world.clock.advance(seconds=59)
    assert world.services.scheduling.sweep() == 0
    world.clock.time += timedelta(seconds=62)
    assert world.services.scheduling.sweep() == 1
