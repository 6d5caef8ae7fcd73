"""What one process holds in memory: views of keys, and leases. Bounded, and dropped at a word."""

import threading
from collections import Counter, OrderedDict, defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from byok.core.model import Key, Tenant
from byok.core.usage import VersionId
from byok.ports import Clock, LeaseId
from byok.services.lease import Lane, Lease, Opening, Sealing
from byok.services.tallies import Tallies

MAX_VIEWS = 10_000
MAX_LEASES = 10_000
MAX_OPENINGS = 16_384  # derived keys on all lanes, of 2.7 KB each; then all begin anew
_Kept = TypeVar("_Kept")
_MAX_DROPS = 100_000  # tenants whose latest drop is remembered


@dataclass(frozen=True, slots=True)
class View:
    """What a process knows of a key, and until when it needn't look again."""

    tenant: Tenant
    key: Key
    active_number: int | None
    ttl_seconds: float
    fresh_until_ticks: float

    @property
    def names(self) -> tuple[str, str]:
        """What it is kept under."""
        return self.tenant.name, self.key.name

    def lease_id(self, number: int) -> LeaseId:
        """What a lease on a version is filed under."""
        return lease_id(self.tenant, self.key, number)


def lease_id(tenant: Tenant, key: Key, number: int) -> LeaseId:
    """What a lease of a tenant, as it stands in this generation, is filed under."""
    return LeaseId(tenant.id, tenant.generation, key.id, number)


