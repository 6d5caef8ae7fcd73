"""Flower's application with a table of URLs of our own before its own: what is not in it is closed.

Flower administers workers: by `/api/…` whoever is signed in may send any task with any arguments, revoke
tasks, end workers, change their pools, queues and limits; `/metrics` it shows to everybody. Its option
``read_only`` refuses such acts one by one. Here nothing is served but what the table names: Tornado asks the
handlers that were added before Flower's own, and the table's last row catches all the rest.
`tests/unit/flower` walks all rows of Flower's.
"""

from collections.abc import Callable
from typing import Any, Final

from celery import Celery
from flower.app import Flower
from flower.events import Events
from flower.views import BaseHandler
from flower.views.auth import LoginHandler, LogoutHandler
from flower.views.monitor import Healthcheck
from flower.views.tasks import TasksDataTable, TasksView, TaskView
from flower.views.workers import WorkersView, WorkerView
from tornado.ioloop import PeriodicCallback
from tornado.web import HTTPError, StaticFileHandler, authenticated, url

from byok.errors import QueueUnavailable
from byok.logs import get_logger

log = get_logger(__name__)

# Where an operator still finds a worker that is gone, with its name and what it did.
OFFLINE_WORKERS_SECONDS: Final = 3600.0
_PURGE_EVERY_SECONDS: Final = 60.0


class Closed(BaseHandler):
    """A handler of ours and the base of Flower's own: it asks who is there first, and only shows."""

    SUPPORTED_METHODS: tuple[str, ...] = ("GET",)

    def prepare(self) -> None:
        """Ask for the password before anything else; pages then see to a sign-in elsewhere."""
        _ = self.current_user

    def get_current_user(self) -> Any:  # noqa: ANN401  # Flower's signature
        """Who it is, as Flower finds out."""
        try:
            return super().get_current_user()
        except TypeError:  # what is not ASCII, Flower can't compare
            raise HTTPError(401) from None

    def set_default_headers(self) -> None:
        """Keep pages out of frames and caches."""
        super().set_default_headers()
        self.set_header("X-Frame-Options", "DENY")
        self.set_header("Cache-Control", "no-store")
        self.set_header("Referrer-Policy", "same-origin")


class Refusal(Closed):
    """What is not in the table."""

    SUPPORTED_METHODS = ("GET", "HEAD", "POST", "DELETE", "PATCH", "PUT", "OPTIONS")

    def prepare(self) -> None:
        """Say that it is closed, to whoever may know."""
        super().prepare()
        raise HTTPError(403, "byok keeps this part of Flower closed: see docs/flower.md")


class Workers(Closed, WorkersView):
    """The workers."""


class Worker(Closed, WorkerView):
    """One worker."""


class Tasks(Closed, TasksView):
    """The page that shows the tasks."""


class TaskRows(Closed, TasksDataTable):
    """The rows of that page, which it asks for by POST."""

    SUPPORTED_METHODS = ("GET", "POST")


class Task(Closed, TaskView):
    """One task."""


class Queues(Closed):
    """How many messages wait. Flower's own page knows neither our Sentinels nor their TLS."""

    @authenticated
    async def get(self) -> None:
        """Show them."""
        try:
            depths = await self.application.io_loop.run_in_executor(None, self.application.depths)
        except QueueUnavailable as error:
            log.warning("queues_not_shown", error=error.message)
            depths = {}
        queues = [{"name": name, "messages": depth} for name, depth in depths.items()]
        self.render("broker.html", broker_url=self.application.broker_name, queues=queues)


class ShownEvents(Events):
    """What workers tell. What senders tell of tasks is theirs, and may hold any argument."""

    def on_event(self, event: dict[str, Any]) -> None:
        """Take an event, unless a sender wrote it."""
        if event["type"] != "task-sent":
            super().on_event(event)


class ClosedFlower(Flower):
    """Flower, of which only the table below is served.

    Args:
        options: Flower's own, as `flower.options` defines them.
        capp: a Celery app for events and inspection.
        depths: how many messages wait in each queue; raises QueueUnavailable.
        broker_name: where the queue is, to be shown.
        settings: Tornado's, as `flower.urls.settings` has them.
    """

    def __init__(
        self,
        options: Any,  # noqa: ANN401  # Tornado makes its attributes up
        capp: Celery,
        depths: Callable[[], dict[str, int]],
        broker_name: str,
        **settings: Any,  # noqa: ANN401  # Tornado's
    ) -> None:
        super().__init__(options=options, capp=capp, **settings)
        self.depths = depths
        self.broker_name = broker_name
        self.events = ShownEvents(
            capp,
            io_loop=self.io_loop,
            db=options.db,
            persistent=options.persistent,
            state_save_interval=options.state_save_interval,
            enable_events=options.enable_events,
            max_workers_in_memory=options.max_workers,
            max_tasks_in_memory=options.max_tasks,
        )
        self._offline_since: dict[str, float] = {}
        self.add_handlers(".*", table(options.url_prefix or "", settings["static_path"]))

    def start(self) -> None:
        """Serve until stopped."""
        PeriodicCallback(self.forget_offline_workers, _PURGE_EVERY_SECONDS * 1000).start()
        super().start()

    def forget_offline_workers(self) -> None:
        """Drop all that is kept of workers that are gone: each new host or container brings a new name."""
        state, now = self.events.state, self.io_loop.time()
        alive = {name for name, worker in state.workers.items() if worker.alive}
        gone = {*state.workers, *state.counter, *self.inspector.workers} - alive
        self._offline_since = {name: self._offline_since.get(name, now) for name in gone}
        for name, since in self._offline_since.items():
            if now - since >= OFFLINE_WORKERS_SECONDS:
                for kept in (state.workers, state.counter, self.inspector.workers):
                    kept.pop(name, None)
                state.metrics.remove_workers({name})


def table(url_prefix: str, static_path: str) -> list[url]:
    """Every URL that is served, under a prefix, and what serves it."""
    root = f"/{prefix}" if (prefix := url_prefix.strip("/")) else ""
    return [
        url(f"{root}/", Workers, name="main"),
        url(f"{root}/workers", Workers, name="workers"),
        url(f"{root}/worker/(.+)", Worker, name="worker"),
        url(f"{root}/tasks", Tasks, name="tasks"),
        url(f"{root}/tasks/datatable", TaskRows),
        url(f"{root}/task/(.+)", Task, name="task"),
        url(f"{root}/broker", Queues, name="broker"),
        url(f"{root}/healthcheck", Healthcheck),
        url(f"{root}/static/(.*)", StaticFileHandler, {"path": static_path}),
        # For those who sign in elsewhere.
        url(f"{root}/login/?", LoginHandler),
        url(f"{root}/logout", LogoutHandler, name="logout"),
        url(".*", Refusal),
    ]
