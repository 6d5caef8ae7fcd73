"""What Beat sets off: due keys, the sweeper, and one tick a period."""

import itertools
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from random import Random as Chance

import pytest
import sqlalchemy as sa

from byok.core.model import (
    Job,
    RotationReason,
    RotationState,
    TenantState,
)
from byok.core.stops import probe_period
from byok.errors import (
    IllegalTransition,
    KmsIntegrityError,
)
from byok.failpoints import FailPoint, arm, disarm
from tests.fakes import CountingRandom
from tests.integration.acts import Killed, die, pass_time, request
from tests.world import PERIODS, SWEEP, World


def test_request_stands_when_the_broker_is_down_and_the_sweeper_publishes_it(world: World, key: None) -> None:
    world.queue.is_down = True
    request(world)
    world.queue.is_down = False
    assert world.services.scheduling.sweep() == 0
    world.clock.advance(seconds=SWEEP.total_seconds() + 1)
    assert world.services.scheduling.sweep() == 1
    assert world.services.scheduling.sweep() == 0
    world.run_published()
    assert world.states() == ["retired", "active"]


def test_due_keys_are_dispatched_once(world: World, key: None) -> None:
    assert world.services.scheduling.dispatch_due() == 0
    world.clock.advance(days=31)
    assert world.services.scheduling.dispatch_due() == 1
    assert world.services.scheduling.dispatch_due() == 0
    world.run_published()
    assert world.states() == ["retired", "active"]
    assert world.versions()[1].reason is RotationReason.SCHEDULED
    due = world.show().key.next_rotation_at
    assert due is not None
    assert timedelta(days=28) < due - world.clock.now() <= timedelta(days=30)
    assert world.services.scheduling.dispatch_due() == 0


def test_two_beats_at_once_dispatch_once(world: World, key: None) -> None:
    world.clock.advance(days=31)
    results: list[int] = []

    def tick(dispatch: Callable[[], int]) -> None:
        results.append(dispatch())

    threads = [
        threading.Thread(target=tick, args=(world.another_process().scheduling.dispatch_due,))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(results) == 1
    assert len(world.queue.rotations) == 1


def test_suspended_tenants_are_not_dispatched_and_rotate_once_on_return(world: World, key: None) -> None:
    arn = world.versions()[0].kms_key_arn
    world.kms.disable(arn)
    assert world.services.checkups.probe("acme") is TenantState.SUSPENDED
    world.clock.advance(days=365)
    assert world.services.scheduling.dispatch_due() == 0
    world.kms.enable(arn)
    assert world.services.checkups.probe("acme") is TenantState.ACTIVE
    assert world.services.scheduling.dispatch_due() == 1
    world.run_published()
    assert world.services.scheduling.dispatch_due() == 0
    assert world.states() == ["retired", "active"]


def test_failed_first_version_is_tried_again_by_schedule(world: World) -> None:
    world.add_tenant()
    world.kms.fail_next(KmsIntegrityError("broken"))
    with pytest.raises(KmsIntegrityError):
        world.add_key()
    assert world.states() == []
    world.clock.advance(hours=1, seconds=1)
    assert world.services.scheduling.dispatch_due() == 1
    world.run_published()
    assert world.states() == ["active"]
    assert world.versions()[0].reason is RotationReason.INITIAL


def test_an_orphaned_pending_version_is_rejected_by_the_sweeper(
    world: World, key: None, engine: sa.Engine
) -> None:
    request(world)
    arm(FailPoint.GENERATED, die)
    with pytest.raises(Killed):
        world.run_published()
    disarm()
    with engine.begin() as connection:  # a hand that did half of the work
        connection.execute(
            sa.text(
                "UPDATE rotations SET state = 'failed', failure = 'by hand', finished_at = now(),"
                " wake_at = NULL, claimed_until = NULL WHERE state = 'generated'"
            )
        )
    assert world.services.scheduling.sweep() == 1
    assert world.states() == ["active", "rejected"]
    assert world.metrics.counts["found", "orphan-rejected"] == 1
    assert world.audit_actions()[-1] == "version.rejected"
    request(world)
    world.run_published()
    assert world.states() == ["retired", "rejected", "active"]


def test_a_rotation_whose_version_was_rejected_by_hand_ends(
    world: World, key: None, engine: sa.Engine
) -> None:
    request(world)
    _, _, rotation = world.queue.rotations[0]
    arm(FailPoint.VALIDATED, die)
    with pytest.raises(Killed):
        world.run_published()
    disarm()
    with engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE key_versions SET state = 'rejected', ended_at = now() WHERE number = 2")
        )
    pass_time(world, sweeps=1)
    world.services.scheduling.sweep()
    with pytest.raises(IllegalTransition):
        world.run_published()
    assert world.rotation(rotation.id).state is RotationState.FAILED


