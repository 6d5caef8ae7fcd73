"""Workers that die, stall or are overtaken, and clocks that jump, at each step of a rotation."""

import threading
import time
from datetime import timedelta
from functools import partial

import pytest

from byok.core.lifecycle import check_rotation, check_versions
from byok.core.model import (
    Rotation,
    RotationState,
)
from byok.errors import (
    KmsIntegrityError,
)
from byok.failpoints import FailPoint, arm, disarm
from byok.services.claims import Claims
from tests.integration.acts import Killed, die, pass_time, request
from tests.world import SWEEP, World

RUNNING = [
    FailPoint.CLAIMED,
    FailPoint.KMS_GENERATED,
    FailPoint.GENERATED,
    FailPoint.GATE_PASSED,
    FailPoint.VALIDATED,
    FailPoint.PROMOTING,
    FailPoint.PROMOTED,
]


@pytest.mark.parametrize("point", RUNNING)
def test_a_worker_that_dies_is_followed_by_another_within_two_sweeps(
    world: World, key: None, point: FailPoint
) -> None:
    cipher = world.services.vault.cipher("acme", "pii")
    token = cipher.encrypt(b"x", context=b"c")
    request(world)
    _, _, rotation = world.queue.rotations.pop()
    arm(point, die)
    with pytest.raises(Killed):
        world.services.rotations.run(rotation.id)
    disarm()
    assert world.services.rotations.run(rotation.id) is None  # the claim of the dead holds for a while
    pass_time(world, sweeps=1)
    found = world.services.scheduling.sweep()
    assert found == (0 if point is FailPoint.PROMOTED else 1)  # there it was done already
    world.run_published()
    assert world.states() == ["retired", "active"]
    check_versions(world.versions())
    check_rotation(world.rotation(rotation.id))
    assert world.audit_actions().count("version.activated") == 2
    assert world.another_process().vault.cipher("acme", "pii").decrypt(token, context=b"c") == b"x"


def test_a_worker_that_dies_while_it_fails_a_rotation_leaves_that_to_another(world: World, key: None) -> None:
    rotation_id = request(world)
    arm(FailPoint.FAILING, die)
    world.kms.fail_next(KmsIntegrityError("broken"))
    with pytest.raises(Killed):
        world.run_published()
    disarm()
    pass_time(world, sweeps=1)
    assert world.services.scheduling.sweep() == 1
    world.run_published()
    assert str(world.show().rotations[0].id) == rotation_id
    assert world.states() == ["retired", "active"]


@pytest.mark.parametrize("point", [FailPoint.REQUEST_RECORDED, FailPoint.DISPATCH_RECORDED])
def test_a_request_that_was_never_published_is_found_within_two_sweeps(
    world: World, key: None, point: FailPoint
) -> None:
    arm(point, die)
    world.clock.advance(days=31)
    dispatch = world.services.scheduling.dispatch_due
    act = partial(request, world) if point is FailPoint.REQUEST_RECORDED else dispatch
    with pytest.raises(Killed):
        act()
    disarm()
    assert world.queue.rotations == []
    pass_time(world, sweeps=1)
    assert world.services.scheduling.sweep() == 1
    world.run_published()
    assert world.states() == ["retired", "active"]


def test_a_sweeper_that_dies_is_followed_by_the_next_sweep(world: World, key: None) -> None:
    request(world)
    world.queue.rotations.clear()  # lost
    pass_time(world, sweeps=1)
    arm(FailPoint.SWEEP_RECORDED, die)
    with pytest.raises(Killed):
        world.services.scheduling.sweep()
    disarm()
    pass_time(world, sweeps=1)
    assert world.services.scheduling.sweep() == 1


def test_a_claim_is_renewed_while_its_process_lives(world: World, key: None) -> None:
    request(world)
    _, _, rotation = world.queue.rotations.pop()
    seen: list[Rotation | None] = []

    def be_slow() -> None:
        world.kms.hooks.clear()
        for _ in range(5):
            pass_time(world, sweeps=0.4)
            world.services.claims.renew()
        assert world.services.scheduling.sweep() == 0
        seen.append(world.another_process().rotations.run(rotation.id))

    world.kms.hooks["GenerateDataKeyWithoutPlaintext"] = be_slow
    done = world.services.rotations.run(rotation.id)
    assert seen == [None]
    assert done is not None
    assert done.attempts == 1


