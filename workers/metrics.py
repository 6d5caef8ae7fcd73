"""A worker's page of metrics, of one process or of a pool of them."""

from typing import Any

from celery.signals import worker_init, worker_process_init, worker_ready

from byok.logs import get_logger
from byok.metrics import ProcessFolder, serve
from byok.settings import Settings, multiprocess_folder
from workers.base import runtime_of

log = get_logger(__name__)


def serve_when_ready(settings: Settings) -> None:
    """Have this process serve its metrics once it is a worker, if the settings name a port."""
    if settings.metrics_port is not None:
        worker_init.connect(clear, weak=False, dispatch_uid="byok.metrics")
        worker_process_init.connect(warn, weak=False, dispatch_uid="byok.metrics")
        worker_ready.connect(_serve, weak=False, dispatch_uid="byok.metrics")


def clear(**_: object) -> None:
    """Before a pool is forked, when nobody has counted yet: remove what dead processes left."""
    if (folder := multiprocess_folder()) is not None:
        ProcessFolder(folder).clear()


def warn(**_: object) -> None:
    """In each process of a prefork pool, and of no other pool: say so if its counts are seen by nobody."""
    if multiprocess_folder() is None:
        log.warning("metrics_not_collected", variable="PROMETHEUS_MULTIPROC_DIR", see="docs/metrics.md")


def _serve(sender: Any, **_: object) -> None:  # noqa: ANN401  # Celery's consumer
    settings: Settings = sender.app.byok_settings
    assert settings.metrics_port is not None
    folder = multiprocess_folder()
    # Of a prefork pool the parent serves what its children count, and has no services of its own.
    collector = runtime_of(sender.app).metrics if folder is None else ProcessFolder(folder)
    serve(collector, settings.metrics_address, settings.metrics_port)
