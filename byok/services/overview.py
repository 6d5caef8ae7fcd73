"""What an operator sees at a glance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from byok.core import jobs
from byok.core.counts import Count
from byok.core.jobs import JobState
from byok.core.lookout import Severity
from byok.core.model import Job, OpenWork, RotationState, Tenant, TenantState
from byok.core.stops import SHOWN_FOR, alive_since
from byok.ports import Clock, Store, Transaction
from byok.services.periods import Periods

ENDED_SINCE = timedelta(days=1)  # rotations that ended before that are history, for the metrics to tell
# Twice as long as it takes a KMS that fails all the time to end a rotation (`byok.services.setbacks`).
STUCK_AFTER = timedelta(minutes=30)
SHOWN = 20  # of what failed, is stuck or is suspended
_SHOWN_STOPS = 3


@dataclass(frozen=True, slots=True)
class Overview:
    """The fleet in numbers, what failed for good or does not get on, who was stopped last, whether Beat's
    jobs come in time, and how many processes of each kind hold leases.

    Of ``rotations`` those that have ended are of the last day. ``oldest_overdue`` is how long the key has
    been due that has waited longest; ``findings`` are those that are open. Of lists
    there are `SHOWN` entries at most.
    """

    at: datetime
    tenants: Mapping[TenantState, Count]
    keys: Count
    overdue: Count
    oldest_overdue: timedelta | None
    rotations: Mapping[RotationState, Count]
    failed: Sequence[OpenWork]
    stuck: Sequence[OpenWork]
    suspended: Sequence[Tenant]
    jobs: Sequence[JobState]
    members: Mapping[str, int]
    worst_stops: Sequence[tuple[str, timedelta]]
    findings: Mapping[Severity, Count]


class Observer:
    """Reads what the tables say of the whole fleet."""

    def __init__(self, store: Store, clock: Clock, periods: Periods) -> None:
        self._store = store
        self._clock = clock
        self._periods = periods

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

    def jobs(self) -> Sequence[JobState]:
        """Whether Beat's jobs come in time."""
        now = self._clock.now()
        with self._store.transaction() as tx:
            return self._judge_jobs(tx, now)

    def _judge_jobs(self, tx: Transaction, now: datetime) -> Sequence[JobState]:
        return jobs.judge(tx.ticks.list(), {job: self._periods.of(job) for job in Job}, now)

    def overview(self) -> Overview:
        """The fleet at a glance, in a time that is bounded however large it is."""
        now = self._clock.now()
        with self._store.transaction() as tx:
            due_at = tx.counts.oldest_overdue(now)
            return Overview(
                at=now,
                tenants=tx.counts.tenants(),
                keys=tx.counts.keys(),
                overdue=tx.counts.overdue(now),
                oldest_overdue=None if due_at is None else now - due_at,
                rotations=tx.counts.rotations(now - ENDED_SINCE),
                failed=tx.rotations.list_failed(SHOWN),
                stuck=tx.rotations.list_stuck(now - STUCK_AFTER, SHOWN),
                suspended=tx.tenants.list_suspended(SHOWN),
                jobs=self._judge_jobs(tx, now),
                members=tx.members.count_by_kind(alive_since(now)),
                worst_stops=tx.stops.worst_latencies(now - SHOWN_FOR, now, _SHOWN_STOPS),
                findings=tx.findings.count_by_severity(),
            )
