"""Moves the log of requests from the spool of this host to PostgreSQL, and forgets what is old there."""

from collections.abc import Sequence
from datetime import timedelta

from byok.core.request_log import LoggedRequest
from byok.core.usage import FLUSH_PERIOD
from byok.errors import ConfigurationError, StoreUnavailable
from byok.logs import get_logger
from byok.ports import Clock, RequestSpool, Store

log = get_logger(__name__)

# The thread that moves them looks for stops, too, and must get back to that.
_LONGEST_SECONDS = 0.5
_REMOVED_AT_ONCE = 5000


class RequestMover:
    """Moves what this process wrote down, and what dead ones of this host left. Thread-safe.

    Requests wait for nothing of it, and go on when PostgreSQL is down. A batch whose commit got lost, or that
    two processes move, is written twice, which changes nothing.
    """

    def __init__(self, store: Store, spool: RequestSpool, clock: Clock, kept_for: timedelta) -> None:
        self._store = store
        self._spool = spool
        self._clock = clock
        self._kept_for = kept_for
        self._next_ticks = 0.0

    def move_if_due(self) -> None:
        """`try_to_move`, once each `FLUSH_PERIOD`, or at once where the last time was too short."""
        ticks = self._clock.ticks()
        if ticks >= self._next_ticks:
            self._next_ticks = ticks + FLUSH_PERIOD.total_seconds()
            self.try_to_move()

    def try_to_move(self) -> None:
        """`move`; without PostgreSQL, or in a folder that can't be written, it stays for the next time."""
        try:
            self.move()
        except (StoreUnavailable, ConfigurationError) as error:
            log.warning("requests_not_moved", error=error.message, bytes=self._spool.backlog_bytes())

    def move(self) -> int:
        """Move what waits, for half a second; return how many requests it were.

        Raises:
            StoreUnavailable, ConfigurationError: the rest stays where it is.
        """
        until_ticks = self._clock.ticks() + _LONGEST_SECONDS
        # Ours comes last, and stays one file for as long as PostgreSQL does not take the others.
        moved = self._move_sealed(until_ticks)
        self._spool.seal()
        return moved + self._move_sealed(until_ticks)

    def move_all(self) -> None:
        """Move what waits, however long it takes, and copy what living processes have not moved yet.

        Raises:
            StoreUnavailable, ConfigurationError: the rest stays where it is.
        """
        while self.move():
            pass
        for batch in self._spool.unsealed():
            self._add(batch)

    def _move_sealed(self, until_ticks: float) -> int:
        moved = 0
        for batch in self._spool.sealed():
            # Not behind the commit: a batch is forgotten when the next is asked for, and a PostgreSQL that
            # takes so long for each would get the first one for ever.
            if moved and self._clock.ticks() >= until_ticks:
                self._next_ticks = 0.0
                break
            self._add(batch)
            moved += len(batch)
        return moved

    def _add(self, batch: Sequence[LoggedRequest]) -> None:
        if batch:
            with self._store.transaction() as tx:
                tx.request_log.add(batch)

    def remove_old(self) -> int:
        """Remove some of what is older than it is kept; how many it were.

        Raises:
            StoreUnavailable.
        """
        with self._store.transaction() as tx:
            return tx.request_log.remove_before(self._clock.now() - self._kept_for, _REMOVED_AT_ONCE)