def test_with_a_deep_queue_the_sweeper_publishes_nothing_again(world: World, key: None) -> None:
    request(world)
    (waiting,) = world.queue.rotations
    world.queue.rotations = [waiting] * 1000
    pass_time(world, sweeps=2)
    assert world.services.scheduling.sweep() == 0
    world.queue.rotations = []
    assert world.services.scheduling.sweep() == 1


def test_with_a_deep_queue_what_a_dead_worker_had_is_published_again_all_the_same(
    world: World, key: None
) -> None:
    request(world)
    arm(FailPoint.GENERATED, die)
    with pytest.raises(Killed):
        world.run_published()
    disarm()
    world.queue.rotations = world.queue.rotations[:0]
    filler = world.show().rotations[-1]
    world.queue.rotations = [("acme", "pii", filler)] * 1000
    pass_time(world, sweeps=2)
    assert world.services.scheduling.sweep() == 1
    assert world.services.scheduling.sweep() == 0
    pass_time(world, sweeps=1)
    assert world.services.scheduling.sweep() == 0, "it waits in a long queue: not at every sweep"
    pass_time(world, sweeps=1)
    assert world.services.scheduling.sweep() == 1


def test_a_tick_runs_once_a_period_however_many_beats_there_are(world: World, key: None) -> None:
    beats = [world.another_process().scheduling for _ in range(2)]
    ran = []
    for seconds in (0, SWEEP.total_seconds() / 2, SWEEP.total_seconds() / 2):
        world.clock.advance(seconds=seconds)
        ran += [[beat.tick(Job.SWEEP) is not None for beat in beats]]
    assert ran == [[True, False], [False, False], [True, False]]


def test_a_beat_that_read_the_time_first_and_asks_second_finds_the_tick_taken(
    world: World, key: None
) -> None:
    read_at = world.clock.now()
    with world.store.transaction() as tx:
        assert tx.ticks.begin(Job.SWEEP, read_at + timedelta(milliseconds=2), SWEEP)
    with world.store.transaction() as tx:
        tx.ticks.end(Job.SWEEP, read_at + timedelta(milliseconds=2), read_at + timedelta(milliseconds=3))
    with world.store.transaction() as tx:
        assert not tx.ticks.begin(Job.SWEEP, read_at, SWEEP)


def test_each_tenant_is_probed_at_least_twice_within_its_shortest_ttl(world: World, key: None) -> None:
    world.add_key(key="short", ttl=timedelta(minutes=2))
    world.add_tenant("globex")
    world.add_key("globex")
    probed: dict[str, list[float]] = {"acme": [], "globex": []}
    began_ticks = world.clock.ticks()
    for _ in range(0, 3600, 5):  # an hour of ticks, from two Beats
        for beat in (world.services, world.services):
            beat.scheduling.tick(Job.PROBE)
        for name in world.queue.probes:
            probed[name].append(world.clock.ticks() - began_ticks)
        world.queue.probes.clear()
        world.clock.advance(seconds=5)
    gaps = {name: [b - a for a, b in itertools.pairwise(times)] for name, times in probed.items()}
    assert max(gaps["acme"]) <= 60, "half of two minutes"
    assert max(gaps["globex"]) <= 300, "the setting: half of its TTL is longer"
    assert min(gaps["acme"]) >= 40
    assert min(gaps["globex"]) >= 200, "and not needlessly often"


