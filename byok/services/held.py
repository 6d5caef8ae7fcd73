"""What one process holds in memory: views of keys, and leases. Bounded, and dropped at a word."""

import itertools
import threading
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from byok.core.model import Key, Tenant
from byok.crypto.hazmat import XaesKey
from byok.ports import LeaseId

MAX_VIEWS = 10_000
MAX_LEASES = 10_000


@dataclass(slots=True)
class Lease:
    """A version's cipher, usable until the KMS Decrypt behind it is older than the key's TTL.

    ``began_ticks`` is when that Decrypt was sent, on a clock that nobody can set: a time zero of the
    lease that no cache on the way and no step of any wall clock moves forward.
    """

    version_number: int
    cipher: XaesKey
    decrypted_at: datetime
    began_ticks: float
    refresh_ticks: float
    uses: "itertools.count[int]" = field(default_factory=itertools.count)


@dataclass(frozen=True, slots=True)
class View:
    """What a process knows of a key, and until when it needn't look again."""

    tenant: Tenant
    key: Key
    active_number: int | None
    ttl_seconds: float
    fresh_until_ticks: float

    def lease_id(self, number: int) -> LeaseId:
        """What a lease on a version is filed under."""
        return lease_id(self.tenant, self.key, number)


def lease_id(tenant: Tenant, key: Key, number: int) -> LeaseId:
    """What a lease of a tenant, as it stands in this generation, is filed under."""
    return LeaseId(tenant.id, tenant.generation, key.id, number)


class Held:
    """The memory. Reading takes no lock.

    Whoever brings something from outside says in which ``epoch`` it began to fetch: a tenant that was
    dropped since begins a new one, and what comes too late is not kept. So a slow thread can't bring
    back what a stop has cleared away.
    """

    def __init__(self, max_leases: int = MAX_LEASES) -> None:
        self._max_leases = max_leases
        self.forget()

    def forget(self) -> None:
        """Drop everything; the lock too, which a forked child may find taken."""
        self.views: dict[tuple[str, str], View] = {}
        self.leases: dict[LeaseId, Lease] = {}
        self.epoch = 0
        self._lock = threading.Lock()

    def keep_view(self, epoch: int, names: tuple[str, str], view: View) -> bool:
        """Keep a view; False if something was dropped since ``epoch``."""
        with self._lock:
            if self.epoch != epoch:
                return False
            self.views[names] = view
            if len(self.views) > MAX_VIEWS:
                del self.views[next(iter(self.views))]  # the oldest
            return True

    def keep_lease(self, epoch: int, lease_id: LeaseId, lease: Lease) -> bool:
        """Keep a lease; False if something was dropped since ``epoch``."""
        with self._lock:
            if self.epoch != epoch:
                return False
            self.leases.pop(lease_id, None)
            self.leases[lease_id] = lease
            if len(self.leases) > self._max_leases:
                del self.leases[next(iter(self.leases))]
            return True

    def drop_lease(self, lease_id: LeaseId) -> None:
        """Drop one lease."""
        with self._lock:
            self.leases.pop(lease_id, None)

    def drop_views(self, tenant_id: UUID) -> None:
        """Look at a tenant again before using anything of it."""
        with self._lock:
            self._drop_views(tenant_id)

    def drop(self, tenant_id: UUID) -> int:
        """Drop all of a tenant; return how many leases there were."""
        with self._lock:
            self._drop_views(tenant_id)
            leases = [lease_id for lease_id in self.leases if lease_id.tenant_id == tenant_id]
            for lease_id in leases:
                del self.leases[lease_id]
            return len(leases)

    def _drop_views(self, tenant_id: UUID) -> None:
        self.epoch += 1
        for names in [names for names, view in self.views.items() if view.tenant.id == tenant_id]:
            del self.views[names]
