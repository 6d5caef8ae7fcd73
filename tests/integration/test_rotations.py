"""Rotations over a real PostgreSQL: exactly one new version a request, whatever happens in between."""

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest

from byok.core.audit import verify_chain
from byok.core.lifecycle import check_versions
from byok.core.model import RotationReason, RotationState, TenantState
from byok.errors import (
    GaveUp,
    KmsAccessRevoked,
    KmsIntegrityError,
    KmsUnavailable,
    TenantNotActive,
    UnknownKey,
    UnknownTenant,
    ValidationFailed,
)
from byok.services.rotations import CLAIM_SECONDS, MAX_ATTEMPTS, PUBLISH_GRACE_SECONDS
from tests.world import World

FORCED = RotationReason.FORCED


def request(world: World, idempotency_key: str | None = None, reason: RotationReason = FORCED) -> str:
    requested = world.services.rotations.request(
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
    again = world.services.rotations.request(
        "acme", "pii", reason=FORCED, requested_by="test", idempotency_key="deploy-7"
    )
    assert str(again.rotation.id) == first
    assert again.joined
    assert world.queue.rotations == []
    assert world.states() == ["retired", "active"]


def test_request_joins_an_open_rotation(world: World, key: None) -> None:
    first = request(world)
    second = world.services.rotations.request("acme", "pii", reason=FORCED, requested_by="other")
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
    world.clock.advance(seconds=PUBLISH_GRACE_SECONDS + 1)
    assert world.services.scheduling.sweep() == 1
    assert world.services.scheduling.sweep() == 0
    world.run_published()
    assert world.states() == ["retired", "active"]


@pytest.mark.parametrize("dies_in", ["GenerateDataKeyWithoutPlaintext", "Decrypt", "DescribeKey"])
def test_a_worker_that_dies_is_followed_by_another(world: World, key: None, dies_in: str) -> None:
    class Killed(BaseException):
        pass

    def die() -> None:
        raise Killed

    request(world)
    _, _, rotation = world.queue.rotations.pop()
    world.kms.hooks[dies_in] = die
    with pytest.raises(Killed):
        world.services.rotations.run(rotation.id)
    world.kms.hooks.clear()
    assert world.services.rotations.run(rotation.id) is None  # the claim of the dead holds for a while
    world.clock.advance(seconds=CLAIM_SECONDS + 1)
    assert world.services.scheduling.sweep() == 1
    world.run_published()
    assert world.states() == ["retired", "active"]
    check_versions(world.versions())


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
        world.clock.advance(seconds=CLAIM_SECONDS + 1)
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
        world.services.rotations.request("nobody", "pii", reason=FORCED, requested_by="test")
    with pytest.raises(UnknownKey):
        world.services.rotations.request("acme", "nothing", reason=FORCED, requested_by="test")
    assert world.queue.rotations == []


def test_audit_chain_stays_whole_under_concurrent_rotations(world: World, key: None) -> None:
    world.add_key("acme", "cards")
    for name in ("pii", "cards"):
        world.services.rotations.request("acme", name, reason=FORCED, requested_by="test")
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


def test_a_rotation_that_kills_its_workers_is_given_up(world: World, key: None) -> None:
    class Killed(BaseException):
        pass

    def die() -> None:
        raise Killed

    request(world)
    _, _, rotation = world.queue.rotations.pop()
    world.kms.hooks["GenerateDataKeyWithoutPlaintext"] = die
    for _ in range(MAX_ATTEMPTS):
        with pytest.raises(Killed):
            world.services.rotations.run(rotation.id)
        world.clock.advance(seconds=CLAIM_SECONDS + 1)
    with pytest.raises(GaveUp):
        world.services.rotations.run(rotation.id)
    assert world.rotation(rotation.id).state is RotationState.FAILED


def test_a_worker_whose_claim_ran_out_does_not_fail_the_next_ones_rotation(world: World, key: None) -> None:
    request(world)
    _, _, rotation = world.queue.rotations.pop()

    def be_overtaken_and_fail() -> None:
        world.kms.hooks.clear()
        world.clock.advance(seconds=CLAIM_SECONDS + 1)
        with world.store.transaction() as tx:
            assert tx.rotations.claim(rotation.id, world.clock.now(), world.clock.now()) is not None
        world.kms.fail_next(KmsIntegrityError("broken"))

    world.kms.hooks["GenerateDataKeyWithoutPlaintext"] = be_overtaken_and_fail
    with pytest.raises(KmsIntegrityError):
        world.services.rotations.run(rotation.id)
    assert world.rotation(rotation.id).state is RotationState.REQUESTED
    world.services.rotations.run(rotation.id)
    assert world.states() == ["retired", "active"]
