"""Renews leases in the background, before they end, so that no caller waits for KMS."""

import threading
from collections import deque
from collections.abc import Callable

from byok.errors import ByokError
from byok.logs import get_logger
from byok.services.threads import Spawn, spawn

log = get_logger(__name__)


class Refresher:
    """One thread, while there is something to renew, that runs renewals one after the other."""

    def __init__(self, spawn: Spawn = spawn) -> None:
        self._spawn = spawn
        self.forget()

    def forget(self) -> None:
        """Forget what waits, and the thread: neither crosses a fork."""
        self._waiting: deque[Callable[[], None]] = deque()
        self._lock = threading.Lock()
        self._is_running = False

    def submit(self, renewal: Callable[[], None]) -> None:
        """Run a renewal soon. What it raises is logged: the lease in hand is still good."""
        with self._lock:
            self._waiting.append(renewal)
            if self._is_running:
                return
            self._is_running = True
        self._spawn("byok-refresh", self.run)

    def run(self) -> None:
        """Run what waits, until nothing does."""
        while (renewal := self._next()) is not None:
            try:
                renewal()
            except ByokError as error:
                log.warning("lease_not_renewed", error=error.code, why=error.message)
            except Exception:
                log.exception("lease_not_renewed")

    def _next(self) -> Callable[[], None] | None:
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._is_running = False
            return None