def test_the_thread_renews_and_survives_what_goes_wrong_once(
    world: World, key: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    request(world)
    _, _, rotation = world.queue.rotations.pop()
    claims = Claims(world.store, world.clock, timedelta(seconds=0.06))
    renewals: list[str] = []
    renew = claims.renew

    def fail_first() -> None:
        renewals.append("")
        if len(renewals) == 1:
            raise ZeroDivisionError
        renew()

    monkeypatch.setattr(claims, "renew", fail_first)
    claimed = claims.take([rotation.id])
    assert claimed
    with claims.kept(claimed):
        deadline = time.monotonic() + 10
        while len(renewals) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    claims.close()
    assert len(renewals) >= 3


def test_a_claim_that_another_took_is_not_renewed(world: World, key: None) -> None:
    request(world)
    _, _, rotation = world.queue.rotations.pop()
    claimed = world.services.claims.take([rotation.id])
    assert claimed
    pass_time(world, sweeps=1)
    assert world.another_process().claims.take([rotation.id])
    with world.store.transaction() as tx:
        tx.rotations.renew(claimed, world.clock.now() + timedelta(hours=1))
    pass_time(world, sweeps=1)
    assert world.another_process().claims.take([rotation.id])


def test_a_clock_that_goes_back_does_not_hold_a_dead_workers_rotation(world: World, key: None) -> None:
    request(world)
    _, _, rotation = world.queue.rotations.pop()
    arm(FailPoint.GATE_PASSED, die)
    with pytest.raises(Killed):
        world.services.rotations.run(rotation.id)
    disarm()
    world.clock.advance(days=-1)
    assert world.services.scheduling.sweep() == 1
    world.run_published()
    assert world.states() == ["retired", "active"]
    check_versions(world.versions())  # no time runs backwards


def test_a_clock_that_goes_ahead_lets_two_work_and_one_win(world: World, key: None) -> None:
    request(world)
    _, _, rotation = world.queue.rotations.pop()

    def jump() -> None:
        world.kms.hooks.clear()
        world.clock.advance(days=1)
        assert world.services.scheduling.sweep() == 1
        world.run_published()

    world.kms.hooks["Decrypt"] = jump
    world.services.rotations.run(rotation.id)
    assert world.states() == ["retired", "active"]


def test_two_workers_at_once_make_one_version(world: World, key: None) -> None:
    request(world)
    _, _, rotation = world.queue.rotations.pop()
    threads = [
        threading.Thread(target=world.another_process().rotations.run, args=(rotation.id,)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert world.states() == ["retired", "active"]
    assert world.kms.count("GenerateDataKeyWithoutPlaintext") == 2


def test_a_worker_whose_claim_ran_out_loses_cleanly(world: World, key: None) -> None:
    request(world)
    _, _, rotation = world.queue.rotations.pop()

    def overtake() -> None:
        world.kms.hooks.clear()
        world.clock.advance(seconds=SWEEP.total_seconds() + 1)
        world.another_process().rotations.run(rotation.id)

    world.kms.hooks["GenerateDataKeyWithoutPlaintext"] = overtake
    loser = world.services.rotations.run(rotation.id)
    assert loser is not None
    assert loser.state is RotationState.DONE
    assert world.states() == ["retired", "active"]
    check_versions(world.versions())


def test_a_worker_whose_claim_ran_out_does_not_fail_the_next_ones_rotation(world: World, key: None) -> None:
    request(world)
    _, _, rotation = world.queue.rotations.pop()

    def be_overtaken_and_fail() -> None:
        world.kms.hooks.clear()
        world.clock.advance(seconds=SWEEP.total_seconds() + 1)
        with world.store.transaction() as tx:
            assert tx.rotations.claim([rotation.id], world.clock.now(), timedelta(0))
        world.kms.fail_next(KmsIntegrityError("broken"))

    world.kms.hooks["GenerateDataKeyWithoutPlaintext"] = be_overtaken_and_fail
    with pytest.raises(KmsIntegrityError):
        world.services.rotations.run(rotation.id)
    assert world.rotation(rotation.id).state is RotationState.REQUESTED
    world.services.rotations.run(rotation.id)
    assert world.states() == ["retired", "active"]
