"""What an operator sees at a glance."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from byok.core.model import OpenWork, RotationState, Tenant, TenantState, Tick
from byok.core.stops import SHOWN_FOR, alive_since
from byok.ports import Clock, Store

_SHOWN_FAILURES = 20
_SHOWN_STOPS = 3


@dataclass(frozen=True, slots=True)
class Overview:
    """The fleet in numbers, what failed for good, who is stopped, and when Beat last set off what."""

    tenants: Mapping[TenantState, int]
    keys: int
    overdue: int
    rotations: Mapping[RotationState, int]
    failed: Sequence[OpenWork]
    suspended: Sequence[Tenant]
    ticks: Sequence[Tick]
    members: int
    worst_stops: Sequence[tuple[str, timedelta]]


class Observer:
    """Reads what the tables say of the whole fleet."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def rotations(self, *, failed: bool, limit: int) -> Sequence[OpenWork]:
        """The latest rotations of all keys; or those that failed and were not followed by another."""
        with self._store.transaction() as tx:
            return tx.rotations.list_failed(limit) if failed else tx.rotations.list_latest(limit)

    def rotation(self, rotation_id: UUID) -> OpenWork:
        """One rotation.

        Raises:
            UnknownRotation.
        """
        with self._store.transaction() as tx:
            return tx.rotations.get_work(rotation_id)

    def overview(self) -> Overview:
        """Count tenants, keys and rotations by state."""
        with self._store.transaction() as tx:
            tenants = tx.tenants.list()
            keys, overdue = tx.keys.count_overdue(self._clock.now())
            rotations = tx.rotations.count_by_state()
            failed = tx.rotations.list_failed(_SHOWN_FAILURES)
            ticks = tx.ticks.list()
            now = self._clock.now()
            members = tx.members.count(alive_since(now))
            worst_stops = tx.stops.worst_latencies(now - SHOWN_FOR, now, _SHOWN_STOPS)
        return Overview(
            tenants=Counter(tenant.state for tenant in tenants),
            keys=keys,
            overdue=overdue,
            rotations=rotations,
            failed=failed,
            ticks=ticks,
            members=members,
            worst_stops=worst_stops,
            suspended=[tenant for tenant in tenants if tenant.state is TenantState.SUSPENDED],
        )
