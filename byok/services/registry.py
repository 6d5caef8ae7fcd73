"""Registering tenants and keys, and changing their settings."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from byok.core.model import (
    AuditEvent,
    Check,
    Connection,
    Key,
    KeyVersion,
    KmsKeyArn,
    OpenWork,
    RoleArn,
    Rotation,
    RotationReason,
    Tenant,
    TenantEvent,
    TenantState,
    check_lease_ttl,
    check_name,
    check_rotation_period,
)
from byok.errors import ConnectionFixed, NotReady
from byok.ports import Clock, Kms, Random, Store
from byok.services.requests import Requested, RotationRequests
from byok.services.suspension import require_active


@dataclass(frozen=True, slots=True)
class KeyDetails:
    """A key with its versions and latest rotations."""

    tenant: Tenant
    key: Key
    versions: Sequence[KeyVersion]
    rotations: Sequence[Rotation]


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of checking a tenant's connection."""

    tenant: Tenant
    checks: Sequence[Check]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)


class Registry:
    """Tenants and keys."""

    def __init__(
        self, store: Store, kms: Kms, requests: RotationRequests, clock: Clock, random: Random
    ) -> None:
        self._store = store
        self._kms = kms
        self._requests = requests
        self._clock = clock
        self._random = random

    def add_tenant(self, name: str, *, actor: str) -> Tenant:
        """Register a tenant, pending, with an external id of its own.

        Raises:
            InvalidName, DuplicateTenant.
        """
        now = self._clock.now()
        tenant = Tenant(
            id=self._random.uuid(),
            name=check_name("tenant", name),
            state=TenantState.PENDING,
            external_id=f"byok-{secrets.token_urlsafe(24)}",  # 192 bits; AWS allows 2 to 1,224 characters
            created_at=now,
        )
        with self._store.transaction() as tx:
            tx.tenants.add(tenant)
            tx.audit.append(tenant.id, now, actor, "tenant.added", tenant=tenant.name)
        return tenant

    def verify_tenant(
        self,
        name: str,
        *,
        actor: str,
        kms_key_arn: str | None = None,
        role_arn: str | None = None,
    ) -> Verification:
        """Check a tenant's connection; a pending tenant whose checks all pass becomes active.

        The ARNs are needed the first time, and stored. An active or suspended tenant keeps its
        connection: another KMS key is a migration.

        Raises:
            UnknownTenant, InvalidArn, KmsKeyTaken, RoleTaken, ConnectionFixed, NotReady (no ARN known),
            KmsUnavailable.
        """
        with self._store.transaction() as tx:
            tenant = tx.tenants.get(name)
            if tenant.state is TenantState.PENDING and kms_key_arn is not None:
                tenant = replace(tenant, connection=_connection(tenant, kms_key_arn, role_arn))
                assert tenant.connection is not None
                tx.tenants.set_connection(tenant, tenant.connection)
        _require_same(tenant, kms_key_arn, role_arn)
        if tenant.connection is None:
            raise NotReady(
                f"tenant {name!r} has no KMS key yet",
                remedy=f"byok tenant verify {name} --kms-key-arn ARN --role-arn ARN",
            )
        checks = self._kms.check_connection(tenant.connection, tenant.id)
        verification = Verification(tenant, checks)
        action = "tenant.verified" if verification.passed else "tenant.verification-failed"
        now = self._clock.now()
        with self._store.transaction() as tx:
            if verification.passed and tenant.state is TenantState.PENDING:
                verification = replace(
                    verification, tenant=tx.tenants.transition(tenant, TenantEvent.VERIFY, now)
                )
            tx.audit.append(
                tenant.id, now, actor, action,
                kms_key_arn=str(tenant.connection.kms_key_arn),
                failed=", ".join(check.name for check in checks if not check.passed),
            )  # fmt: skip
        return verification

    def create_key(
        self,
        tenant_name: str,
        key_name: str,
        *,
        rotation_period: timedelta,
        lease_ttl: timedelta,
        actor: str,
    ) -> tuple[Key, Requested]:
        """Create a key and request its first version, which a worker generates.

        Raises:
            InvalidName, OutOfBounds, UnknownTenant, TenantNotActive, DuplicateKey.
        """
        now = self._clock.now()
        check_name("key", key_name)
        check_rotation_period(rotation_period)
        check_lease_ttl(lease_ttl)
        with self._store.transaction() as tx:
            tenant = tx.tenants.get(tenant_name)
            require_active(tenant)
            key = Key(self._random.uuid(), tenant.id, key_name, rotation_period, lease_ttl, now)
            tx.keys.add(key)
            tx.audit.append(
                tenant.id, now, actor, "key.created",
                key=key.name, rotation_period_seconds=int(rotation_period.total_seconds()),
                lease_ttl_seconds=int(lease_ttl.total_seconds()),
            )  # fmt: skip
            requested = self._requests.record_in(
                tx, tenant, key, RotationReason.INITIAL, actor, idempotency_key="initial"
            )
        self._requests.publish(OpenWork(tenant.name, key.name, requested.rotation))
        return key, requested

    def set_rotation(
        self,
        tenant_name: str,
        key_name: str,
        *,
        actor: str,
        rotation_period: timedelta | None = None,
        lease_ttl: timedelta | None = None,
        next_in: timedelta | None = None,
    ) -> Key:
        """Change a key's rotation period and cache TTL, or when its next rotation is due.

        A new period counts from the latest activation.

        Raises:
            OutOfBounds, UnknownTenant, UnknownKey.
        """
        now = self._clock.now()
        with self._store.transaction() as tx:
            tenant = tx.tenants.get(tenant_name)
            key = tx.keys.lock(tx.keys.get(tenant, key_name).id)
            active = tx.versions.find_active(key.id)
            period = check_rotation_period(rotation_period or key.rotation_period)
            due = _next_due(key, active, period, now, next_in)
            key = replace(
                key,
                rotation_period=period,
                lease_ttl=check_lease_ttl(key.lease_ttl if lease_ttl is None else lease_ttl),
                next_rotation_at=due,
            )
            tx.keys.update(
                key.id, rotation_period=period, lease_ttl=key.lease_ttl, next_rotation_at=key.next_rotation_at
            )
            tx.audit.append(
                tenant.id, now, actor, "key.rotation-set",
                key=key.name, rotation_period_seconds=int(period.total_seconds()),
                lease_ttl_seconds=int(key.lease_ttl.total_seconds()),
                next_rotation_at=None if due is None else due.isoformat(),
            )  # fmt: skip
        return key

    def list_tenants(self) -> Sequence[Tenant]:
        """All tenants, by name."""
        with self._store.transaction() as tx:
            return tx.tenants.list()

    def show_tenant(self, name: str) -> tuple[Tenant, Sequence[Key]]:
        """A tenant and its keys."""
        with self._store.transaction() as tx:
            tenant = tx.tenants.get(name)
            return tenant, tx.keys.list(tenant.id)

    def show_key(self, tenant_name: str, key_name: str) -> KeyDetails:
        """A key with its versions and its latest rotations."""
        with self._store.transaction() as tx:
            tenant = tx.tenants.get(tenant_name)
            key = tx.keys.get(tenant, key_name)
            return KeyDetails(tenant, key, tx.versions.list(key.id), tx.rotations.list(key.id, limit=20))

    def audit_log(self, tenant_name: str) -> Sequence[AuditEvent]:
        """A tenant's audit events, oldest first."""
        with self._store.transaction() as tx:
            return tx.audit.list(tx.tenants.get(tenant_name).id)


def _connection(tenant: Tenant, kms_key_arn: str, role_arn: str | None) -> Connection:
    role = None if role_arn is None else RoleArn.parse(role_arn)
    return Connection(KmsKeyArn.parse(kms_key_arn), tenant.external_id, role)


def _require_same(tenant: Tenant, kms_key_arn: str | None, role_arn: str | None) -> None:
    if tenant.connection is None:
        return
    stored_role = tenant.connection.role_arn
    if (kms_key_arn or str(tenant.connection.kms_key_arn)) != str(tenant.connection.kms_key_arn) or (
        role_arn is not None and role_arn != str(stored_role)
    ):
        raise ConnectionFixed(
            f"tenant {tenant.name!r} is connected to another KMS key or role",
            remedy="a verified tenant keeps its connection; moving to another KMS key is a migration",
        )


def _next_due(
    key: Key, active: KeyVersion | None, period: timedelta, now: datetime, next_in: timedelta | None
) -> datetime | None:
    if active is None or active.activated_at is None:
        return key.next_rotation_at
    if next_in is not None:
        return now + min(next_in, period)
    if period == key.rotation_period:
        return key.next_rotation_at
    return active.activated_at + period
