"""Sets rotations of due keys going: in batches, fair between tenants, and no more than the fleet can take."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from byok.core.audit import AuditEntry
from byok.core.dispatch import DueWork, Place, Window
from byok.core.model import Job, OpenWork, Rotation, RotationReason, RotationState
from byok.errors import QueueUnavailable
from byok.failpoints import FailPoint, reached
from byok.logs import get_logger
from byok.ports import Clock, Metrics, Random, Store, TaskQueue
from byok.services.requests import RotationRequests

log = get_logger(__name__)

# Keys in one transaction. Twice as many save a twentieth of the time and hold their locks twice as long.
_BATCH = 500
# A batch takes a twentieth of that. Where it takes longer, the database has enough to do without us.
_SLOW_SECONDS = 1.0

_ACTOR = "schedule"


class Dispatcher:
    """Goes along the keys that are due, in the order of their due times.

    A run goes on where the last one left off, and once around, so that whoever was left out comes first
    the next time. ``window``: how many rotations wait or run at a time, of the whole fleet.
    """

    def __init__(
        self,
        store: Store,
        queue: TaskQueue,
        requests: RotationRequests,
        metrics: Metrics,
        clock: Clock,
        random: Random,
        *,
        window: int,
        sweep_period: timedelta,
    ) -> None:
        self._store = store
        self._queue = queue
        self._requests = requests
        self._metrics = metrics
        self._clock = clock
        self._random = random
        self._window = window
        self._sweep_period = sweep_period

    def run(self) -> int:
        """Record and publish rotations of keys that are due, as far as there is room; return how many.

        Raises:
            StoreUnavailable.
        """
        hindrance = self._broker_hindrance()
        if hindrance is not None:
            self._hold_back(hindrance)
            return 0
        with self._store.transaction() as tx:
            cursor = tx.ticks.read_cursor(Job.DISPATCH_DUE)
            window = Window(self._window, tx.rotations.count_in_flight())
        total, after, hindrance = self._go_along(window, Place.parse(cursor) if cursor else None)
        if hindrance is not None:
            self._hold_back(hindrance)
        with self._store.transaction() as tx:
            more = hindrance == "window-full"  # room comes with every rotation that ends
            tx.ticks.set_cursor(Job.DISPATCH_DUE, str(after) if after else None, more=more)
        return total

    def _broker_hindrance(self) -> str | None:
        try:
            return "queue-deep" if self._queue.backlog() >= self._window else None
        except QueueUnavailable as error:
            log.warning("dispatch_waits_for_broker", error=error.message)
            return "broker-silent"

    def _hold_back(self, hindrance: str) -> None:
        self._metrics.dispatch_held_back(hindrance)
        log.info("dispatch_held_back", reason=hindrance)

    def _go_along(self, window: Window, after: Place | None) -> tuple[int, Place | None, str | None]:
        """Go on behind ``after``, and once around; how many were set going, where to go on, and what
        hindered the rest."""
        total, may_go_around = 0, after is not None
        while window.room > 0:
            began_ticks = self._clock.ticks()
            stretch = self._record(window, after)
            is_slow = self._clock.ticks() - began_ticks > _SLOW_SECONDS
            if stretch.works:
                reached(FailPoint.DISPATCH_RECORDED)
                self._requests.publish(*stretch.works)
                total += len(stretch.works)
            after = stretch.end
            if after is None and not may_go_around:
                return total, None, None
            may_go_around = may_go_around and after is not None
            if is_slow:
                return total, after, "database-slow"
        return total, after, "window-full"

    def _record(self, window: Window, after: Place | None) -> "_Stretch":
        """Record rotations of the keys behind ``after`` that there is room for."""
        with self._store.transaction() as tx:
            now = self._clock.now()
            page = tx.keys.list_due(now, after, _BATCH)
            chosen, last = window.choose(page)
            is_last = len(page) < _BATCH and (not page or last is page[-1].place)
            due = {work.key_id: work for work in tx.keys.lock_due(chosen, now)} if chosen else {}
            works: list[OpenWork] = []
            if due:
                planned = [self._plan(work, now) for work in due.values()]
                recorded = tx.rotations.schedule(planned, now + self._sweep_period)
                works = [OpenWork(due[one.key_id].tenant, due[one.key_id].key, one) for one in recorded]
                tx.audit.append_all([_entry(due[one.key_id], one) for one in recorded])
        return _Stretch(works, None if is_last else last)

    def _plan(self, due: DueWork, now: datetime) -> Rotation:
        reason = RotationReason.SCHEDULED if due.has_version else RotationReason.INITIAL
        return Rotation(self._random.uuid(), due.key_id, reason, RotationState.REQUESTED, _ACTOR, now)


@dataclass(frozen=True, slots=True)
class _Stretch:
    """What was set going, and the key where it ended; None: no other is due behind it."""

    works: Sequence[OpenWork]
    end: Place | None


def _entry(due: DueWork, rotation: Rotation) -> AuditEntry:
    details: dict[str, str | int | None] = {
        "key": due.key, "rotation": str(rotation.id), "reason": rotation.reason.value
    }  # fmt: skip
    return AuditEntry(due.tenant_id, rotation.requested_at, _ACTOR, "rotation.requested", details)
