"""Rotations over a real PostgreSQL: exactly one new version a request, whatever happens in between."""

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa

from byok.core.audit import verify_chain
from byok.core.lifecycle import check_rotation, check_versions
from byok.core.model import (
    Job,
    RequestOutcome,
    Rotation,
    RotationReason,
    RotationState,
    TenantState,
)
from byok.errors import (
    GaveUp,
    IllegalTransition,
    KmsAccessRevoked,
    KmsIntegrityError,
    KmsUnavailable,
    NotReady,
    TenantNotActive,
    UnknownKey,
    UnknownTenant,
    ValidationFailed,
)
from byok.failpoints import FailPoint, arm, disarm
from byok.services.rotations import MAX_ATTEMPTS
from tests.world import SWEEP, World

FORCED = RotationReason.FORCED


def request(world: World, idempotency_key: str | None = None, reason: RotationReason = FORCED) -> str:
    requested = world.services.requests.request(
        "acme", "pii", reason=reason, requested_by="test", idempotency_key=idempotency_key
    )
    return str(requested.rotation.id)


@pytest.fixture
def key(world: World) -> None:
    world.add_tenant()
    world.add_key()


def test_first_version_is_generated_validated_and_active(world: World, key: None) -> None:
    (version,) = world.versions()
    assert version.state == "active"
    assert version.reason is RotationReason.INITIAL
    assert version.requested_by == "test"
    assert len(version.sealed_wrapped_key.iv) == 12
    assert version.kms_request_id
    assert version.kms_key_material_id == "material-1"
    assert [check.name for check in version.checks] == [
        "versions-are-consistent",
        "kms-key-is-usable",
        "record-opens",
        "kms-decrypts-under-stored-key",
        "secret-is-sound",
        "wrong-context-is-refused",
        "fingerprint",
        "canary",
        "previous-canary",
    ]
    assert world.audit_actions()[-4:] == [
        "rotation.requested",
        "version.generated",
        "version.validated",
        "version.activated",
    ]


def test_rotation_retires_the_old_version_and_old_tokens_still_open(world: World, key: None) -> None:
    cipher = world.services.vault.cipher("acme", "pii")
    old = cipher.encrypt(b"ada@example.com", context=b"users.email:1")
    request(world)
    world.run_published()
    assert world.states() == ["retired", "active"]
    world.clock.advance(seconds=6)
    new = cipher.encrypt(b"bob@example.com", context=b"users.email:2")
    assert old[1:5] == b"\x00\x00\x00\x01"
    assert new[1:5] == b"\x00\x00\x00\x02"
    assert cipher.decrypt(old, context=b"users.email:1") == b"ada@example.com"
    assert cipher.decrypt(new, context=b"users.email:2") == b"bob@example.com"


def test_compromise_marks_the_old_version_which_still_decrypts(world: World, key: None) -> None:
    cipher = world.services.vault.cipher("acme", "pii")
    token = cipher.encrypt(b"x", context=b"c")
    request(world, reason=RotationReason.COMPROMISE)
    world.run_published()
    assert world.states() == ["compromised", "active"]
    assert world.another_process().vault.cipher("acme", "pii").decrypt(token, context=b"c") == b"x"


def test_same_idempotency_key_never_rotates_twice(world: World, key: None) -> None:
    first = request(world, "deploy-7")
    world.run_published()
    again = world.services.requests.request(
        "acme", "pii", reason=FORCED, requested_by="test", idempotency_key="deploy-7"
    )
    assert str(again.rotation.id) == first
    assert again.outcome is RequestOutcome.REPEATED
    assert world.queue.rotations == []
    assert world.states() == ["retired", "active"]


def test_a_request_that_joined_gets_the_same_answer_when_it_is_repeated(world: World, key: None) -> None:
    first = request(world, "deploy-7")
    assert request(world, "deploy-8") == first
    world.run_published()
    for again in ("deploy-8", "deploy-7"):
        repeated = world.services.requests.request(
            "acme", "pii", reason=FORCED, requested_by="test", idempotency_key=again
        )
        assert (str(repeated.rotation.id), repeated.outcome) == (first, RequestOutcome.REPEATED)
    assert world.states() == ["retired", "active"]
    assert world.audit_actions().count("rotation.joined") == 1


