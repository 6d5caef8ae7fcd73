"""How the fleet stands, as far as it can be seen: each server is asked for itself."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from byok.core.counts import Count
from byok.core.lookout import Severity
from byok.core.model import TenantState
from byok.errors import Unavailable
from byok.ports import Clock, LeaseCache, Queues
from byok.services.overview import SHOWN, Observer, Overview

# The dispatcher comes every half minute and a rotation takes seconds: what waits longer is held up.
OVERDUE_AFTER = timedelta(minutes=15)

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Unreachable:
    """A server that does not answer, how it fails, and since how long as far as is known."""

    server: str
    why: str
    lasting: timedelta


@dataclass(frozen=True, slots=True)
class Concern:
    """Something that needs attention: a word that stays the same, and how it is told."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Status:
    """What could be seen; None is what could not. ``workers`` are those that answer."""

    overview: Overview | None
    queues: Mapping[str, int] | None
    workers: Sequence[str] | None
    unreachable: Sequence[Unreachable]

    @property
    def concerns(self) -> Sequence[Concern]:
        """What needs attention, the gravest first; nothing where all is well."""
        found = [Concern("unreachable", f"{one.server} unreachable") for one in self.unreachable]
        if self.workers is not None and not self.workers:
            found.append(Concern("no-workers", "no worker answers"))
        if self.overview is not None:
            found += _of_tenants_and_jobs(self.overview) + _of_rotations(self.overview)
        return found


def _of_tenants_and_jobs(overview: Overview) -> list[Concern]:
    found = []
    if overview.suspended:
        # The list leaves out who leaves, and ends at `SHOWN`.
        count = Count(len(overview.suspended))
        if len(overview.suspended) == SHOWN:
            count = overview.tenants.get(TenantState.SUSPENDED, count)
        found.append(Concern("tenants-suspended", f"{_many(count, 'tenant')} suspended"))
    found += [
        Concern("findings", f"{_many(overview.findings[severity], 'finding')} {severity}")
        for severity in (Severity.CRITICAL, Severity.URGENT)
        if severity in overview.findings
    ]
    if all(one.began_at is None for one in overview.jobs):
        found.append(Concern("no-ticks", "no Beat has ever ticked"))
    elif late := [one.job.value for one in overview.jobs if one.is_late]:
        found.append(Concern("jobs-late", f"late: {', '.join(late)}"))
    return found


def _of_rotations(overview: Overview) -> list[Concern]:
    found = []
    if overview.failed:
        found.append(Concern("rotations-failed", f"{_listed(len(overview.failed), 'rotation')} failed"))
    if overview.stuck:
        found.append(Concern("rotations-stuck", f"{_listed(len(overview.stuck), 'rotation')} stuck"))
    if overview.oldest_overdue is not None and overview.oldest_overdue > OVERDUE_AFTER:
        found.append(Concern("keys-overdue", f"{_many(overview.overdue, 'key')} overdue"))
    return found


def _many(count: Count, what: str) -> str:
    return f"{count} {what}" if str(count) == "1" else f"{count} {what}s"


def _listed(number: int, what: str) -> str:
    """How many, of what is listed up to a length."""
    return f"{number}+ {what}s" if number == SHOWN else _many(Count(number), what)


class StatusReader:
    """Reads the status again and again, and remembers since when a server does not answer."""

    def __init__(self, observer: Observer, queues: Queues, cache: LeaseCache, clock: Clock) -> None:
        self._observer = observer
        self._queues = queues
        self._cache = cache
        self._clock = clock
        self._away: dict[str, tuple[float, str]] = {}

    def read(self) -> Status:
        """Ask every server. One that is away takes its timeout and nothing else."""
        overview = self._ask("postgresql", self._observer.overview)
        queues, workers = self._ask("broker", self._read_queues) or (None, None)
        self._ask("cache", self._cache.ping)
        now = self._clock.ticks()
        away = [
            Unreachable(server, why, timedelta(seconds=now - since))
            for server, (since, why) in self._away.items()
        ]
        return Status(overview, queues, workers, away)

    def _read_queues(self) -> tuple[Mapping[str, int], Sequence[str]]:
        return self._queues.depths(), self._queues.workers()

    def _ask(self, server: str, question: Callable[[], Answer]) -> Answer | None:
        asked_ticks = self._clock.ticks()
        try:
            answer = question()
        except Unavailable as error:
            since, _ = self._away.get(server, (asked_ticks, ""))
            self._away[server] = (since, error.message)
            return None
        self._away.pop(server, None)
        return answer
