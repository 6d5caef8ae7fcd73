"""Between rows and the model."""

from datetime import timedelta
from typing import Any

from sqlalchemy import Row

from byok.core.arns import KmsKeyArn, RoleArn
from byok.core.model import (
    AuditEvent,
    Check,
    Connection,
    IndexVersions,
    Job,
    Key,
    KeyVersion,
    KmsKeyRotation,
    Rotation,
    RotationReason,
    RotationSource,
    RotationState,
    SealedBox,
    Suspension,
    SuspensionKind,
    Tenant,
    TenantState,
    Tick,
    VersionState,
)


def to_tenant(row: Row[Any]) -> Tenant:
    """A row of ``tenants``."""
    connection = suspension = None
    if row.kms_key_arn is not None:
        role_arn = None if row.role_arn is None else RoleArn.parse(row.role_arn)
        connection = Connection(
            row.id, KmsKeyArn.parse(row.kms_key_arn), row.external_id, role_arn, tenant_name=row.name
        )
    if row.suspended_at is not None:
        suspension = Suspension(
            row.suspended_reason,
            row.suspended_at,
            SuspensionKind(row.suspended_kind),
            row.suspended_aws_code,
            row.suspended_request_id,
        )
    return Tenant(
        id=row.id,
        name=row.name,
        state=TenantState(row.state),
        external_id=row.external_id,
        created_at=row.created_at,
        generation=row.generation,
        connection=connection,
        verified_at=row.verified_at,
        suspension=suspension,
        kms_key_rotation=KmsKeyRotation(
            row.rotation_tag_days, row.kms_key_rotation_days, row.kms_key_material_id
        ),
        synced_at=row.synced_at,
        outage_wait=timedelta(seconds=row.outage_wait_seconds),
        kms_key_rotation_on_at=row.kms_key_rotation_on_at,
        looked_at=row.looked_at,
        webhook_url=row.webhook_url,
    )


def from_suspension(suspension: Suspension | None) -> dict[str, object]:
    """The columns of a suspension, or of none."""
    return {
        "suspended_at": suspension and suspension.since,
        "suspended_kind": suspension and suspension.kind,
        "suspended_reason": suspension and suspension.reason,
        "suspended_aws_code": suspension and suspension.aws_code,
        "suspended_request_id": suspension and suspension.request_id,
    }


def from_connection(connection: Connection | None) -> dict[str, str | None]:
    """The columns that say how a tenant is reached."""
    role = None if connection is None else connection.role_arn
    return {
        "kms_key_arn": None if connection is None else str(connection.kms_key_arn),
        "role_arn": None if role is None else str(role),
    }


def to_key(row: Row[Any]) -> Key:
    """A row of ``keys``."""
    return Key(
        id=row.id,
        tenant_id=row.tenant_id,
        name=row.name,
        rotation_period=timedelta(seconds=row.rotation_period_seconds),
        lease_ttl=timedelta(seconds=row.lease_ttl_seconds),
        created_at=row.created_at,
        next_rotation_at=row.next_rotation_at,
        rotation_setting=(
            None if row.rotation_setting_seconds is None else timedelta(seconds=row.rotation_setting_seconds)
        ),
        rotation_source=RotationSource(row.rotation_source),
        index=(
            None
            if row.index_version_number is None
            else IndexVersions(row.index_version_number, row.other_index_version_number)
        ),
        decryption_floor=row.decryption_floor,
        decryption_floor_set_at=row.decryption_floor_set_at,
    )


def from_index(index: IndexVersions | None) -> dict[str, int | None]:
    """The columns that say what a key's blind indexes rest on."""
    return {
        "index_version_number": None if index is None else index.current,
        "other_index_version_number": None if index is None else index.other,
    }


