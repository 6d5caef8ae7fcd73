"""What the tables, the queues and the settings say of the whole fleet, as metrics.

Each reader is bounded however large the fleet is. A new one goes into `READERS`.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from byok.core import metric_list as metrics
from byok.core.bounds import MAX_LEASE_TTL
from byok.core.lookout import FindingKind
from byok.core.metric_list import MAX_TENANTS, Metric, Sample
from byok.core.model import Job, Rotation, Suspension, SuspensionKind, TenantState
from byok.core.stops import SHOWN_FOR, alive_since, revocation_bound
from byok.ports import Clock, Store, Transaction
from byok.services.periods import Periods

Reader = Callable[[Transaction, datetime], Iterator[Sample]]

_SLOWEST_STOPS = 20
_COUNTDOWNS: Mapping[FindingKind, Metric] = {
    FindingKind.KMS_KEY_PENDING_DELETION: metrics.KMS_KEY_DELETION_DAYS,
    FindingKind.KEY_MATERIAL_EXPIRING: metrics.KEY_MATERIAL_EXPIRY_DAYS,
}
_KINDS = ("service", "worker", "command")
# Where AWS gave no code.
_CODES = {SuspensionKind.LOCKED: "by-hand", SuspensionKind.DRILL: "drill"}


def tenants(tx: Transaction, now: datetime) -> Iterator[Sample]:
    """Tenants by state, and who is suspended."""
    counts = tx.counts.tenants()
    for state in TenantState:
        yield Sample(metrics.TENANTS, counts[state].number if state in counts else 0, (state.value,))
    for tenant in tx.tenants.list_suspended(MAX_TENANTS):
        if tenant.suspension is not None:
            labels = (tenant.name, _code(tenant.suspension))
            yield Sample(metrics.TENANT_SUSPENDED, _seconds(now - tenant.suspension.since), labels)


def keys(tx: Transaction, now: datetime) -> Iterator[Sample]:
    """Keys, and those that are due."""
    yield Sample(metrics.KEYS, tx.counts.keys().number)
    yield Sample(metrics.KEYS_OVERDUE, tx.counts.overdue(now).number)
    yield Sample(metrics.OLDEST_OVERDUE_SECONDS, _age(tx.counts.oldest_overdue(now), now))


def rotations(tx: Transaction, now: datetime) -> Iterator[Sample]:
    """Rotations that are under way, and that failed."""
    counts = tx.counts.open_rotations()
    for state in sorted(Rotation.OPEN_STATES):
        yield Sample(metrics.ROTATIONS_OPEN, counts[state].number if state in counts else 0, (state.value,))
    yield Sample(metrics.OLDEST_ROTATION_SECONDS, _age(tx.counts.oldest_open_rotation(), now))
    yield Sample(metrics.ROTATIONS_FAILED, len(tx.rotations.list_failed(MAX_TENANTS)))


def ticks(tx: Transaction, now: datetime) -> Iterator[Sample]:
    """When each job last began."""
    began = {tick.job: tick.began_at for tick in tx.ticks.list()}
    for job in Job:
        age_seconds = _age(began[job], now) if job in began else math.inf
        yield Sample(metrics.TICK_AGE_SECONDS, age_seconds, (job.value,))


def fleet(tx: Transaction, now: datetime) -> Iterator[Sample]:
    """Processes, and how long stops took to reach them."""
    counts = tx.members.count_by_kind(alive_since(now))
    for kind in _KINDS:
        yield Sample(metrics.MEMBERS, counts.get(kind, 0), (kind,))
    for tenant, latency in tx.stops.worst_latencies(now - SHOWN_FOR, now, _SLOWEST_STOPS):
        yield Sample(metrics.WORST_REVOCATION_SECONDS, _seconds(latency), (tenant,))


def watch(tx: Transaction, now: datetime) -> Iterator[Sample]:
    """What the watch over customers' sides found, and what days are left."""
    counts = tx.findings.count_by_kind()
    for kind, by_severity in counts.items():
        for severity, count in by_severity.items():
            yield Sample(metrics.FINDINGS, count.number, (kind.value, severity.value))
    broken = counts[FindingKind.AUDIT_CHAIN_BROKEN].values()
    yield Sample(metrics.AUDIT_CHAINS_BROKEN, sum(count.number for count in broken))
    for kind, metric in _COUNTDOWNS.items():
        for tenant, deadline_at in tx.findings.soonest(kind, MAX_TENANTS):
            yield Sample(metric, (deadline_at - now) / timedelta(days=1), (tenant,))
    yield Sample(metrics.OLDEST_WATCH_SECONDS, _age(tx.tenants.least_recently_looked_at(), now))


def webhooks(tx: Transaction, now: datetime) -> Iterator[Sample]:
    """Whether customers are told: ours to post in time, theirs to accept."""
    yield Sample(metrics.WEBHOOKS_WAITING_SECONDS, _age(tx.outbox.oldest_due(now), now))
    yield Sample(metrics.WEBHOOKS_GIVEN_UP, tx.outbox.count_given_up(now - timedelta(days=1)).number)


READERS: Sequence[Reader] = (tenants, keys, rotations, ticks, fleet, watch, webhooks)


def read_store(store: Store, clock: Clock, readers: Sequence[Reader] = READERS) -> Sequence[Sample]:
    """All that PostgreSQL tells.

    Raises:
        StoreUnavailable.
    """
    samples: list[Sample] = []
    for read in readers:
        with store.transaction() as tx:  # one each: none is open for long
            samples += read(tx, clock.now())
    return samples


def read_depths(depths: Mapping[str, int]) -> Sequence[Sample]:
    """What waits in each queue."""
    return [Sample(metrics.QUEUE_DEPTH, depth, (queue,)) for queue, depth in depths.items()]


def read_settings(periods: Periods, recheck: timedelta) -> Sequence[Sample]:
    """What follows from the settings alone. No key's TTL is longer than the longest there may be."""
    bound = revocation_bound(MAX_LEASE_TTL, periods.probe, recheck)
    return [
        *(Sample(metrics.TICK_PERIOD_SECONDS, _seconds(periods.of(job)), (job.value,)) for job in Job),
        Sample(metrics.WATCH_PERIOD_SECONDS, _seconds(periods.watch)),
        Sample(metrics.REVOCATION_BOUND_SECONDS, _seconds(bound.polled)),
        Sample(metrics.STOP_BOUND_SECONDS, _seconds(bound.told)),
    ]


def _code(suspension: Suspension) -> str:
    return suspension.aws_code or _CODES.get(suspension.kind, "unknown")


def _age(since: datetime | None, now: datetime) -> float:
    return 0.0 if since is None else max(_seconds(now - since), 0.0)


def _seconds(duration: timedelta) -> float:
    return duration.total_seconds()