@pytest.mark.parametrize("same", [True, False])
def test_requests_at_once_make_one_rotation(world: World, key: None, same: bool) -> None:
    """Several rounds, since it takes a moment to lose a race."""
    for round_ in range(5):
        start = threading.Barrier(6)
        outcomes: list[RequestOutcome] = []

        def ask(
            number: int, start: threading.Barrier = start, outcomes: Any = outcomes, n: int = round_
        ) -> None:
            services = world.another_process()
            start.wait()
            requested = services.requests.request(
                "acme", "pii", reason=FORCED, requested_by="test",
                idempotency_key=f"{n}" if same else f"{n}-{number}",
            )  # fmt: skip
            outcomes.append(requested.outcome)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        others = RequestOutcome.REPEATED if same else RequestOutcome.JOINED
        assert sorted(outcomes) == sorted([RequestOutcome.NEW] + [others] * 5)
        world.run_published()
    assert len(world.versions()) == 6


def test_a_compromise_that_joins_makes_the_open_rotation_one(world: World, key: None) -> None:
    first = request(world)
    _, _, rotation = world.queue.rotations[0]

    def report_a_compromise() -> None:
        world.kms.hooks.clear()
        joined = world.another_process().requests.request(
            "acme", "pii", reason=RotationReason.COMPROMISE, requested_by="security"
        )
        assert joined.joined
        assert str(joined.rotation.id) == first

    world.kms.hooks["Decrypt"] = report_a_compromise  # in the middle of it
    world.run_published()
    assert world.states() == ["compromised", "active"]
    assert world.rotation(rotation.id).reason is RotationReason.COMPROMISE


def test_request_joins_an_open_rotation(world: World, key: None) -> None:
    first = request(world)
    second = world.services.requests.request("acme", "pii", reason=FORCED, requested_by="other")
    assert second.joined
    assert str(second.rotation.id) == first
    assert len(world.queue.rotations) == 1


def test_running_a_done_rotation_again_changes_nothing(world: World, key: None) -> None:
    request(world)
    _, _, rotation = world.queue.rotations[0]
    world.run_published()
    before = world.versions()
    assert world.services.rotations.run(rotation.id) is None
    assert world.versions() == before


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


class Killed(BaseException):
    """What a SIGKILL is to the process: no handler of ours runs."""


def die() -> None:
    raise Killed


RUNNING = [
    FailPoint.CLAIMED,
    FailPoint.KMS_GENERATED,
    FailPoint.GENERATED,
    FailPoint.GATE_PASSED,
    FailPoint.VALIDATED,
    FailPoint.PROMOTING,
    FailPoint.PROMOTED,
]


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    disarm()


def pass_time(world: World, sweeps: float) -> None:
    world.clock.advance(seconds=SWEEP.total_seconds() * sweeps)


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


def test_a_claim_that_another_took_is_not_renewed(world: World, key: None) -> None:
    request(world)
    _, _, rotation = world.queue.rotations.pop()
    claimed = world.services.claims.take(rotation.id)
    assert claimed is not None
    pass_time(world, sweeps=1)
    taken = world.another_process().claims.take(rotation.id)
    assert taken is not None
    with world.store.transaction() as tx:
        tx.rotations.renew([claimed], world.clock.now() + timedelta(hours=1))
    pass_time(world, sweeps=1)
    assert world.another_process().claims.take(rotation.id) is not None


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


def test_outage_gives_the_rotation_back_and_it_is_tried_again(world: World, key: None) -> None:
    request(world)
    world.kms.fail_next(KmsUnavailable("ThrottlingException"))
    with pytest.raises(KmsUnavailable):
        world.run_published()
    assert world.tenant().state is TenantState.ACTIVE
    world.clock.advance(minutes=6)
    assert world.services.scheduling.sweep() == 1
    world.run_published()
    assert world.states() == ["retired", "active"]


