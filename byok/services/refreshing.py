"""Renews leases in the background, before they end, so that no caller waits for KMS."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

from byok.errors import ByokError
from byok.logs import LogScope, get_logger
from byok.services.threads import Spawn, spawn

log = get_logger(__name__)

_MAX_THREADS = 4  # so that a customer whose KMS hangs does not hold up the others' renewals


class Refresher:
    """A few threads, while there is something to renew. What waits already is not added again."""

    def __init__(self, spawn: Spawn = spawn) -> None:
        self._spawn = spawn
        self.forget()

    def forget(self) -> None:
        """Forget what waits, and the threads: neither crosses a fork."""
        self._waiting: OrderedDict[Hashable, tuple[Callable[[], None], LogScope]] = OrderedDict()
        self._running: set[Hashable] = set()
        self._threads = 0
        self._lock = threading.Lock()

    def submit(self, what: Hashable, renewal: Callable[[], None], **names: str) -> None:
        """Run a renewal soon. What it raises is logged, with ``names``: the lease in hand is still good."""
        with self._lock:
            if what in self._waiting or what in self._running:
                return
            self._waiting[what] = renewal, LogScope(**names)
            if self._threads == _MAX_THREADS:
                return
            self._threads += 1
        try:
            self._spawn("byok-refresh", self.run)
        except RuntimeError as error:  # no thread to be had: a later caller tries again
            with self._lock:
                self._threads -= 1
            log.warning("lease_not_renewed", error="no-thread", why=str(error))

    def run(self) -> None:
        """Run what waits, until nothing does."""
        while (taken := self._next()) is not None:
            what, renewal, lines = taken
            with lines:
                try:
                    renewal()
                except ByokError as error:
                    log.warning("lease_not_renewed", error=error.code, why=error.message)
                except Exception:
                    log.exception("lease_not_renewed")
                finally:
                    with self._lock:
                        self._running.discard(what)

    def _next(self) -> tuple[Hashable, Callable[[], None], LogScope] | None:
        with self._lock:
            if not self._waiting:
                self._threads -= 1
                return None
            what, (renewal, lines) = self._waiting.popitem(last=False)
            self._running.add(what)
            return what, renewal, lines
