"""Writes the sign of life that ``byok-health`` reads: see `byok.health`."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery import Celery, bootsteps
from celery.beat import Scheduler
from celery.signals import beat_init, worker_init, worker_shutdown

from byok import health
from byok.errors import ByokError
from byok.logs import get_logger
from byok.settings import Settings
from byok.wiring import store_ping

log = get_logger(__name__)


class Heartbeat:
    """The sign of life of this process.

    It is written by a thread of its own: while the broker is away, a worker's main thread does nothing but
    wait for it, and lives. A second thread asks PostgreSQL, since a database that hangs must not look like a
    process that does.
    """

    def __init__(self, file: Path, ping_store: Callable[[], None] | None = None) -> None:
        self._file = file
        self._ping_store = ping_store
        self._looped_at = health.now_seconds()
        self._connected = False
        self._store_seen_at = 0.0
        self._ended = threading.Event()

    def start(self) -> None:
        """Begin to write."""
        self._write()
        threading.Thread(target=self._write_for_ever, name="byok-heartbeat", daemon=True).start()
        if self._ping_store is not None:
            threading.Thread(target=self._ping_for_ever, name="byok-ping", daemon=True).start()

    def close(self) -> None:
        """Leave no sign behind."""
        self._ended.set()
        self._file.unlink(missing_ok=True)

    def looped(self) -> None:
        """The main loop came round."""
        self._looped_at = health.now_seconds()

    def connected(self) -> None:
        """The broker answers."""
        self.looped()
        self._connected = True

    def disconnected(self) -> None:
        """The broker does not answer."""
        self._connected = False

    def _write_for_ever(self) -> None:
        while not self._ended.wait(health.WRITTEN_EVERY_SECONDS):
            self._write()

    def _write(self) -> None:
        sign = health.Sign(health.now_seconds(), self._looped_at, self._connected, self._store_seen_at)
        try:
            health.write(self._file, sign)
        except OSError as error:
            log.warning("sign_of_life_not_written", file=str(self._file), error=error.strerror)

    def _ping_for_ever(self) -> None:
        assert self._ping_store is not None
        while not self._ended.is_set():
            try:
                self._ping_store()
                self._store_seen_at = health.now_seconds()
            except ByokError as error:
                log.warning("postgresql_does_not_answer", error=error.message)
            except Exception:
                # Were the thread to end here, the process would never be ready again.
                log.exception("postgresql_does_not_answer")
            self._ended.wait(health.PINGED_EVERY_SECONDS)


def heartbeat_of(app: Celery) -> Heartbeat | None:
    """The heartbeat of this process; None where none is wanted."""
    heartbeat: Heartbeat | None = getattr(app, "byok_heartbeat", None)
    return heartbeat


class ConsumerStep(bootsteps.StartStopStep):
    """Notes when a worker has its broker, and that its event loop comes round meanwhile."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, c: Any) -> None:  # noqa: ANN401  # Celery's consumer
        """The worker consumes from now on. What is in the timer here is cancelled with the connection."""
        if (heartbeat := heartbeat_of(c.app)) is not None:
            heartbeat.connected()
            c.timer.call_repeatedly(health.WRITTEN_EVERY_SECONDS, heartbeat.looped)

    def stop(self, c: Any) -> None:  # noqa: ANN401  # Celery's consumer
        """The connection is lost, or the worker ends."""
        if (heartbeat := heartbeat_of(c.app)) is not None:
            heartbeat.disconnected()


class NotingScheduler(Scheduler):
    """Beat's scheduler, which notes that it ticks and whether the broker takes its ticks."""

    def tick(self, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401  # Celery's signature
        """Let one entry go, if one is due."""
        if (heartbeat := heartbeat_of(self.app)) is not None:
            heartbeat.looped()
        return super().tick(*arguments, **named)

    def apply_async(self, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401  # Celery's signature
        """Publish an entry's task."""
        heartbeat = heartbeat_of(self.app)
        try:
            sent = super().apply_async(*arguments, **named)
        except Exception:
            if heartbeat is not None:
                heartbeat.disconnected()
            raise
        if heartbeat is not None:
            heartbeat.connected()
        return sent

    def close(self) -> None:
        """Beat ends, and so does its sign of life."""
        try:
            super().close()
        finally:
            if (heartbeat := heartbeat_of(self.app)) is not None:
                heartbeat.close()


def beat_with(app: Celery) -> None:
    """Have each worker and Beat of this app write signs of life, if its settings name a folder."""
    worker_init.connect(_begin_of_worker, weak=False, dispatch_uid="byok.heartbeat")
    worker_shutdown.connect(_end, weak=False, dispatch_uid="byok.heartbeat")
    beat_init.connect(_begin_of_beat, weak=False, dispatch_uid="byok.heartbeat")
    app.steps["consumer"].add(ConsumerStep)


def _begin_of_worker(sender: Any, **_: object) -> None:  # noqa: ANN401  # Celery's worker
    # Not by the worker's services: a pool of processes is forked after this, and those are built behind it.
    _begin(sender.app, "worker", store_ping)


def _begin_of_beat(sender: Any, **_: object) -> None:  # noqa: ANN401  # Celery's Beat
    _begin(sender.app, "beat")


def _begin(app: Celery, role: str, ping_by: Callable[[Settings], Callable[[], None]] | None = None) -> None:
    settings: Settings = app.byok_settings
    if settings.health_folder is not None:
        ping_store = None if ping_by is None else ping_by(settings)
        app.byok_heartbeat = Heartbeat(health.file_of(settings.health_folder, role), ping_store)
        app.byok_heartbeat.start()


def _end(sender: Any, **_: object) -> None:  # noqa: ANN401  # Celery's worker
    if (heartbeat := heartbeat_of(sender.app)) is not None:
        heartbeat.close()
