"""Leases: permission to use a version's secret until an absolute deadline.

The deadline is the last successful KMS Decrypt + the key's TTL, however many caches the secret went
through since: the time of the Decrypt travels inside the seal. A process looks again at the tenant's
state in PostgreSQL every ``recheck`` period, so that a suspension or a new version reaches it although
its lease would last longer.
"""

import threading
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

from byok.core.lifecycle import DECRYPTING_STATES
from byok.core.model import Key, KeyVersion, Tenant
from byok.crypto.hazmat import SecretBytes, XaesKey
from byok.crypto.keyring import MasterKeyRing
from byok.errors import (
    CacheUnavailable,
    IntegrityError,
    KmsAccessRevoked,
    NotReady,
    StoreUnavailable,
    UnknownMasterKey,
    UnknownVersion,
)
from byok.logs import get_logger
from byok.ports import Clock, LeaseCache, LeaseId, SealedLease, Store
from byok.services.records import Records
from byok.services.suspension import Suspensions, require_active

log = get_logger(__name__)

_Id = TypeVar("_Id")
_Kept = TypeVar("_Kept")

LEASE_PURPOSE = "byok/lease/1"
_MAX_REMEMBERED = 10_000  # leases, and views, of one process
# A lease from another machine may carry a time slightly ahead of ours; more than this is a broken clock.
_MAX_CLOCK_SKEW = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Lease:
    """A version's cipher, usable until the KMS Decrypt behind it is older than the key's TTL."""

    version_number: int
    cipher: XaesKey
    decrypted_at: datetime


@dataclass(frozen=True, slots=True)
class _View:
    """What a process knows of a key, and until when it needn't look again."""

    tenant: Tenant
    key: Key
    active_number: int | None
    fresh_until: datetime