class VaryingRandom(CountingRandom):
    """Every fraction, the same ones each time."""

    def __init__(self) -> None:
        super().__init__()
        self._chance = Chance(7)

    def fraction(self) -> float:
        return self._chance.random()


@pytest.mark.parametrize("late", [0.0, 0.4], ids=["ticks in time", "every other tick late"])
@pytest.mark.parametrize(
    ("interval_seconds", "ttl_seconds"),
    [(300, 10), (300, 16), (300, 20), (300, 28), (300, 60), (6, 3600), (7.5, 3600), (3, 3600), (6, 16)],
)
def test_the_stated_period_is_kept(
    world: World, key: None, interval_seconds: float, ttl_seconds: int, late: float
) -> None:
    tick_seconds = min(interval_seconds, 5.0)
    periods = replace(
        PERIODS, probe=timedelta(seconds=interval_seconds), probe_tick=timedelta(seconds=tick_seconds)
    )
    scheduling = world.another_process(periods=periods, random=VaryingRandom()).scheduling
    ttl = timedelta(seconds=ttl_seconds)
    world.services.registry.set_rotation("acme", "pii", actor="test", lease_ttl=ttl)
    stated = probe_period(periods.probe, [ttl]).total_seconds()
    probed: list[float] = []
    for tick in range(int(40 * stated / tick_seconds)):
        lateness = late * tick_seconds * (tick % 2)
        world.clock.advance(seconds=lateness)
        scheduling.tick(Job.PROBE)
        probed += [world.clock.ticks()] * len(world.queue.probes)
        world.queue.probes.clear()
        world.clock.advance(seconds=tick_seconds - lateness)
    gaps = [b - a for a, b in itertools.pairwise(probed)]
    # A tick that waits in the queue counts like a probe that does: that is not part of the period.
    assert max(gaps) <= stated + late * tick_seconds + 1e-6
    assert min(gaps) >= 0.5 * tick_seconds, "and no tenant twice in a tick"


def test_a_ttl_that_is_shortened_brings_the_next_probe_forward(world: World, key: None) -> None:
    world.services.fan_out.publish_probes()
    world.queue.probes.clear()
    world.services.registry.set_rotation("acme", "pii", actor="test", lease_ttl=timedelta(minutes=1))
    world.clock.advance(seconds=31)
    assert world.services.fan_out.publish_probes() == 1


def test_a_probe_that_could_not_be_published_is_published_later(world: World, key: None) -> None:
    world.queue.is_down = True
    assert world.services.fan_out.publish_probes() == 0
    world.queue.is_down = False
    world.clock.advance(seconds=5)
    assert world.services.fan_out.publish_probes() == 1, "by the next tick, not a period later"


def test_a_broker_that_fails_on_the_way_costs_only_what_was_not_published(world: World, key: None) -> None:
    world.add_tenant("globex")
    world.queue.fail_after = 1
    assert world.services.fan_out.publish_probes() == 1
    world.queue.fail_after = None
    assert world.services.fan_out.publish_probes() == 1
    assert sorted(world.queue.probes) == ["acme", "globex"]


def test_a_tick_whose_worker_died_is_made_up_for_after_a_minute(world: World, key: None) -> None:
    rare = world.another_process(periods=replace(PERIODS, sweep=timedelta(days=1))).scheduling
    with world.store.transaction() as tx:
        assert tx.ticks.begin(Job.SWEEP, world.clock.now(), timedelta(days=1))  # and dies
    assert rare.tick(Job.SWEEP) is None
    world.clock.advance(seconds=61)
    assert rare.tick(Job.SWEEP) is not None
    world.clock.advance(hours=2)
    assert rare.tick(Job.SWEEP) is None
    world.clock.advance(days=-7)  # and a clock that went back does not silence it for a week
    assert rare.tick(Job.SWEEP) is not None