class Held:
    """The memory. Reading takes no lock.

    Whoever brings something from outside says which drop was the latest when it began to fetch
    (`drops`); what a tenant's drop has overtaken is not kept. So a slow thread can't bring back what a
    stop has cleared away, and one tenant's stop is nothing to another's threads.
    """

    def __init__(self, clock: Clock, max_leases: int = MAX_LEASES) -> None:
        self._clock = clock
        self._max_leases = max_leases
        self.drops = 0
        self.views: dict[tuple[str, str], View] = {}
        self.leases: dict[LeaseId, Lease] = {}
        # Which of them are a tenant's: in a fleet that rotates, some tenant changes all the time, and each
        # change reaches every process.
        self._views_of: defaultdict[UUID, set[tuple[str, str]]] = defaultdict(set)
        self._leases_of: defaultdict[UUID, set[LeaseId]] = defaultdict(set)
        self._openings = 0
        self._dropped: OrderedDict[UUID, int] = OrderedDict()
        self.tallies = Tallies()  # outlives what is dropped: its uses are still to be written
        self.forget()

    def forget(self) -> None:
        """Drop everything; the lock too, which a forked child may find taken."""
        self._lock = threading.Lock()
        self._leases_dropped: OrderedDict[UUID, tuple[datetime, int]] = OrderedDict()
        self.drop_all()

    def drop_all(self) -> None:
        """Drop everything, while other threads go on."""
        with self._lock:
            self.drops += 1
            self._floor = self.drops  # what was begun before this is not kept, whoever's it is
            self._dropped.clear()
            self._clear_views()
            for lease_id in list(self.leases):
                self._remove(lease_id)

    def keep_view(self, since: int, names: tuple[str, str], view: View) -> bool:
        """Keep a view; False if its tenant was dropped after the ``since``-th drop."""
        with self._lock:
            if self._is_overtaken(view.tenant.id, since):
                return False
            known = self.views.get(names)
            if known is None or known.key.decryption_floor != view.key.decryption_floor:
                for number in range(1, view.key.decryption_floor):
                    self._remove(view.lease_id(number))
            self.views[names] = view
            self._views_of[view.tenant.id].add(names)
            if len(self.views) > MAX_VIEWS:
                self._remove_view(next(iter(self.views)))  # the oldest
            return True

    def keep_lease(self, since: int, lease_id: LeaseId, lease: Lease) -> bool:
        """Keep a lease; False if its tenant was dropped after the ``since``-th drop."""
        with self._lock:
            if self._is_overtaken(lease_id.tenant_id, since):
                return False
            self._remove(lease_id)
            self.leases[lease_id] = lease
            self._leases_of[lease_id.tenant_id].add(lease_id)
            self.tallies.add(lease_id, lease.uses_left)
            if len(self.leases) > self._max_leases:
                self._remove(next(iter(self.leases)))
            return True

    def arm(self, view: View, lease_id: LeaseId, lease: Lease) -> None:
        """Let a lease be used without another look, if it and what was looked at are still held.

        Until the view is to be read again, the lease renewed, or its time over, whichever is first.
        """
        until_ticks = min(view.fresh_until_ticks, lease.refresh_ticks, lease.began_ticks + view.ttl_seconds)
        with self._lock:
            if self.views.get(view.names) is view and self.leases.get(lease_id) is lease:
                lease.decrypts_until_ticks = until_ticks
                # A retired version's lease is armed, too, by whoever decrypts: never to encrypt.
                is_active = lease.version_number == view.active_number
                lease.encrypts_until_ticks = until_ticks if is_active else 0.0

    def keep_sealing(self, lane: Lane, sealing: Sealing) -> None:
        """Put an epoch on a lane, if its lease is armed."""
        with self._lock:
            if sealing.lease.encrypts_until_ticks:
                sealing.lease.lanes.add(lane)
                lane.sealing = sealing

    def keep_opening(self, lane: Lane, prefix: bytes, opening: Opening) -> None:
        """Put a derived key on a lane, if its lease is armed."""
        with self._lock:
            if opening.lease.decrypts_until_ticks:
                opening.lease.lanes.add(lane)
                lane.keep_opening(prefix, opening)
                self._openings += 1
                if self._openings >= MAX_OPENINGS:
                    self._clear_openings()

    def _clear_openings(self) -> None:
        for lease in self.leases.values():
            for lane in list(lease.lanes):
                lane.openings.clear()
        self._openings = 0

    def used(self) -> "Counter[VersionId]":
        """How often each version was used since the last call."""
        with self._lock:
            held = {lease_id: lease.uses_left for lease_id, lease in self.leases.items()}
        return self.tallies.read(held)

    def is_overtaken(self, tenant_id: UUID, since: int) -> bool:
        """Whether a tenant was dropped after the ``since``-th drop."""
        with self._lock:
            return self._is_overtaken(tenant_id, since)

    def _is_overtaken(self, tenant_id: UUID, since: int) -> bool:
        return self._dropped.get(tenant_id, self._floor) > since

    def drop_lease(self, lease_id: LeaseId) -> None:
        """Drop one lease."""
        with self._lock:
            self._remove(lease_id)

    def _remove(self, lease_id: LeaseId) -> None:
        lease = self.leases.get(lease_id)
        if lease is not None:
            lease.let_go()  # first: a child forked in between has to find it
            del self.leases[lease_id]
            _discard(self._leases_of, lease_id.tenant_id, lease_id)

    def _remove_view(self, names: tuple[str, str]) -> None:
        _discard(self._views_of, self.views.pop(names).tenant.id, names)

    def _clear_views(self) -> None:
        self.views.clear()
        self._views_of.clear()

    def drop_views(self, tenant_id: UUID | None = None) -> None:
        """Look at a tenant, or at all, again before using anything of it."""
        with self._lock:
            if tenant_id is None:
                self._clear_views()
                for lease in self.leases.values():
                    lease.disarm()
            else:
                self._drop_views(tenant_id)

    def drop(self, tenant_id: UUID) -> int:
        """Drop all of a tenant; return how many leases there were."""
        with self._lock:
            self._drop_views(tenant_id)
            leases = list(self._leases_of.get(tenant_id, ()))
            for lease_id in leases:
                self._remove(lease_id)
        if leases:
            self._leases_dropped[tenant_id] = self._clock.now(), len(leases)
            _forget_oldest(self._leases_dropped)
        return len(leases)

    def last_drop(self, tenant_id: UUID, since: datetime) -> tuple[datetime, int] | None:
        """When leases of a tenant were last dropped, and how many, if that was after ``since``."""
        found = self._leases_dropped.get(tenant_id)
        return found if found is not None and found[0] >= since else None

    def prune(self) -> None:
        """Drop the leases that have ended: an unused one must not outlive its deadline in memory."""
        now = self._clock.ticks()
        with self._lock:
            for lease_id in [one for one, lease in self.leases.items() if lease.ends_ticks <= now]:
                self._remove(lease_id)

    def _drop_views(self, tenant_id: UUID) -> None:
        self.drops += 1
        self._dropped[tenant_id] = self.drops
        self._dropped.move_to_end(tenant_id)
        forgotten = _forget_oldest(self._dropped)
        if forgotten is not None:
            self._floor = max(self._floor, forgotten)
        for names in list(self._views_of.get(tenant_id, ())):
            self._remove_view(names)
        for lease_id in self._leases_of.get(tenant_id, ()):
            self.leases[lease_id].disarm()


def _discard(index: "defaultdict[UUID, set[_Kept]]", tenant_id: UUID, one: "_Kept") -> None:
    index[tenant_id].discard(one)
    if not index[tenant_id]:
        del index[tenant_id]


def _forget_oldest(memory: "OrderedDict[UUID, _Kept]") -> "_Kept | None":
    return memory.popitem(last=False)[1] if len(memory) > _MAX_DROPS else None
