"""Sets rotations of due keys going: in batches, fair between tenants, and no more than the fleet can take."""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from byok.core.audit import AuditEntry
from byok.core.dispatch import DueWork, Place, Window
from byok.core.model import Job, OpenWork, Rotation, RotationReason, RotationState
from byok.errors import QueueUnavailable
from byok.failpoints import FailPoint, reached
from byok.logs import get_logger
from byok.ports import Clock, Metrics, Random, Store, TaskQueue, Transaction
from byok.services.requests import RotationRequests

log = get_logger(__name__)

# Keys in one transaction. Twice as many save a twentieth of the time and hold their locks twice as long.
_BATCH = 500
# A run ends after this long and goes on in the next one: it must not be taken for dead.
_RUN_SECONDS = 10.0
# A batch takes a twentieth of that. Where it takes longer, the database has enough to do without us.
_SLOW_SECONDS = 1.0
# At a time, while the next page is read: what waits for PostgreSQL leaves Python to the others.
_TRANSACTIONS = 2

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
        run = self._go_along(window, Place.parse(cursor) if cursor else None)
        if run.hindrance is not None:
            self._hold_back(run.hindrance)
        with self._store.transaction() as tx:
            more = run.hindrance in ("window-full", "time-up")  # room comes with every rotation that ends
            tx.ticks.set_cursor(Job.DISPATCH_DUE, str(run.end) if run.end else None, more=more)
        return run.count

    def _broker_hindrance(self) -> str | None:
        try:
            return "queue-deep" if self._queue.backlog() >= self._window else None
        except QueueUnavailable as error:
            log.warning("dispatch_waits_for_broker", error=error.message)
            return "broker-silent"

    def _hold_back(self, hindrance: str) -> None:
        self._metrics.dispatch_held_back(hindrance)
        log.info("dispatch_held_back", reason=hindrance)

    def _go_along(self, window: Window, after: Place | None) -> "_Run":
        """Go on behind ``after``, and once around."""
        run, may_go_around = _Run(after), after is not None
        end_ticks = self._clock.ticks() + _RUN_SECONDS
        with ThreadPoolExecutor(_TRANSACTIONS, thread_name_prefix="dispatch") as pool:
            under_way: deque[Future[_Batch]] = deque()
            while run.hindrance is None:
                if window.room <= 0 or self._clock.ticks() > end_ticks:
                    run.hindrance = "window-full" if window.room <= 0 else "time-up"
                    break
                chosen, run.end = self._look_ahead(window, run.end)
                if chosen:
                    under_way.append(pool.submit(copy_context().run, self._set_going, chosen))
                if run.end is None:
                    if not may_go_around:
                        break
                    may_go_around = False
                if len(under_way) > _TRANSACTIONS:
                    run.note(under_way.popleft().result())
            while under_way:
                run.note(under_way.popleft().result())
        return run

    def _look_ahead(self, window: Window, after: Place | None) -> tuple[Sequence[UUID], Place | None]:
        """Keys behind ``after`` that there is room for; and where to go on, None behind the last of all."""
        with self._store.transaction() as tx:
            page = tx.keys.list_due(self._clock.now(), after, _BATCH)
        chosen, last = window.choose(page)
        is_end = len(page) < _BATCH and (not page or last == page[-1].place)
        return chosen, None if is_end else last

    def _set_going(self, key_ids: Sequence[UUID]) -> "_Batch":
        """Record and publish rotations of keys that are due still."""
        began_ticks = self._clock.ticks()
        with self._store.transaction() as tx:
            works = self._record(tx, key_ids)
        took_seconds = self._clock.ticks() - began_ticks
        if works:
            reached(FailPoint.DISPATCH_RECORDED)
            self._requests.publish(*works)
        return _Batch(len(works), took_seconds)

    def _record(self, tx: Transaction, key_ids: Sequence[UUID]) -> Sequence[OpenWork]:
        now = self._clock.now()
        due = {work.key_id: work for work in tx.keys.lock_due(key_ids, now)}
        if not due:
            return []
        planned = [self._plan(work, now) for work in due.values()]
        recorded = tx.rotations.schedule(planned, now + self._sweep_period)
        tx.audit.append_all([_entry(due[rotation.key_id], rotation) for rotation in recorded])
        return [OpenWork(due[one.key_id].tenant, due[one.key_id].key, one) for one in recorded]

    def _plan(self, due: DueWork, now: datetime) -> Rotation:
        reason = RotationReason.SCHEDULED if due.has_version else RotationReason.INITIAL
        return Rotation(self._random.uuid(), due.key_id, reason, RotationState.REQUESTED, _ACTOR, now)


@dataclass(frozen=True, slots=True)
class _Batch:
    """How many rotations one transaction recorded, and how long it took."""

    count: int
    took_seconds: float


@dataclass(slots=True)
class _Run:
    """What came of a run: how many rotations, where the next one goes on, what hindered the rest."""

    end: Place | None
    count: int = 0
    hindrance: str | None = None

    def note(self, batch: _Batch) -> None:
        """Take account of a batch that has ended."""
        self.count += batch.count
        if batch.took_seconds > _SLOW_SECONDS:
            self.hindrance = "database-slow"


def _entry(due: DueWork, rotation: Rotation) -> AuditEntry:
    details: dict[str, str | int | None] = {
        "key": due.key, "rotation": str(rotation.id), "reason": rotation.reason.value
    }  # fmt: skip
    return AuditEntry(due.tenant_id, rotation.requested_at, _ACTOR, "rotation.requested", details)
