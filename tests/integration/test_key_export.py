"""What an export holds, what stops it, and that the audit log has it before anybody else."""

import base64
import json
import os
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from byok.core.key_export import export_associated_data, tink_kms_context
from byok.core.model import RotationReason, TenantState
from byok.crypto.hazmat import SecretBytes
from byok.crypto.keysets import KeysetInfo, read_keyset_info, serialize_keyset
from byok.errors import (
    KmsAccessRevoked,
    KmsIntegrityError,
    KmsUnavailable,
    LostRace,
    NotReady,
    TenantNotActive,
    UnknownKey,
)
from byok.services import key_export
from byok.services.key_export import Exported, ExportNotAllowed
from tests.needles import spellings
from tests.world import World, kms_key_arn

pytest.importorskip("tink")


@pytest.fixture
def secrets(world: World) -> list[bytes]:
    """Those of the first three versions of ``pii``, of a tenant that is active."""
    world.add_tenant()
    made = [os.urandom(32) for _ in range(3)]
    world.kms.secrets = list(made)
    world.add_key()
    return made


def rotate(world: World, reason: RotationReason = RotationReason.FORCED) -> None:
    world.services.requests.request("acme", "pii", reason=reason, requested_by="test")
    world.run_published()


def export(world: World, **options: Any) -> Exported:
    return world.services.key_exporter.export("acme", "pii", actor="cli:eve", **options)


def keysets(world: World, exported: Exported) -> list[Any]:
    """What the customer's KMS key opens: Tink's keysets."""
    from tink.proto import tink_pb2

    connection = world.tenant().connection
    assert connection is not None
    opened = []
    for keyset in exported.keysets:
        encrypted = base64.b64decode(json.loads(keyset.document)["encryptedKeyset"])
        unwrapped = world.kms.decrypt(connection, encrypted, tink_kms_context(exported.associated_data))
        with unwrapped.secret.borrow() as raw:
            opened.append(tink_pb2.Keyset.FromString(bytes(raw)))
    return opened


def exported_secrets(world: World, exported: Exported) -> dict[int, bytes]:
    from tink.proto import x_aes_gcm_pb2

    return {
        key.key_id: x_aes_gcm_pb2.XAesGcmKey.FromString(key.key_data.value).key_value
        for keyset in keysets(world, exported)
        for key in keyset.key
    }


def events(world: World) -> list[dict[str, Any]]:
    log = world.services.registry.audit_log("acme")
    return [dict(event.details) for event in log if event.action == "key.exported"]


def test_it_holds_the_versions_that_decrypt_and_the_active_one_encrypts(
    world: World, secrets: list[bytes]
) -> None:
    rotate(world)
    rotate(world, RotationReason.COMPROMISE)
    assert world.states() == ["retired", "compromised", "active"]
    exported = export(world)
    assert exported_secrets(world, exported) == dict(enumerate(secrets, start=1))
    (keyset,) = exported.keysets
    assert (exported.active, list(keyset.versions)) == (3, [1, 2, 3])
    assert read_keyset_info(keyset.document) == KeysetInfo(frozenset({1, 2, 3}), 3)
    tenant, key = world.tenant(), world.show().key
    assert exported.associated_data == export_associated_data(tenant.id, key.id)


def test_what_is_pending_below_the_floor_or_destroyed_stays_out(world: World, secrets: list[bytes]) -> None:
    for _ in range(3):
        rotate(world)
    destruction = world.services.destruction
    destruction.set_floor("acme", "pii", 3, actor="test")
    destruction.destroy("acme", "pii", 1, actor="test", unused_for=timedelta(0), force=True)
    # A fifth that is generated and not yet validated.
    world.kms.hooks["Decrypt"] = lambda: world.kms.fail_next(KmsUnavailable("not now"))
    with pytest.raises(KmsUnavailable):
        rotate(world)
    world.kms.hooks.clear()
    assert world.states() == ["destroyed", "retired", "retired", "active", "pending"]
    assert sorted(exported_secrets(world, export(world))) == [3, 4]


