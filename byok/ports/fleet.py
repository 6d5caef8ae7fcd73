"""What the services need to reach every process of the fleet."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from byok.core.stops import Member, Stop, StopReport


class Members(Protocol):
    """The members table: which processes may hold leases now."""

    def enrol(self, member: Member, now: datetime) -> None:
        """Note a process, or that it still lives."""

    def leave(self, member_id: UUID) -> None:
        """Forget a process that ends in order."""

    def remove_unseen(self, since: datetime) -> int:
        """Forget processes that were not seen since then; return how many."""

    def count(self, seen_since: datetime) -> int:
        """How many were seen since then."""

    def list_seen(self, since: datetime) -> Sequence[Member]:
        """Those that were seen since then, by kind, host and process."""

    def count_by_kind(self, seen_since: datetime) -> Mapping[str, int]:
        """How many of each kind were seen since then, of the kinds that were."""


class Stops(Protocol):
    """The tables stops and acknowledgements."""

    def add(self, stop: Stop, alive_since: datetime) -> int:
        """Record a stop; every member seen since then owes an acknowledgement. Return how many do."""

    def list_owed(self, member_id: UUID) -> Sequence[Stop]:
        """The stops that a member has not acknowledged yet, oldest first."""

    def acknowledge(self, stop_id: UUID, member_id: UUID, dropped_at: datetime, leases: int) -> None:
        """Note when a member had dropped its leases; does nothing where it owes none."""

    def set_purged(self, stop_id: UUID, at: datetime) -> None:
        """Note that the shared cache has dropped the tenant's leases."""

    def list_unpurged(self, since: datetime, limit: int) -> Sequence[Stop]:
        """Stops committed since then whose purge failed, oldest first."""

    def report(self, stop_id: UUID) -> StopReport:
        """A stop with its acknowledgements."""

    def list_latest(self, tenant_id: UUID, limit: int) -> Sequence[StopReport]:
        """A tenant's stops, newest first."""

    def worst_latencies(self, since: datetime, now: datetime, limit: int) -> Sequence[tuple[str, timedelta]]:
        """The tenants whose stops since then took longest, each by name with its worst, the worst first.

        A member that has not answered counts as if it served until now, or until its leases ended.
        """


@dataclass(frozen=True, slots=True)
class Notice:
    """That a tenant changed: look again before serving anything of it. ``stop_id`` where it is a stop.

    It is no more than a hint: whoever gets it believes PostgreSQL alone.
    """

    tenant_id: UUID
    stop_id: UUID | None = None


class Subscription(Protocol):
    """One process's ear."""

    def next(self, timeout_seconds: float) -> Notice | None:
        """The next notice; None if none came in time. Raises CacheUnavailable."""


class NoticeBoard(Protocol):
    """Push to every process that listens. It may lose anything.

    Every method raises CacheUnavailable.
    """

    def publish(self, notice: Notice) -> None:
        """Tell everybody."""

    def listen(self) -> AbstractContextManager[Subscription]:
        """Hear what is published from now on."""
