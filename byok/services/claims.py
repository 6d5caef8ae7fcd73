"""Claims: which worker has a rotation. Renewed while its process lives, void soon after its death."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context
from datetime import timedelta
from uuid import UUID

from byok.core.model import Rotation
from byok.errors import StoreUnavailable
from byok.logs import get_logger
from byok.ports import Clock, Store

log = get_logger(__name__)


class Claims:
    """The claims of one process.

    A claim lasts one sweeper period and is renewed by a thread three times as often, so that what a dead
    worker had is found by the second sweep after its death. A worker that merely stalls may lose its
    claim to another: both go on, and the compare-and-swap of each step lets one of them win.
    """

    def __init__(self, store: Store, clock: Clock, duration: timedelta) -> None:
        self._store = store
        self._clock = clock
        self._duration = duration
        self.forget()

    def close(self) -> None:
        """Let the thread end; what is still held lapses."""
        change = self._change
        self.forget()
        with change:
            change.notify_all()

    def forget(self) -> None:
        """Forget all claims and the thread: neither crosses a fork."""
        self._held: dict[UUID, Rotation] = {}
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None

    def take(self, rotation_ids: Sequence[UUID]) -> Sequence[Rotation]:
        """Claim rotations; those that are open and that no other worker has.

        Raises:
            StoreUnavailable.
        """
        with self._store.transaction() as tx:
            return tx.rotations.claim(rotation_ids, self._clock.now(), self._duration)

    @contextmanager
    def kept(self, rotations: Sequence[Rotation]) -> Iterator[None]:
        """Renew claims while the block runs."""
        with self._change:
            self._held.update((rotation.id, rotation) for rotation in rotations)
            if self._thread is None:
                # In an empty context, lest its lines be about the task that happens to start it.
                self._thread = threading.Thread(
                    target=Context().run, args=(self._renew_for_ever,), name="claims", daemon=True
                )
                self._thread.start()
            self._change.notify()
        try:
            yield
        finally:
            with self._change:
                for rotation in rotations:
                    if self._held.get(rotation.id) is rotation:  # not a later claim of another thread's
                        del self._held[rotation.id]

    def _renew_for_ever(self) -> None:
        change = self._change
        while change is self._change:  # until the process is told to forget
            with change:
                change.wait_for(lambda: bool(self._held) or change is not self._change)
            time.sleep(self._duration.total_seconds() / 3)
            try:
                self.renew()
            except Exception:
                # Were the thread to end here, every later claim of this process would lapse.
                log.exception("claims_not_renewed")

    def renew(self) -> None:
        """Renew what is held now; without the database the claims lapse, and that is safe."""
        with self._change:
            held = list(self._held.values())
        if not held:
            return
        try:
            with self._store.transaction() as tx:
                tx.rotations.renew(held, self._clock.now() + self._duration)
        except StoreUnavailable as error:
            log.warning("claims_not_renewed", count=len(held), error=error.message)
