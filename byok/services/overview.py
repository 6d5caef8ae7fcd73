"""What an operator sees at a glance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from byok.core.counts import Count
from byok.core.model import OpenWork, RotationState, Tenant, TenantState, Tick
from byok.core.stops import SHOWN_FOR, alive_since
from byok.ports import Clock, Store

ENDED_SINCE = timedelta(days=1)  # rotations that ended before that are history, for the metrics to tell
_SHOWN_FAILURES = 20
_SHOWN_SUSPENDED = 20
_SHOWN_STOPS = 3


@dataclass(frozen=True, slots=True)
class Overview:
    """The fleet in numbers, what failed for good, who was stopped last, and when Beat last set off what.

    Of ``rotations`` those that have ended are of the last day.
    """

    tenants: Mapping[TenantState, Count]
    keys: Count
    overdue: Count
    rotations: Mapping[RotationState, Count]
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
        """The fleet at a glance, in a time that is bounded however large it is."""
        now = self._clock.now()
        with self._store.transaction() as tx:
            return Overview(
                tenants=tx.counts.tenants(),
                keys=tx.counts.keys(),
                overdue=tx.counts.overdue(now),
                rotations=tx.counts.rotations(now - ENDED_SINCE),
                failed=tx.rotations.list_failed(_SHOWN_FAILURES),
                suspended=tx.tenants.list_suspended(_SHOWN_SUSPENDED),
                ticks=tx.ticks.list(),
                members=tx.members.count(alive_since(now)),
                worst_stops=tx.stops.worst_latencies(now - SHOWN_FOR, now, _SHOWN_STOPS),
            )
