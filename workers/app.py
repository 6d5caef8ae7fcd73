"""The Celery application of the workers and of Beat."""

import logging
import sys
from typing import Any

from celery import Celery
from celery.signals import setup_logging, worker_init

from byok import tracing
from byok.broker import broker_settings
from byok.errors import ByokError
from byok.logs import configure_logging, log_uncaught
from byok.queue import COMMON_SETTINGS
from byok.settings import Settings
from byok.wiring.master_keys import load_ring
from workers import celery_lines, heartbeat, metrics
from workers.base import ByokTask, open_scopes
from workers.schedule import beat_schedule

# Each setting with its reason; docs/celery.md tells more.
WORKER_SETTINGS: dict[str, Any] = {
    # A task whose worker dies is delivered again; every task is safe to run twice.
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    # An attempt that failed is written down in PostgreSQL, and due again from there.
    "task_acks_on_failure_or_timeout": True,
    # Work waits in the queue, where another worker can take it and forced rotations come first.
    "worker_prefetch_multiplier": 1,
    # The work is waiting for KMS, PostgreSQL and Redis: threads wait as well as processes, in a
    # fraction of the memory. Each call has a timeout of its own, since threads know no hard limits.
    "worker_pool": "threads",
    # SIGTERM is a warm shutdown: running tasks end, however long they take. On SIGQUIT they get this
    # long; then the process ends, and the sweeper has another worker go on with them.
    "worker_soft_shutdown_timeout": 10.0,
    # Flower lives on events.
    "worker_send_task_events": True,
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
    # A worker outlives every outage of its broker; the default gives up after a hundred tries.
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "broker_channel_error_retry": True,
    # Threads can't be cancelled, and needn't: what a running rotation commits counts, and its message,
    # delivered again, finds nothing to do.
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    # Entries are in code and what was done when is in PostgreSQL: Beat needs no file to remember, and
    # any number of Beats may run at once.
    "beat_scheduler": "workers.heartbeat:NotingScheduler",
}


def make_app(settings: Settings) -> Celery:
    """A Celery app set up from ``settings``, with byok's tasks and schedule."""
    app = Celery("byok", task_cls=ByokTask, include=["workers.tasks"])
    app.conf.update(COMMON_SETTINGS)
    app.conf.update(broker_settings(settings.broker_url.get_secret_value()))
    app.conf.update(WORKER_SETTINGS)
    app.conf.update(
        worker_concurrency=settings.worker_concurrency,
        beat_schedule=beat_schedule(settings),
        # Beat looks this often whether something is due.
        beat_max_loop_interval=min(5.0, settings.dispatch_interval_seconds),
    )
    app.byok_settings = settings

    def set_up_logging(**_: object) -> None:
        level = logging.getLevelNamesMapping()[settings.log_level]
        configure_logging(settings.log_format, level, tracing.ids)
        log_uncaught()
        celery_lines.set_up()

    open_scopes()
    worker_init.connect(_require_master_keys, weak=False, dispatch_uid="byok-master-keys")
    worker_init.connect(_begin_to_trace, weak=False, dispatch_uid="byok-tracing")
    setup_logging.connect(set_up_logging, weak=False, dispatch_uid="byok")
    metrics.serve_when_ready(settings)
    heartbeat.beat_with(app)
    return app


def _require_master_keys(sender: Any, **_: object) -> None:  # noqa: ANN401  # Celery's worker
    """End a worker at its start whose ring can't be read or unwrapped: every task of it would fail."""
    try:
        load_ring(sender.app.byok_settings)
    except ByokError as error:
        remedy = f" → {error.remedy}" if error.remedy else ""
        sys.stderr.write(f"byok: {error.message} [{error.code}]{remedy}\n")
        # No Exception, which Celery would log and go on.
        raise SystemExit(error.exit_code) from None


def _begin_to_trace(sender: Any, **_: object) -> None:  # noqa: ANN401  # Celery's worker
    """Before its first task, and before it forks: the SDK's threads begin anew in children."""
    settings: Settings = sender.app.byok_settings
    if settings.tracing:
        tracing.switch_on("worker")