def test_beyond_one_kms_encrypt_there_are_several_each_with_the_active_version(
    world: World, secrets: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("byok.core.key_export.VERSIONS_PER_KEYSET", 2)
    rotate(world)
    rotate(world)
    seen: list[tuple[int, int]] = []
    exported = export(world, on_version=lambda count, total: seen.append((count, total)))
    assert [list(keyset.versions) for keyset in exported.keysets] == [[1, 3], [2, 3]]
    assert [keyset.primary_key_id for keyset in keysets(world, exported)] == [3, 3]
    assert exported_secrets(world, exported) == dict(enumerate(secrets, start=1))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert world.kms.count("Encrypt") == 2


def test_the_audit_log_says_who_took_what(world: World, secrets: list[bytes]) -> None:
    rotate(world)
    exported = export(world)
    (event,) = events(world)
    assert event == {
        "key": "pii",
        "versions": "1-2",
        "active": 2,
        "kms_key_arn": exported.kms_key_arn,
        "keysets": 1,
        "kms_request_ids": exported.keysets[0].request_id,
    }
    last = world.services.registry.audit_log("acme")[-1]
    assert (last.action, last.actor) == ("key.exported", "cli:eve")


def test_without_its_audit_event_there_is_no_export(
    world: World, secrets: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **details: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("byok.store.audit.AuditTable.append", broken)
    with pytest.raises(OSError, match="no space left"):
        export(world)
    assert world.kms.count("Encrypt") == 1


def test_a_suspended_tenant_exports_nothing_and_its_kms_is_not_asked(
    world: World, secrets: list[bytes]
) -> None:
    world.services.kill_switch.suspend("acme", reason="customer called", actor="test")
    world.kms.calls.clear()
    with pytest.raises(TenantNotActive, match="customer called"):
        export(world)
    assert world.kms.calls == []
    assert events(world) == []


def test_a_tenant_that_is_stopped_meanwhile_gets_nothing(world: World, secrets: list[bytes]) -> None:
    def stop() -> None:
        world.services.kill_switch.suspend("acme", reason="customer called", actor="test")

    world.kms.hooks["Encrypt"] = stop
    with pytest.raises(TenantNotActive):
        export(world)
    assert events(world) == []


def test_a_rotation_meanwhile_makes_it_begin_again(world: World, secrets: list[bytes]) -> None:
    def rotated() -> None:
        world.kms.hooks.clear()
        rotate(world)

    world.kms.hooks["Encrypt"] = rotated
    with pytest.raises(LostRace) as lost:
        export(world)
    assert lost.value.remedy == "do this again"
    assert events(world) == []
    assert sorted(exported_secrets(world, export(world))) == [1, 2]


def test_another_kms_key_meanwhile_makes_it_begin_again(
    world: World, engine: sa.Engine, secrets: list[bytes]
) -> None:
    def moved() -> None:
        with engine.begin() as connection:
            connection.execute(sa.text("UPDATE tenants SET kms_key_arn = :arn"), {"arn": kms_key_arn(7)})

    world.kms.hooks["Encrypt"] = moved
    with pytest.raises(LostRace, match="another KMS key"):
        export(world)
    assert events(world) == []


def test_a_customer_that_does_not_allow_it_is_told_what_to_add_and_not_suspended(
    world: World, secrets: list[bytes]
) -> None:
    def refuse() -> None:
        raise KmsAccessRevoked("Encrypt: AccessDeniedException", aws_code="AccessDeniedException")

    world.kms.hooks["Encrypt"] = refuse
    with pytest.raises(ExportNotAllowed) as refused:
        export(world)
    assert "byok tenant policy acme --for export --key pii" in (refused.value.remedy or "")
    assert refused.value.exit_code == 9
    assert world.tenant().state is TenantState.ACTIVE
    assert events(world) == []


def test_a_kms_key_that_is_disabled_just_then_is_not_called_a_missing_right(
    world: World, secrets: list[bytes]
) -> None:
    (arn,) = world.kms.keys
    world.kms.hooks["Encrypt"] = lambda: world.kms.disable(arn)
    with pytest.raises(KmsAccessRevoked) as refused:
        export(world)
    assert refused.value.aws_code == "DisabledException"
    assert world.tenant().state is TenantState.ACTIVE  # until a Decrypt is refused: the probe's


def test_a_refused_decrypt_is_the_revocation_that_it_is_anywhere(world: World, secrets: list[bytes]) -> None:
    (arn,) = world.kms.keys
    world.kms.disable(arn)
    with pytest.raises(KmsAccessRevoked):
        export(world)
    assert world.tenant().state is TenantState.SUSPENDED
    assert world.kms.count("Encrypt") == 0


def test_a_kms_that_gives_another_secret_is_not_believed(
    world: World, secrets: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("byok.services.access.fingerprint", lambda _: bytes(32))
    with pytest.raises(KmsIntegrityError):
        export(world)
    assert world.kms.count("Encrypt") == 0


def test_an_unknown_key_and_one_without_a_version(world: World, secrets: list[bytes]) -> None:
    with pytest.raises(UnknownKey):
        world.services.key_exporter.export("acme", "nothing", actor="test")
    world.services.registry.create_key(
        "acme", "fresh", rotation_period=None, lease_ttl=world.show().key.lease_ttl, actor="test"
    )
    with pytest.raises(NotReady):
        world.services.key_exporter.export("acme", "fresh", actor="test")


@pytest.mark.parametrize("fails", [False, True])
def test_what_was_in_clear_is_wiped_however_it_ends(
    world: World, secrets: list[bytes], monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    held: list[SecretBytes] = []

    def serialize(given: dict[int, SecretBytes], primary: int) -> SecretBytes:
        made = original(given, primary)
        held.extend([*given.values(), made])
        return made

    original = serialize_keyset
    monkeypatch.setattr(key_export, "serialize_keyset", serialize)
    if fails:
        world.kms.hooks["Encrypt"] = lambda: world.kms.fail_next(KmsUnavailable("not now"))
        with pytest.raises(KmsUnavailable):
            export(world)
    else:
        export(world)
    assert len(held) == 2
    assert [len(one) for one in held] == [0, 0]


def test_no_secret_is_in_what_comes_out(
    world: World, secrets: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    exported = export(world)
    told = repr(exported) + json.dumps([keyset.document for keyset in exported.keysets]) + caplog.text
    told += repr(world.services.registry.audit_log("acme"))
    for name, spelling in spellings("secret", secrets[0]).items():
        assert spelling not in told.encode(), name
