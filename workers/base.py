"""What all tasks share: the process's services, and log lines bound to the task."""

import gc
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from celery import Celery, Task
from celery.signals import task_postrun, task_prerun

from byok import tracing
from byok.errors import ByokError
from byok.logs import LogScope
from byok.wiring import Runtime, Services, build
from workers.arguments import HIDDEN, shown_arguments

# The arguments that log lines carry.
_NAMED = ("tenant", "key", "rotation_id", "campaign_id", "reseal_id")
_building = threading.Lock()


def runtime_of(app: Celery) -> Runtime:
    """The services of this process, built on first use.

    A child of a prefork pool builds its own, whatever its parent has: of that no thread came along.
    """
    with _building:
        builder, runtime = getattr(app, "byok_runtime", (None, None))
        if runtime is None or builder != os.getpid():
            runtime = build(app.byok_settings, kind="worker")
            app.byok_runtime = (os.getpid(), runtime)
            # One that has taken no lease yet is a worker all the same: `byok status` and alerts count them.
            runtime.services.watch.join()
            # What is there by now stays: out of the collector's sight, whose every full round would go over
            # it and hold up all threads for a tenth of a second.
            gc.collect()
            gc.freeze()
        return runtime


def _begin_anew() -> None:
    """In a forked child: a thread of its parent's may have held the lock, and is not here to let it go."""
    global _building  # a lock can't be reset
    _building = threading.Lock()


os.register_at_fork(after_in_child=_begin_anew)


class ByokTask(Task):
    """Base of byok's tasks."""

    abstract = True
    # Errors of ours tell their story in one line and are logged without a traceback.
    throws = (ByokError,)
    # What events and `celery inspect` tell of a task is chosen there.
    Request = "workers.request:ByokRequest"

    @property
    def services(self) -> Services:
        """The services of this process."""
        return runtime_of(self.app).services


def open_scopes() -> None:
    """Have the lines of each task carry its ids, also those that Celery writes when it has ended."""
    task_prerun.connect(_begin, weak=False, dispatch_uid="byok-scopes")
    task_postrun.connect(_end, weak=False, dispatch_uid="byok-scopes")


def _begin(
    sender: Task, task_id: str, args: Sequence[object], kwargs: Mapping[str, object], **_: object
) -> None:
    if isinstance(sender, ByokTask):
        scopes = sender.request.byok_scopes = ExitStack()
        scopes.enter_context(LogScope(task=sender.name, task_id=task_id, **_names_in(sender, args, kwargs)))
        headers = {name: sender.request.get(name) for name in tracing.HEADERS}
        scopes.enter_context(tracing.running(sender.name, task_id, headers))


def _end(sender: Task, retval: object, **_: object) -> None:
    if isinstance(sender, ByokTask):
        error = retval if isinstance(retval, Exception) else None
        sender.request.byok_scopes.__exit__(type(error) if error else None, error, None)


def _names_in(task: Task, args: Sequence[object], kwargs: Mapping[str, object]) -> dict[str, str]:
    shown = shown_arguments(task.run, args, kwargs) or {}
    return {name: str(shown[name]) for name in _NAMED if shown.get(name, HIDDEN) != HIDDEN}