def from_key(key: Key) -> dict[str, object]:
    """The row of a key, without its blind indexes and its decryption floor, which are set by themselves."""
    setting = key.rotation_setting
    return {
        "id": key.id,
        "tenant_id": key.tenant_id,
        "name": key.name,
        "rotation_period_seconds": int(key.rotation_period.total_seconds()),
        "rotation_setting_seconds": None if setting is None else int(setting.total_seconds()),
        "rotation_source": key.rotation_source,
        "lease_ttl_seconds": int(key.lease_ttl.total_seconds()),
        "created_at": key.created_at,
        "next_rotation_at": key.next_rotation_at,
    }


def to_version(row: Row[Any]) -> KeyVersion:
    """A row of ``key_versions``."""
    return KeyVersion(
        key_id=row.key_id,
        number=row.number,
        state=VersionState(row.state),
        sealed_wrapped_key=SealedBox(row.master_key_id or "", row.iv or b"", row.encrypted_key or b""),
        kms_key_arn=KmsKeyArn.parse(row.kms_key_arn),
        kms_request_id=row.kms_request_id,
        kms_key_material_id=row.kms_key_material_id,
        rotation_id=row.rotation_id,
        reason=RotationReason(row.reason),
        requested_by=row.requested_by,
        requested_at=row.requested_at,
        generated_at=row.generated_at,
        fingerprint=row.fingerprint,
        canary=row.canary,
        checks=tuple(Check(**check) for check in row.checks),
        validated_at=row.validated_at,
        activated_at=row.activated_at,
        retired_at=row.retired_at,
        ended_at=row.ended_at,
    )


def from_version(version: KeyVersion) -> dict[str, object]:
    """The row of a version."""
    return {
        "key_id": version.key_id,
        "number": version.number,
        "state": version.state,
        "encrypted_key": version.sealed_wrapped_key.body or None,
        "iv": version.sealed_wrapped_key.iv or None,
        "master_key_id": version.sealed_wrapped_key.master_key_id or None,
        "kms_key_arn": str(version.kms_key_arn),
        "kms_request_id": version.kms_request_id,
        "kms_key_material_id": version.kms_key_material_id,
        "rotation_id": version.rotation_id,
        "reason": version.reason,
        "requested_by": version.requested_by,
        "requested_at": version.requested_at,
        "generated_at": version.generated_at,
        "fingerprint": version.fingerprint,
        "canary": version.canary,
        "checks": from_checks(version.checks),
        "validated_at": version.validated_at,
        "activated_at": version.activated_at,
        "retired_at": version.retired_at,
        "ended_at": version.ended_at,
    }


def from_checks(checks: tuple[Check, ...]) -> list[dict[str, object]]:
    """A validation report as JSON."""
    return [{"name": check.name, "passed": check.passed, "detail": check.detail} for check in checks]


def to_rotation(row: Row[Any]) -> Rotation:
    """A row of ``rotations``."""
    return Rotation(
        id=row.id,
        key_id=row.key_id,
        reason=RotationReason(row.reason),
        state=RotationState(row.state),
        requested_by=row.requested_by,
        requested_at=row.requested_at,
        attempts=row.attempts,
        deferrals=row.deferrals,
        version_number=row.version_number,
        failure=row.failure,
        finished_at=row.finished_at,
    )


def to_tick(row: Row[Any]) -> Tick:
    """A row of ``ticks``."""
    return Tick(Job(row.job), row.began_at, row.ended_at)


def to_audit_event(row: Row[Any]) -> AuditEvent:
    """A row of ``audit_events``."""
    return AuditEvent(
        tenant_id=row.tenant_id,
        sequence=row.sequence,
        at=row.at,
        actor=row.actor,
        action=row.action,
        details=row.details,
        previous_hash=row.previous_hash,
        hash=row.hash,
    )


def from_audit_event(event: AuditEvent) -> dict[str, object]:
    """The row of an audit event."""
    return {
        "tenant_id": event.tenant_id,
        "sequence": event.sequence,
        "at": event.at,
        "actor": event.actor,
        "action": event.action,
        "details": event.details,
        "previous_hash": event.previous_hash,
        "hash": event.hash,
    }
