"""Leases: permission to use a version's secret until an absolute deadline.

The deadline is the last successful KMS Decrypt + the key's TTL, however many caches the secret went
through since. It is reckoned on a clock that nobody can set. A process looks again at the tenant's state
in PostgreSQL every ``recheck`` period, and at once when it is told that the tenant changed
(`byok.services.watch`), so that a suspension or a new version reaches it although its lease would last
longer.
"""

import threading
from dataclasses import replace
from datetime import datetime, timedelta

from byok.core.blind_index import require_searchable
from byok.core.model import IndexVersions, Key, Tenant
from byok.crypto.hazmat import SecretBytes
from byok.errors import (
    KmsAccessRevoked,
    KmsBackingOff,
    KmsUnavailable,
    NotReady,
    StoreUnavailable,
    UnknownVersion,
)
from byok.logs import get_logger
from byok.ports import Clock, LeaseId, Store
from byok.services.filling import LeaseSource, TenantChanged
from byok.services.held import Held, View
from byok.services.lease import IvPool, Lane, Lease, Opening, Sealing
from byok.services.refreshing import Refresher
from byok.services.suspension import require_active
from byok.services.watch import Watch

log = get_logger(__name__)

_MAX_CHANGES = 10  # of a tenant during one fetch
_RETRY_REFRESH_SECONDS = 1.0
_OUTAGE_PAUSE_SECONDS = 0.5


