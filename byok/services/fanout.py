"""The fan-outs: periodic work for each tenant and each key, spread over its period.

Each tenant and each key has a time of its own in its row. A tick claims what is due, in batches, and
publishes it after the commit; what the queue does not take is due as before.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from byok.core.model import Tenant
from byok.core.stops import next_probe_time, probe_period
from byok.errors import QueueUnavailable
from byok.logs import get_logger
from byok.ports import Clock, DueTimes, Random, Store, TaskQueue, Transaction
from byok.services.periods import Periods

log = get_logger(__name__)

_BATCH = 100
# Ticks fill a queue up to so many waiting messages: probes wait behind validations, so there are to be few.
# A tick every ten seconds still gets through four million keys a day.
_MAX_WAITING = 500
# Rows whose time is drawn in by one statement, which stays far below its limit of 10 s; and how many of these
# a tick makes, so that it ends before the next one: a million keys take three minutes.
_DRAWN_IN = 5000
_DRAWS = 10


class FanOut:
    """Publishes what each tenant and each key is due for."""

    def __init__(
        self, store: Store, queue: TaskQueue, clock: Clock, random: Random, periods: Periods
    ) -> None:
        self._store = store
        self._queue = queue
        self._clock = clock
        self._random = random
        self._periods = periods

    def publish_probes(self) -> int:
        """Publish a liveness probe for every tenant whose time has come; return how many.

        Each has a time of its own: at most half of its shortest lease TTL after the last one. However many
        wait: a revocation must not be noticed later because there is much to do.
        """
        total = 0
        now = self._clock.now()  # of the whole tick: what becomes due meanwhile waits, or it might never end
        while due := self._take_due_probes(now):
            published = self._publish_all([partial(self._queue.probe, tenant.name) for tenant in due])
            total += published
            if missed := due[published:]:  # due as before: the broker's failure must not cost a period
                with self._store.transaction() as tx:
                    tx.tenants.set_next_probes({tenant.id: now for tenant in missed})
                break
        return total

    def _take_due_probes(self, now: datetime) -> Sequence[Tenant]:
        periods = self._periods
        with self._store.transaction() as tx:
            due = tx.tenants.lock_due_probes(now, _BATCH)
            times = {
                tenant.id: next_probe_time(
                    now,
                    probe_period(periods.probe, [] if ttl is None else [ttl]),
                    periods.probe_tick,
                    self._random.fraction(),
                )
                for tenant, ttl in due
            }
            if times:
                tx.tenants.set_next_probes(times)
        return [tenant for tenant, _ in due]

    def publish_validations(self) -> int:
        """Publish a validation of the active version of each key whose time has come; return how many."""
        return self._publish_due(
            lambda tx: tx.validations,
            self._periods.validate,
            self._queue.checks_waiting,
            lambda names: partial(self._queue.validate, *names),
        )

    def publish_syncs(self) -> int:
        """Publish, for each active tenant whose time has come, a look at what its KMS key says of rotation;
        return how many."""
        return self._publish_due(
            lambda tx: tx.syncs,
            self._periods.sync_rotation,
            self._queue.syncs_waiting,
            lambda names: partial(self._queue.sync_rotation, *names),
        )

    def publish_watches(self) -> int:
        """Publish a look over the side of each tenant whose time has come; return how many."""
        return self._publish_due(
            lambda tx: tx.watches,
            self._periods.watch,
            self._queue.checks_waiting,
            lambda names: partial(self._queue.watch, *names),
        )

    def _publish_due(
        self,
        times_in: Callable[[Transaction], DueTimes],
        period: timedelta,
        waiting: Callable[[], int],
        publication: Callable[[tuple[str, ...]], Callable[[], None]],
    ) -> int:
        """Publish what is due, no more than its queue has room for; the next tick goes on."""
        now = self._clock.now()
        self._draw_in(times_in, now, period)
        try:
            room = _MAX_WAITING - waiting()
        except QueueUnavailable as error:
            log.warning("fan_out_waits_for_broker", error=error.message)
            return 0
        total = 0
        while room > 0 and (due := self._claim(times_in, now, period, min(room, _BATCH))):
            published = self._publish_all([publication(names) for names in due.values()])
            total += published
            room -= len(due)
            if missed := list(due)[published:]:
                with self._store.transaction() as tx:
                    times_in(tx).give_back(missed, now)
                break
        return total

    def _claim(
        self, times_in: Callable[[Transaction], DueTimes], now: datetime, period: timedelta, limit: int
    ) -> Mapping[UUID, tuple[str, ...]]:
        with self._store.transaction() as tx:
            return times_in(tx).claim(now, period, limit)

    def _draw_in(self, times_in: Callable[[Transaction], DueTimes], now: datetime, period: timedelta) -> None:
        """See that nothing is due later than a period from now: a clock that was ahead, or a setting that
        was longer, must not silence it. What is too much for one tick is the next one's."""
        for _ in range(_DRAWS):
            with self._store.transaction() as tx:
                if times_in(tx).draw_in(now, period, _DRAWN_IN) < _DRAWN_IN:
                    return

    def _publish_all(self, publications: Sequence[Callable[[], None]]) -> int:
        """Publish until the broker fails; the next tick comes back for the rest."""
        for done, publish in enumerate(publications):
            try:
                publish()
            except QueueUnavailable as error:
                log.warning("not_published", count=len(publications) - done, error=error.message)
                return done
        return len(publications)
