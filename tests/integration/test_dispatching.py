"""Dispatch of due keys: in batches, fair between tenants, and no more than the fleet can take."""

from collections import Counter

import pytest

from byok.core.audit import verify_chain
from byok.core.model import Job, Rotation, RotationReason, RotationState
from byok.errors import KmsUnavailable
from byok.services import dispatching
from byok.services.scheduling import Scheduling
from byok.store.rotations import RotationTable
from tests.world import World


@pytest.fixture
def keys(world: World) -> None:
    """Six keys of acme, which are due first, two of globex, one of initech."""
    for tenant, count in (("acme", 6), ("globex", 2), ("initech", 1)):
        world.add_tenant(tenant)
        for number in range(count):
            world.clock.advance(seconds=1)
            world.add_key(tenant, f"key{number}")
    world.clock.advance(days=31)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatching, "_BATCH", 2)


def narrow(world: World, window: int) -> Scheduling:
    """A scheduler of a fleet that takes so many rotations at a time."""
    return world.another_process(rotations_in_flight=window).scheduling


def published(world: World) -> Counter[str]:
    return Counter(tenant for tenant, _, _ in world.queue.rotations)


def test_all_that_is_due_is_set_going_once_over_many_batches(world: World, keys: None) -> None:
    assert world.services.scheduling.dispatch_due() == 9
    assert published(world) == {"acme": 6, "globex": 2, "initech": 1}
    assert {rotation.reason for _, _, rotation in world.queue.rotations} == {RotationReason.SCHEDULED}
    assert world.services.scheduling.dispatch_due() == 0
    world.run_published()
    assert world.states("acme", "key5") == ["retired", "active"]
    events = world.services.registry.audit_log("initech")
    assert verify_chain(events) == len(events)
    requested = [event for event in events if event.action == "rotation.requested"]
    assert requested[-1].details == {
        "key": "key0",
        "rotation": str(world.show("initech", "key0").rotations[0].id),
        "reason": "scheduled",
    }


def test_one_tenants_many_keys_do_not_hold_up_anothers_few(world: World, keys: None) -> None:
    assert narrow(world, window=10).dispatch_due() == 3
    assert published(world) == {"acme": 1, "globex": 1, "initech": 1}, "a tenth each"


def test_a_full_window_leaves_the_rest_and_the_next_run_goes_on_there(world: World, keys: None) -> None:
    scheduling = narrow(world, window=2)
    assert scheduling.tick(Job.DISPATCH_DUE) == 2
    assert published(world) == {"acme": 1, "globex": 1}
    assert world.metrics.counts["held-back", "window-full"] == 1
    world.run_published()
    assert scheduling.tick(Job.DISPATCH_DUE) == 2, "at once: there is more to do"
    assert published(world) == {"globex": 1, "initech": 1}, "from there on, and not acme's again"


def test_a_run_that_begins_in_the_middle_goes_once_around(world: World, keys: None) -> None:
    narrow(world, window=2).tick(Job.DISPATCH_DUE)
    world.run_published()
    assert world.services.scheduling.dispatch_due() == 7, "the five of acme that were passed by, too"


def test_nothing_is_set_going_while_the_window_is_full(world: World, keys: None) -> None:
    scheduling = narrow(world, window=2)
    assert scheduling.dispatch_due() == 2
    assert scheduling.dispatch_due() == 0
    world.run_published()
    assert scheduling.dispatch_due() == 2


def test_a_job_that_is_done_waits_for_its_period(world: World, keys: None) -> None:
    assert world.services.scheduling.tick(Job.DISPATCH_DUE) == 9
    assert world.services.scheduling.tick(Job.DISPATCH_DUE) is None


def test_keys_of_suspended_tenants_take_no_room(world: World, keys: None) -> None:
    world.kms.disable(world.versions("acme", "key0")[0].kms_key_arn)
    world.services.checkups.probe("acme")
    assert narrow(world, window=2).dispatch_due() == 2
    assert published(world) == {"globex": 1, "initech": 1}


def test_rotations_that_wait_for_a_kms_that_is_down_take_no_room(world: World, keys: None) -> None:
    scheduling = narrow(world, window=2)
    scheduling.dispatch_due()
    world.kms.fail_next(KmsUnavailable("ThrottlingException"), times=2)
    for _, _, rotation in world.queue.rotations:
        with pytest.raises(KmsUnavailable):
            world.services.rotations.run(rotation.id)
    world.queue.rotations.clear()
    assert scheduling.dispatch_due() == 1
    assert published(world) == {"initech": 1}, "the others' shares are taken"


def test_a_broker_that_is_silent_or_full_is_given_nothing(world: World, keys: None) -> None:
    world.queue.is_down = True
    assert world.services.scheduling.dispatch_due() == 0
    assert world.metrics.counts["held-back", "broker-silent"] == 1
    world.queue.is_down = False
    scheduling = narrow(world, window=10)
    scheduling.dispatch_due()
    world.queue.rotations *= 4
    assert scheduling.dispatch_due() == 0
    assert world.metrics.counts["held-back", "queue-deep"] == 1
    assert world.show("acme", "key5").rotations[0].reason is RotationReason.INITIAL, "nothing was recorded"


def test_a_slow_database_is_left_alone_after_what_is_under_way(
    world: World, keys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatching, "_SLOW_SECONDS", -1.0)
    first = world.services.scheduling.dispatch_due()
    assert first == 2 * (1 + dispatching._TRANSACTIONS)
    assert world.metrics.counts["held-back", "database-slow"] == 1
    assert world.services.scheduling.dispatch_due() == 9 - first


def test_a_run_ends_in_time_and_the_next_one_goes_on(
    world: World, keys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatching, "_RUN_SECONDS", -1.0)
    assert world.services.scheduling.tick(Job.DISPATCH_DUE) == 0
    assert world.metrics.counts["held-back", "time-up"] == 1
    monkeypatch.setattr(dispatching, "_RUN_SECONDS", 10.0)
    assert world.services.scheduling.tick(Job.DISPATCH_DUE) == 9, "at once"


def test_what_one_tenant_asked_for_leaves_the_others_their_room(world: World, keys: None) -> None:
    for number in range(6):
        world.services.requests.request(
            "acme", f"key{number}", reason=RotationReason.FORCED, requested_by="test"
        )
    world.queue.rotations.clear()
    assert narrow(world, window=4).dispatch_due() == 2
    assert published(world) == {"globex": 1, "initech": 1}


def test_a_batch_that_comes_too_late_for_all_its_keys_records_nothing(
    world: World, keys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RotationTable, "schedule", lambda *_: [])
    assert world.services.scheduling.dispatch_due() == 0


def test_a_key_that_was_rotated_since_it_was_found_due_is_left_alone(world: World, keys: None) -> None:
    """Between a dispatcher's look and its lock another one set it going, and a worker has done it."""
    (key,) = world.services.registry.show_tenant("initech")[1]
    now = world.clock.now()
    late = Rotation(
        world.random.uuid(), key.id, RotationReason.SCHEDULED, RotationState.REQUESTED, "schedule", now
    )
    world.services.scheduling.dispatch_due()
    with world.store.transaction() as tx:
        assert tx.keys.lock_due([key.id], now) == [], "it has an open rotation"
        assert tx.rotations.schedule([late], now) == []
    world.run_published()
    with world.store.transaction() as tx:
        assert tx.keys.lock_due([key.id], now) == []
        assert tx.rotations.schedule([late], now) == [], "its due time has moved"