class LeaseDesk:
    """Hands out leases: from this process, from Redis, or from the customer's KMS. Thread-safe."""

    def __init__(
        self,
        *,
        store: Store,
        source: LeaseSource,
        held: Held,
        ivs: IvPool,
        watch: Watch,
        clock: Clock,
        recheck: timedelta,
        refresher: Refresher,
    ) -> None:
        self._store = store
        self._source = source
        self._held = held
        self._watch = watch
        self._clock = clock
        self.ivs = ivs
        self.ticks = clock.ticks
        self._recheck_seconds = recheck.total_seconds()
        self._refresher = refresher
        self.forget()

    def encrypting(self, tenant: str, key: str) -> Lease:
        """A lease on the key's active version.

        Raises:
            UnknownTenant, UnknownKey, TenantNotActive, NotReady, KmsAccessRevoked, Unavailable,
            IntegrityError.
        """
        return self._lease(tenant, key, None)

    def decrypting(self, tenant: str, key: str, number: int) -> Lease:
        """A lease on any version that may still decrypt.

        Raises:
            UnknownVersion: there is none of this number that may decrypt; and as `encrypting`.
        """
        return self._lease(tenant, key, number)

    def keep_sealing(self, lane: Lane, sealing: Sealing) -> None:
        """Have an epoch on a lane; see `byok.services.lease`."""
        self._held.keep_sealing(lane, sealing)

    def keep_opening(self, lane: Lane, prefix: bytes, opening: Opening) -> None:
        """Have a derived key on a lane."""
        self._held.keep_opening(lane, prefix, opening)

    def index_versions(self, tenant: str, key: str) -> IndexVersions:
        """The versions that the key's blind indexes rest on, for leases by `decrypting`.

        Raises:
            NotSearchable, UnknownTenant, UnknownKey, TenantNotActive, Unavailable.
        """
        known = self.index_versions_in_hand(tenant, key)
        return known or _index_versions(self._look_again(tenant, key))

    def index_versions_in_hand(self, tenant: str, key: str) -> IndexVersions | None:
        """As `index_versions`, if this process needn't look again at the tenant. Does not block."""
        view = self._fresh_view(tenant, key, self._clock.ticks())
        return None if view is None else _index_versions(view)

    def checking(self, tenant: str, key: str, number: int) -> Lease:
        """As `decrypting`, for a check of our own: the usage ledger does not count it."""
        lease = self._lease(tenant, key, number)
        self._held.tallies.excuse(lease.uses_left)
        return lease

    def put(self, tenant: Tenant, key: Key, number: int, secret: SecretBytes, decrypted_at: datetime) -> None:
        """File a secret that a KMS Decrypt brought at ``decrypted_at`` in the shared cache."""
        self._source.put(tenant, key, number, secret, decrypted_at)

    def forget(self) -> None:
        """Drop everything this process holds; the locks too, which a forked child may find taken."""
        self._held.forget()
        self.ivs.forget()
        self._source.forget()
        self._watch.forget()
        self._refresher.forget()
        self._locks: dict[LeaseId, threading.Lock] = {}
        self._lock = threading.Lock()

    # --- what is in hand --------------------------------------------------------------------------

    def in_hand(self, tenant: str, key: str, number: int | None = None) -> Lease | None:
        """The lease on a version, the active one by default, if this process holds it and needn't look
        again at the tenant. Makes no call and does not block.

        Raises:
            TenantNotActive, NotReady.
        """
        ticks = self._clock.ticks()
        view = self._fresh_view(tenant, key, ticks)
        return None if view is None else self._in_hand(view, _wanted(view, number), ticks)

    def _lease(self, tenant: str, key: str, number: int | None) -> Lease:
        return self.in_hand(tenant, key, number) or self._asked_for(tenant, key, number)

    def _asked_for(self, tenant: str, key: str, number: int | None) -> Lease:
        view = self._fresh_view(tenant, key, self._clock.ticks()) or self._look_again(tenant, key)
        ticks = self._clock.ticks()  # PostgreSQL may have taken long, and deadlines don't wait
        return self._in_hand(view, _wanted(view, number), ticks) or self._fetched(view, number)

    def _fresh_view(self, tenant: str, key: str, ticks: float) -> View | None:
        view = self._held.views.get((tenant, key))
        if view is None or view.fresh_until_ticks <= ticks:
            return None
        return view

    def _in_hand(self, view: View, lease_id: LeaseId, ticks: float) -> Lease | None:
        """This process's lease, if it is within the TTL that the key has now."""
        lease = self._held.leases.get(lease_id)
        if lease is None or ticks >= lease.began_ticks + view.ttl_seconds:
            return None
        if not lease.use():
            self._held.drop_lease(lease_id)
            return None
        if ticks >= lease.refresh_ticks:
            lease.refresh_ticks = ticks + _RETRY_REFRESH_SECONDS  # one caller is enough
            names = {"tenant": view.tenant.name, "key": view.key.name}
            self._refresher.submit(lease_id, lambda: self._refresh(view, lease_id, lease), **names)
        self._held.arm(view, lease_id, lease)
        return lease

    def _refresh(self, view: View, lease_id: LeaseId, lease: Lease) -> None:
        since = self._held.drops
        if self._held.leases.get(lease_id) is not lease:
            return  # somebody was faster, or it was dropped
        try:
            renewed = self._source.fetch(view, lease.version_number, newer_than=lease.decrypted_at)
        except TenantChanged:
            self._held.drop_views(view.tenant.id)
        except KmsAccessRevoked:
            self._held.drop(view.tenant.id)
            raise
        else:
            if renewed is not None:
                self._held.keep_lease(since, lease_id, renewed)

    # --- what has to be fetched -------------------------------------------------------------------

    def _look_again(self, tenant_name: str, key_name: str) -> View:
        """Read the tenant and the key, and keep the view unless it is out of date by then."""
        names = (tenant_name, key_name)
        for _ in range(_MAX_CHANGES):
            since, known = self._held.drops, self._held.views.get(names)
            view = self._read_view(tenant_name, key_name, known)
            if known is not None and known.tenant.generation != view.tenant.generation:
                self._held.drop(view.tenant.id)
            elif self._held.keep_view(since, names, view):
                return view
        raise _restless(tenant_name)

    def _read_view(self, tenant_name: str, key_name: str, known: View | None) -> View:
        fresh_until_ticks = self._clock.ticks() + self._recheck_seconds
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
            return replace(known, fresh_until_ticks=self._clock.ticks() + self._recheck_seconds)
        return View(
            tenant,
            key,
            None if active is None else active.number,
            key.lease_ttl.total_seconds(),
            fresh_until_ticks,
        )

    def _fetched(self, view: View, number: int | None) -> Lease:
        """A lease from outside, and where the tenant says so, waiting for a KMS that can't be reached."""
        give_up_ticks = self._clock.ticks() + view.tenant.outage_wait.total_seconds()
        while True:
            try:
                return self._fetch_once(view.tenant.name, view.key.name, number)
            except KmsUnavailable as outage:
                pause_seconds = getattr(outage, "retry_after_seconds", _OUTAGE_PAUSE_SECONDS)
                if self._clock.ticks() + pause_seconds > give_up_ticks:
                    raise
                self._clock.sleep(pause_seconds)

    def _fetch_once(self, tenant: str, key: str, number: int | None) -> Lease:
        self._join_fleet()
        for _ in range(_MAX_CHANGES):
            since = self._held.drops
            view = self._held.views.get((tenant, key)) or self._look_again(tenant, key)
            lease_id = _wanted(view, number)
            try:
                lease = self._fetch_by_one(view, lease_id, since)
            except TenantChanged:
                self._held.drop_views(view.tenant.id)
                continue
            except KmsAccessRevoked:
                self._held.drop(view.tenant.id)
                raise
            if lease is not None:
                return lease
        raise _restless(tenant)

    def _fetch_by_one(self, view: View, lease_id: LeaseId, since: int) -> Lease | None:
        """One thread of this process fetches; those that waited for it find what it brought. None if a
        stop came meanwhile: what was fetched must not be used."""
        if not view.ttl_seconds:
            lease = self._from_source(view, lease_id)
            self._held.tallies.add(lease_id, lease.uses_left)
            lease.use()
            return None if self._held.is_overtaken(view.tenant.id, since) else lease
        with self._lock:
            lock = self._locks.setdefault(lease_id, threading.Lock())
        with lock:
            if in_hand := self._in_hand(view, lease_id, self._clock.ticks()):
                return in_hand
            try:
                lease = self._from_source(view, lease_id)
                if not self._held.keep_lease(since, lease_id, lease):
                    return None
                lease.use()  # the caller's
                return lease
            finally:
                with self._lock:
                    self._locks.pop(lease_id, None)

    def _from_source(self, view: View, lease_id: LeaseId) -> Lease:
        lease = self._source.fetch(view, lease_id.version_number)
        assert lease is not None  # only a renewal comes to nothing
        return lease

    def _join_fleet(self) -> None:
        if self._watch.join():
            # What was read before this process could be told of stops may be out of date by now.
            self._held.drop_views()


def _index_versions(view: View) -> IndexVersions:
    require_active(view.tenant)
    return require_searchable(view.tenant, view.key)


def _wanted(view: View, number: int | None) -> LeaseId:
    require_active(view.tenant)
    if number is None:
        return view.lease_id(_active(view))
    if number < view.key.decryption_floor:
        raise UnknownVersion(
            f"version {number} is below the decryption floor, {view.key.decryption_floor}",
            remedy=f"if it is still needed: byok key set-floor {view.tenant.name} {view.key.name} {number}",
        )
    return view.lease_id(number)


def _active(view: View) -> int:
    if view.active_number is None:
        raise NotReady(
            f"key {view.key.name!r} of tenant {view.tenant.name!r} has no active version yet",
            remedy=f"byok key show {view.tenant.name} {view.key.name} tells how its first rotation goes",
        )
    return view.active_number


def _restless(tenant: str) -> KmsBackingOff:
    return KmsBackingOff(f"tenant {tenant!r} changes all the time", retry_after_seconds=1.0)