def test_endless_outage_ends_in_a_failed_rotation_with_a_reason(world: World, key: None) -> None:
    rotation_id = request(world)
    world.kms.fail_next(KmsUnavailable("ThrottlingException"), times=MAX_ATTEMPTS)
    for _ in range(MAX_ATTEMPTS):
        with pytest.raises(KmsUnavailable):
            world.run_published()
        world.clock.advance(minutes=6)
        world.services.scheduling.sweep()
    (failed,) = [one for one in world.show().rotations if str(one.id) == rotation_id]
    assert failed.state is RotationState.FAILED
    assert failed.failure == "kms-unavailable: ThrottlingException"
    assert world.states() == ["active"]


def test_revocation_suspends_the_tenant_with_evidence_and_fails_the_rotation(world: World, key: None) -> None:
    request(world)
    world.kms.disable(world.versions()[0].kms_key_arn)
    with pytest.raises(KmsAccessRevoked):
        world.run_published()
    tenant = world.tenant()
    assert tenant.state is TenantState.SUSPENDED
    assert tenant.suspension is not None
    assert tenant.suspension.aws_code == "DisabledException"
    assert tenant.suspension.request_id.startswith("request-")
    assert world.show().rotations[0].state is RotationState.FAILED
    with pytest.raises(TenantNotActive):
        request(world)


def test_revocation_after_generation_rejects_the_pending_version(world: World, key: None) -> None:
    request(world)
    arn = world.versions()[0].kms_key_arn
    world.kms.hooks["DescribeKey"] = lambda: world.kms.disable(arn)
    with pytest.raises((KmsAccessRevoked, ValidationFailed)):
        world.run_published()
    assert world.states() == ["active", "rejected"]


def test_failed_validation_rejects_the_version_and_keeps_the_old_one(world: World, key: None) -> None:
    rotation_id = request(world)
    world.kms.hooks["Decrypt"] = lambda: world.kms.fail_next(KmsIntegrityError("InvalidCiphertextException"))
    with pytest.raises(ValidationFailed, match="kms-decrypts-under-stored-key"):
        world.run_published()
    assert world.states() == ["active", "rejected"]
    rejected = world.versions()[1]
    assert any(not check.passed for check in rejected.checks)
    assert rejected.activated_at is None
    world.kms.hooks.clear()
    request(world)
    world.run_published()
    assert world.states() == ["retired", "rejected", "active"]
    (failed,) = [one for one in world.show().rotations if str(one.id) == rotation_id]
    assert failed.failure is not None
    assert failed.failure.startswith("validation-failed")


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


def test_unknown_tenant_and_key_change_nothing(world: World, key: None) -> None:
    with pytest.raises(UnknownTenant):
        world.services.requests.request("nobody", "pii", reason=FORCED, requested_by="test")
    with pytest.raises(UnknownKey):
        world.services.requests.request("acme", "nothing", reason=FORCED, requested_by="test")
    assert world.queue.rotations == []


