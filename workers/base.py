"""What all tasks share: the process's services, and log lines bound to the task."""

import gc
import threading
from typing import Any

import structlog
from celery import Celery, Task

from byok.errors import ByokError
from byok.wiring import Runtime, Services, build

# The ids among the arguments, which log lines may name.
_NAMED = ("tenant", "key", "rotation_id", "campaign_id")
_building = threading.Lock()


def runtime_of(app: Celery) -> Runtime:
    """The services of this process, built on first use: after a fork, never before it."""
    with _building:
        runtime: Runtime | None = getattr(app, "byok_runtime", None)
        if runtime is None:
            runtime = app.byok_runtime = build(app.byok_settings, kind="worker")
            # One that has taken no lease yet is a worker all the same: `byok status` and alerts count them.
            runtime.services.watch.join()
            # What is there by now stays: out of the collector's sight, whose every full round would go over
            # it and hold up all threads for a tenth of a second.
            gc.collect()
            gc.freeze()
        return runtime


class ByokTask(Task):
    """Base of byok's tasks."""

    abstract = True
    # Errors of ours tell their story in one line and are logged without a traceback.
    throws = (ByokError,)

    @property
    def services(self) -> Services:
        """The services of this process."""
        return runtime_of(self.app).services

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # Celery's signature
        """Run the task with its id and the ids it was given on every log line."""
        names = {name: kwargs[name] for name in _NAMED if name in kwargs}
        with structlog.contextvars.bound_contextvars(task=self.name, task_id=self.request.id, **names):
            return super().__call__(*args, **kwargs)
