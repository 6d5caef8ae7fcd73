"""The usage ledger's end in each process: what was counted here is added up in PostgreSQL.

Only the watch thread comes here, and the end of the process: encrypting and decrypting wait for nothing of
it, and go on when PostgreSQL is down.
"""

import threading
from collections import Counter
from uuid import UUID

from byok.core.usage import FLUSH_PERIOD, VersionId
from byok.errors import StoreUnavailable
from byok.logs import get_logger
from byok.ports import Clock, Metrics, Store
from byok.services.held import Held

log = get_logger(__name__)


class UsageLedger:
    """Writes how often this process used which version. Thread-safe."""

    def __init__(self, store: Store, held: Held, metrics: Metrics, clock: Clock) -> None:
        self._store = store
        self._held = held
        self._metrics = metrics
        self._clock = clock
        self.forget()

    def forget(self) -> None:
        """Forget what is not written yet, as in a forked child: its parent writes it."""
        self._held.tallies.forget()
        self._lock = threading.Lock()
        self._unwritten: Counter[VersionId] = Counter()
        self._next_ticks = 0.0

    def collect(self) -> None:
        """Take over what the leases have counted, before they are dropped for good."""
        used = self._held.used()
        with self._lock:
            self._unwritten.update(used)

    def flush_if_due(self, member_id: UUID) -> None:
        """`try_to_flush`, once each `FLUSH_PERIOD`."""
        ticks = self._clock.ticks()
        if ticks >= self._next_ticks:
            self._next_ticks = ticks + FLUSH_PERIOD.total_seconds()
            self.try_to_flush(member_id)

    def try_to_flush(self, member_id: UUID) -> None:
        """`flush`; without PostgreSQL the counts stay for the next time."""
        try:
            self.flush(member_id)
        except StoreUnavailable as error:
            log.warning("usage_not_written", error=error.message)

    def flush(self, member_id: UUID) -> int:
        """Write what was counted since the last time, and that this member has; return how much it was.

        A commit whose answer gets lost is written again: the ledger may say too much, never too little.

        Raises:
            StoreUnavailable: the counts stay for the next time.
        """
        began_at = self._clock.now()  # what was used before this is written below
        self.collect()
        with self._lock:
            taken, self._unwritten = self._unwritten, Counter()
        try:
            with self._store.transaction() as tx:
                tx.usage.add(taken, self._clock.now())
                tx.usage.note_flush(member_id, began_at)
        except BaseException:
            with self._lock:
                self._unwritten.update(taken)
            raise
        self._metrics.uses_recorded(taken.total())
        return taken.total()
