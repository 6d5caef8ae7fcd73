"""Tenants and keys: creating keys, changing their settings, showing what there is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from byok.core.bounds import check_lease_ttl, check_name, check_outage_wait, check_rotation_period
from byok.core.model import (
    AuditEvent,
    Key,
    KeyVersion,
    OpenWork,
    Rotation,
    RotationReason,
    Tenant,
)
from byok.core.rotation_period import resolve_rotation_period
from byok.core.usage import VersionUsage
from byok.core.webhooks import check_url, host_of
from byok.ports import Clock, Random, Store
from byok.services.requests import Requested, RotationRequests
from byok.services.suspension import require_active, require_present


@dataclass(frozen=True, slots=True)
class KeyDetails:
    """A key with its versions, their usage by number, and its latest rotations."""

    tenant: Tenant
    key: Key
    versions: Sequence[KeyVersion]
    rotations: Sequence[Rotation]
    usage: Mapping[int, VersionUsage]


class Registry:
    """Tenants and keys. ``longest`` is the vendor's bound on every rotation period."""

    def __init__(
        self, store: Store, requests: RotationRequests, clock: Clock, random: Random, longest: timedelta
    ) -> None:
        self._store = store
        self._requests = requests
        self._clock = clock
        self._random = random
        self._longest = longest

    def create_key(
        self,
        tenant_name: str,
        key_name: str,
        *,
        rotation_period: timedelta | None,
        lease_ttl: timedelta,
        actor: str,
    ) -> tuple[Key, Requested]:
        """Create a key and request its first version, which a worker generates.

        ``rotation_period`` counts where the customer's KMS key says nothing; None leaves it to the default.

        Raises:
            InvalidName, OutOfBounds, UnknownTenant, TenantNotActive, DuplicateKey.
        """
        now = self._clock.now()
        check_name("key", key_name)
        if rotation_period is not None:
            check_rotation_period(rotation_period)
        check_lease_ttl(lease_ttl)
        with self._store.transaction() as tx:
            tenant = tx.tenants.get(tenant_name)
            require_active(tenant)
            period, source = resolve_rotation_period(rotation_period, tenant.kms_key_rotation, self._longest)
            key = Key(
                self._random.uuid(), tenant.id, key_name, period, lease_ttl, now,
                rotation_setting=rotation_period, rotation_source=source,
            )  # fmt: skip
            tx.keys.add(key)
            tx.tenants.probe_by(tenant.id, now + lease_ttl / 2)
            tx.audit.append(
                tenant.id, now, actor, "key.created",
                key=key.name, rotation_period_seconds=int(period.total_seconds()), source=source.value,
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

        A new period counts from the latest activation. One that the customer's KMS key asks for goes
        before it: see ``rotation_source`` of what is returned.

        Raises:
            OutOfBounds, UnknownTenant, UnknownKey; TenantNotActive: it has left.
        """
        now = self._clock.now()
        with self._store.transaction() as tx:
            tenant = tx.tenants.get(tenant_name)
            require_present(tenant)
            key = tx.keys.lock(tx.keys.get(tenant, key_name).id)
            active = tx.versions.find_active(key.id)
            if rotation_period is not None:
                key = replace(key, rotation_setting=check_rotation_period(rotation_period))
            period, source = resolve_rotation_period(
                key.rotation_setting, tenant.kms_key_rotation, self._longest
            )
            due = _next_due(key, active, period, now, next_in)
            key = replace(
                key,
                rotation_period=period,
                rotation_source=source,
                lease_ttl=check_lease_ttl(key.lease_ttl if lease_ttl is None else lease_ttl),
                next_rotation_at=due,
            )
            tx.keys.update(key)
            tx.tenants.probe_by(tenant.id, now + key.lease_ttl / 2)
            tx.audit.append(
                tenant.id, now, actor, "key.rotation-set",
                key=key.name, rotation_period_seconds=int(period.total_seconds()), source=source.value,
                lease_ttl_seconds=int(key.lease_ttl.total_seconds()),
                next_rotation_at=None if due is None else due.isoformat(),
            )  # fmt: skip
        return key

    def set_outage_wait(self, tenant_name: str, wait: timedelta, *, actor: str) -> Tenant:
        """Set how long calls wait for a tenant's KMS that can't be reached, once no lease is left.

        Raises:
            OutOfBounds, UnknownTenant; TenantNotActive: it has left.
        """
        check_outage_wait(wait)
        with self._store.transaction() as tx:
            tenant = tx.tenants.get(tenant_name)
            require_present(tenant)
            tx.tenants.set_outage_wait(tenant, wait)
            tx.audit.append(
                tenant.id, self._clock.now(), actor, "tenant.outage-wait-set",
                seconds=int(wait.total_seconds()),
            )  # fmt: skip
            return tx.tenants.get(tenant_name)

    def set_webhook(self, tenant_name: str, url: str | None, *, allow_http: bool, actor: str) -> Tenant:
        """Set where a customer is told of findings; None: nowhere.

        Raises:
            InvalidInput, UnknownTenant; TenantNotActive: it has left.
        """
        if url is not None:
            check_url(url, allow_http=allow_http)
        with self._store.transaction() as tx:
            tenant = tx.tenants.get(tenant_name)
            require_present(tenant)
            tx.tenants.set_webhook_url(tenant, url)
            tx.audit.append(
                tenant.id, self._clock.now(), actor, "tenant.webhook-set",
                host=None if url is None else host_of(url),
            )  # fmt: skip
            return tx.tenants.get(tenant_name)

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
            return KeyDetails(
                tenant,
                key,
                tx.versions.list(key.id),
                tx.rotations.list(key.id, limit=20),
                tx.usage.list(key.id),
            )

    def audit_log(self, tenant_name: str) -> Sequence[AuditEvent]:
        """A tenant's audit events, oldest first."""
        with self._store.transaction() as tx:
            return tx.audit.list(tx.tenants.get(tenant_name).id)


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
