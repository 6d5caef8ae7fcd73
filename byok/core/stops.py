"""Stops: what follows from a tenant's suspension in every process of the fleet, and how long it may take.

Pure. The formula of the bound is told in ``docs/revocation.md``.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from byok.core.model import SuspensionKind

# A lease shorter than twice this ends by itself before a probe would make a difference.
MIN_PROBE_PERIOD = timedelta(seconds=5)
# What a probe may wait in its queue and take at AWS, where nothing is overloaded.
PROBE_ALLOWANCE = timedelta(seconds=5)
# What a push may take: a message over Redis.
PUSH_ALLOWANCE = timedelta(seconds=1)
# What a look at PostgreSQL may take, on top of waiting for its turn.
LOOK_ALLOWANCE = timedelta(seconds=1)

# A member that was not seen for this long is taken for dead, and owes no acknowledgement.
HEARTBEAT = timedelta(seconds=15)
TAKEN_FOR_DEAD = 3 * HEARTBEAT

# Of the stops of so long the slowest are shown: what was mended before that alarms nobody any more.
SHOWN_FOR = timedelta(days=90)


def alive_since(now: datetime) -> datetime:
    """A member that was seen since then lives."""
    return now - TAKEN_FOR_DEAD


@dataclass(frozen=True, slots=True)
class Member:
    """A process that may hold leases: a service or a worker.

    ``master_key_ids`` are those of its ring, the sealing one first; None: it is of an older release.
    """

    id: UUID
    kind: str
    host: str
    pid: int
    master_key_ids: tuple[str, ...] | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.pid}@{self.host}"


@dataclass(frozen=True, slots=True)
class Stop:
    """A committed suspension that every member is told of and acknowledges.

    ``noticed_at`` is when AWS refused us, or somebody said stop; leases of a generation before
    ``generation`` are void.
    """

    id: UUID
    tenant_id: UUID
    generation: int
    kind: SuspensionKind
    noticed_at: datetime
    committed_at: datetime


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """What one member owes to a stop: when it had dropped its leases, and how many; None: not yet."""

    member: str
    dropped_at: datetime | None
    leases: int | None


@dataclass(frozen=True, slots=True)
class StopReport:
    """A stop and what became of it in each process that lived then."""

    stop: Stop
    acknowledgements: Sequence[Acknowledgement]

    @property
    def silent(self) -> Sequence[str]:
        """The members that have not answered: dead, cut off or frozen. Their leases end by deadline."""
        return [one.member for one in self.acknowledgements if one.dropped_at is None]

    @property
    def answered(self) -> int:
        """How many members dropped their leases."""
        return len(self.acknowledgements) - len(self.silent)

    @property
    def latency(self) -> timedelta:
        """From the moment that the stop was noticed until the last answer, of those who answered."""
        times = [one.dropped_at for one in self.acknowledgements if one.dropped_at is not None]
        return max([*times, self.stop.committed_at]) - self.stop.noticed_at


@dataclass(frozen=True, slots=True)
class RevocationBound:
    """The longest time from the moment when AWS refuses until no process serves plaintext.

    ``pushed``: with push; ``polled``: where push is lost or Redis is down; ``unprobed``: no probe runs
    at all, so that only the deadline of the leases counts. ``told`` is the part from a stop that is known
    to the last process, push or no push.
    """

    pushed: timedelta
    polled: timedelta
    unprobed: timedelta
    told: timedelta


def probe_period(longest: timedelta, lease_ttls: Iterable[timedelta]) -> timedelta:
    """How often a tenant's access is proven: at most half of its shortest lease TTL."""
    halves = [max(ttl / 2, MIN_PROBE_PERIOD) for ttl in lease_ttls if ttl]
    return min([longest, *halves])


def next_probe_time(now: datetime, period: timedelta, tick: timedelta, fraction: float) -> datetime:
    """When to probe next: up to a fifth earlier than ``period``, so that tenants spread over time.

    A due probe waits for the next tick; that is part of the period, so that no gap is longer than it. Of a
    period that hardly exceeds a tick, each tick probes. No period is shorter than a tick.
    """
    longest = max(period - tick, tick / 2)
    return now + longest * (0.8 + 0.2 * fraction)


def revocation_bound(ttl: timedelta, period: timedelta, recheck: timedelta) -> RevocationBound:
    """The bound for a key with this lease TTL, probed every ``period``.

    A lease never outlives its TTL, so that the TTL bounds all.
    """
    seen, told = period + PROBE_ALLOWANCE, recheck + LOOK_ALLOWANCE
    return RevocationBound(
        pushed=min(ttl, seen + PUSH_ALLOWANCE), polled=min(ttl, seen + told), unprobed=ttl, told=told
    )