class LeaseDesk:
    """Hands out leases: from this process, from Redis, or from the customer's KMS. Thread-safe."""

    def __init__(
        self,
        *,
        store: Store,
        cache: LeaseCache,
        records: Records,
        suspensions: Suspensions,
        master_keys: MasterKeyRing,
        clock: Clock,
        recheck: timedelta,
    ) -> None:
        self._store = store
        self._cache = cache
        self._records = records
        self._suspensions = suspensions
        self._master_keys = master_keys
        self._clock = clock
        self._recheck = recheck
        self.forget()

    def encrypting(self, tenant: str, key: str) -> Lease:
        """A lease on the key's active version.

        Raises:
            UnknownTenant, UnknownKey, TenantNotActive, NotReady, KmsAccessRevoked, Unavailable,
            IntegrityError.
        """
        view = self._view(tenant, key)
        if view.active_number is None:
            raise NotReady(
                f"key {key!r} of tenant {tenant!r} has no active version yet",
                remedy=f"byok key show {tenant} {key} tells how its first rotation goes",
            )
        return self._lease(view, view.active_number)

    def decrypting(self, tenant: str, key: str, number: int) -> Lease:
        """A lease on any version that may still decrypt.

        Raises:
            UnknownVersion: there is none of this number that may decrypt; and as `encrypting`.
        """
        return self._lease(self._view(tenant, key), number)

    def put(self, tenant: Tenant, key: Key, number: int, secret: SecretBytes, decrypted_at: datetime) -> None:
        """File a secret that a KMS Decrypt brought at ``decrypted_at`` in the shared cache."""
        remaining = decrypted_at + key.lease_ttl - self._clock.now()
        if remaining <= timedelta(0):
            return
        lease_id = LeaseId(tenant.id, tenant.generation, key.id, number)
        with secret.borrow() as raw:
            box = self._master_keys.seal(raw, LEASE_PURPOSE, *_bound_to(lease_id, tenant, decrypted_at))
        try:
            self._cache.put(lease_id, SealedLease(box, decrypted_at), remaining)
        except CacheUnavailable:
            log.warning("lease_not_cached", tenant=tenant.name, key=key.name)

    def forget(self) -> None:
        """Drop everything this process holds; the locks too, which a forked child may find taken."""
        self._views: dict[tuple[str, str], _View] = {}
        self._leases: dict[LeaseId, Lease] = {}
        self._locks: dict[LeaseId, threading.Lock] = {}
        self._lock = threading.Lock()

    def _view(self, tenant_name: str, key_name: str) -> _View:
        view = self._views.get((tenant_name, key_name))
        now = self._clock.now()
        if view is None or view.fresh_until <= now:
            view = self._look_again(tenant_name, key_name, now, view)
        require_active(view.tenant)
        return view

    def _look_again(self, tenant_name: str, key_name: str, now: datetime, known: _View | None) -> _View:
        try:
            with self._store.transaction() as tx:
                tenant = tx.tenants.get(tenant_name)
                key = tx.keys.get(tenant, key_name)
                active = tx.versions.find_active(key.id)
        except StoreUnavailable:
            if known is None:
                raise
            log.warning("store_unavailable_using_known_view", tenant=tenant_name, key=key_name)
            # Its leases go on to their deadlines, and no further.
            view = replace(known, fresh_until=now + self._recheck)
        else:
            view = _View(tenant, key, None if active is None else active.number, now + self._recheck)
        self._remember(self._views, (tenant_name, key_name), view)
        if known is not None and known.tenant.generation != view.tenant.generation:
            self._drop_leases(view.tenant.id)
        return view

    def _remember(self, memory: dict[_Id, _Kept], one: _Id, kept: _Kept) -> None:
        with self._lock:
            memory[one] = kept
            if len(memory) > _MAX_REMEMBERED:
                del memory[next(iter(memory))]  # the oldest

    def _drop_leases(self, tenant_id: UUID) -> None:
        with self._lock:
            for lease_id in [one for one in self._leases if one.tenant_id == tenant_id]:
                del self._leases[lease_id]

    def _lease(self, view: _View, number: int) -> Lease:
        lease_id = LeaseId(view.tenant.id, view.tenant.generation, view.key.id, number)
        lease = self._held(view, lease_id)
        if lease is not None:
            return lease
        if not view.key.lease_ttl:
            return self._from_kms(view, lease_id)  # caching is off: each use is a KMS Decrypt of its own
        with self._lock:
            lock = self._locks.setdefault(lease_id, threading.Lock())
        with lock:  # one miss at a time: those who waited find what the first one brought
            return self._held(view, lease_id) or self._acquire(view, lease_id)

    def _held(self, view: _View, lease_id: LeaseId) -> Lease | None:
        """This process's lease, if it is within the TTL that the key has now."""
        lease = self._leases.get(lease_id)
        if lease is None or lease.decrypted_at + view.key.lease_ttl <= self._clock.now():
            return None
        return lease

    def _acquire(self, view: _View, lease_id: LeaseId) -> Lease:
        try:
            lease = self._from_cache(view, lease_id) or self._from_kms(view, lease_id)
            self._remember(self._leases, lease_id, lease)
            return lease
        finally:
            with self._lock:
                self._locks.pop(lease_id, None)

    def _from_cache(self, view: _View, lease_id: LeaseId) -> Lease | None:
        try:
            sealed = self._cache.get(lease_id)
        except CacheUnavailable:
            log.warning("cache_unavailable_asking_kms", tenant=view.tenant.name, key=view.key.name)
            return None
        if sealed is None:
            return None
        # This reader's own TTL counts, not the one that the writer had.
        age = self._clock.now() - sealed.decrypted_at
        if not -_MAX_CLOCK_SKEW <= age < view.key.lease_ttl:
            return None
        bound_to = _bound_to(lease_id, view.tenant, sealed.decrypted_at)
        try:
            secret = SecretBytes(self._master_keys.open(sealed.box, LEASE_PURPOSE, *bound_to))
        except (IntegrityError, UnknownMasterKey) as error:
            log.warning("cached_lease_ignored", tenant=view.tenant.name, key=view.key.name, error=error.code)
            return None
        return _to_lease(lease_id.version_number, secret, sealed.decrypted_at)

    def _from_kms(self, view: _View, lease_id: LeaseId) -> Lease:
        with self._store.transaction() as tx:
            tenant = tx.tenants.get_by_id(view.tenant.id)
            version = tx.versions.get(view.key.id, lease_id.version_number)
        require_active(tenant)
        _require_decrypting(version)
        decrypted_at = self._clock.now()  # before the call: the customer may revoke while it is under way
        try:
            secret = self._records.unwrap(tenant, version).secret
        except KmsAccessRevoked as refusal:
            self._suspensions.revoked(tenant, refusal, actor="lease")
            self._drop_leases(tenant.id)
            raise
        if view.key.lease_ttl:
            self.put(view.tenant, view.key, version.number, secret, decrypted_at)
        return _to_lease(version.number, secret, decrypted_at)


def _bound_to(lease_id: LeaseId, tenant: Tenant, decrypted_at: datetime) -> tuple[str | int, ...]:
    """What a cached lease is sealed for: where it belongs, the KMS key, and the time it counts from."""
    arn = "" if tenant.connection is None else str(tenant.connection.kms_key_arn)
    return (
        str(lease_id.tenant_id),
        lease_id.generation,
        str(lease_id.key_id),
        lease_id.version_number,
        arn,
        decrypted_at.isoformat(timespec="microseconds"),
    )


def _require_decrypting(version: KeyVersion) -> None:
    if version.state not in DECRYPTING_STATES:
        raise UnknownVersion(f"version {version.number} is {version.state} and does not decrypt")


def _to_lease(number: int, secret: SecretBytes, decrypted_at: datetime) -> Lease:
    cipher = XaesKey(secret)
    secret.wipe()
    return Lease(number, cipher, decrypted_at)