def test_audit_chain_stays_whole_under_concurrent_rotations(world: World, key: None) -> None:
    world.add_key("acme", "cards")
    for name in ("pii", "cards"):
        world.services.requests.request("acme", name, reason=FORCED, requested_by="test")
    threads = [
        threading.Thread(target=world.another_process().rotations.run, args=(rotation.id,))
        for _, _, rotation in world.queue.rotations
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = world.services.registry.audit_log("acme")
    assert verify_chain(events) == len(events)
    assert sum(event.action == "version.activated" for event in events) == 4


def test_poison_ends_as_failed_with_its_reason_is_counted_and_can_be_retried(world: World, key: None) -> None:
    rotation_id = request(world)
    world.kms.hooks["GenerateDataKeyWithoutPlaintext"] = die
    for _ in range(MAX_ATTEMPTS):
        with pytest.raises(Killed):
            world.run_published()
        pass_time(world, sweeps=1)
        assert world.services.scheduling.sweep() == 1
    with pytest.raises(GaveUp, match="8 attempts came to no end"):
        world.run_published()
    (failed,) = world.services.observer.overview().failed
    assert (str(failed.rotation.id), failed.tenant, failed.key) == (rotation_id, "acme", "pii")
    assert failed.rotation.failure == "gave-up: 8 attempts came to no end"
    assert world.metrics.counts["ended", "forced", "failed"] == 1
    assert world.metrics.counts["found", "republished"] == MAX_ATTEMPTS
    world.kms.hooks.clear()
    retried = world.services.requests.retry(failed.rotation.id, requested_by="operator")
    assert retried.outcome is RequestOutcome.NEW
    world.run_published()
    again = world.services.requests.retry(failed.rotation.id, requested_by="operator")
    assert (again.outcome, again.rotation.id) == (RequestOutcome.REPEATED, retried.rotation.id)
    assert world.states() == ["retired", "active"]
    assert world.services.observer.overview().failed == []
    with pytest.raises(NotReady, match="only a failed one is retried"):
        world.services.requests.retry(retried.rotation.id, requested_by="operator")


def test_a_bug_of_ours_is_tried_again_and_named_without_its_text(world: World, key: None) -> None:
    def break_down() -> None:
        raise ZeroDivisionError("something secret")

    request(world)
    world.kms.hooks["GenerateDataKeyWithoutPlaintext"] = break_down
    for _ in range(MAX_ATTEMPTS):
        with pytest.raises(ZeroDivisionError):
            world.run_published()
        world.clock.advance(minutes=6)
        assert world.services.scheduling.sweep() == 1
    assert world.metrics.counts["tried-again", "unexpected"] == MAX_ATTEMPTS
    with pytest.raises(GaveUp):
        world.run_published()
    failure = world.show().rotations[0].failure
    assert failure == "gave-up: 8 attempts came to no end; the last: unexpected: ZeroDivisionError"


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


def test_a_tick_runs_once_a_period_however_many_beats_there_are(world: World, key: None) -> None:
    beats = [world.another_process().scheduling for _ in range(2)]
    ran = [[beat.tick(Job.PROBE) is not None for beat in beats]]
    world.clock.advance(minutes=4)
    ran += [[beat.tick(Job.PROBE) is not None for beat in beats]]
    world.clock.advance(minutes=1)
    ran += [[beat.tick(Job.PROBE) is not None for beat in beats]]
    assert ran == [[True, False], [False, False], [True, False]]
    assert len(world.queue.probes) == 2


def test_a_tick_whose_worker_died_is_made_up_for_after_a_minute(world: World, key: None) -> None:
    scheduling = world.services.scheduling
    with world.store.transaction() as tx:
        assert tx.ticks.begin(Job.VALIDATE, world.clock.now(), timedelta(days=1))  # and dies
    assert scheduling.tick(Job.VALIDATE) is None
    world.clock.advance(seconds=61)
    assert scheduling.tick(Job.VALIDATE) == 1
    world.clock.advance(hours=2)
    assert scheduling.tick(Job.VALIDATE) is None
    world.clock.advance(days=-7)  # and a clock that went back does not silence it for a week
    assert scheduling.tick(Job.VALIDATE) == 1


def test_a_worker_whose_claim_ran_out_does_not_fail_the_next_ones_rotation(world: World, key: None) -> None:
    request(world)
    _, _, rotation = world.queue.rotations.pop()

    def be_overtaken_and_fail() -> None:
        world.kms.hooks.clear()
        world.clock.advance(seconds=SWEEP.total_seconds() + 1)
        with world.store.transaction() as tx:
            assert tx.rotations.claim(rotation.id, world.clock.now(), timedelta(0)) is not None
        world.kms.fail_next(KmsIntegrityError("broken"))

    world.kms.hooks["GenerateDataKeyWithoutPlaintext"] = be_overtaken_and_fail
    with pytest.raises(KmsIntegrityError):
        world.services.rotations.run(rotation.id)
    assert world.rotation(rotation.id).state is RotationState.REQUESTED
    world.services.rotations.run(rotation.id)
    assert world.states() == ["retired", "active"]
