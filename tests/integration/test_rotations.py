"""Rotations over a real PostgreSQL: how they end, well or badly."""

import threading

import pytest

from byok.core.audit import verify_chain
from byok.core.model import (
    RotationReason,
    RotationState,
    TenantState,
)
from byok.errors import (
    GaveUp,
    KmsAccessRevoked,
    KmsIntegrityError,
    KmsUnavailable,
    TenantNotActive,
    ValidationFailed,
)
from byok.services.setbacks import MAX_ATTEMPTS
from tests.integration.acts import FORCED, request
from tests.world import World


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


def test_running_a_done_rotation_again_changes_nothing(world: World, key: None) -> None:
    request(world)
    _, _, rotation = world.queue.rotations[0]
    world.run_published()
    before = world.versions()
    assert world.services.rotations.run(rotation.id) is None
    assert world.versions() == before


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
