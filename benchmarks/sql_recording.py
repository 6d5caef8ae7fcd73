"""Records what a worker's tasks ask PostgreSQL: each statement as the driver gets it, and the round trips.

    BENCHMARK_RECORDING=FOLDER celery -A benchmarks.recording_app worker

When the worker ends, FOLDER/tasks.pickle has a `Task` for each task that ran, and FOLDER/*.trace what libpq
sent and got on each connection: from that, statements and round trips are counted, whatever the code above
libpq does.
"""

import os
import pickle
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from celery.signals import task_postrun, task_prerun, worker_shutdown
from psycopg.types.json import Json, Jsonb

from byok.queue import DISPATCH_DUE

FOLDER_VARIABLE = "BENCHMARK_RECORDING"
_NOT_COUNTED = ("BEGIN", "COMMIT", "ROLLBACK", ";")


@dataclass
class Statement:
    """As the driver gets it; ``many``: once for each of the parameters."""

    text: str
    parameters: Any
    many: bool


@dataclass
class Transaction:
    """``at`` orders transactions by their beginning."""

    at: int
    committed: bool = False
    statements: list[Statement] = field(default_factory=list)


@dataclass
class Task:
    """``name`` is Celery's; None for what threads of the worker's own do."""

    name: str | None
    transactions: list[Transaction] = field(default_factory=list)


@dataclass(frozen=True)
class JsonDocument:
    """Stands for psycopg's wrapper, which can't be pickled."""

    document: Any


@dataclass(frozen=True)
class Traffic:
    """Between libpq and PostgreSQL. A round trip is whatever goes out before an answer is waited for."""

    statements: int
    round_trips: int
    commits: int
    pings: int


class Recorder:
    """Follows Celery's signals and SQLAlchemy's events in all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._current = threading.local()
        self._begun = 0
        self.tasks: list[Task] = []

    def begin_task(self, task: Any, **_: object) -> None:  # noqa: ANN401  # Celery's signal
        self._current.task = self._new_task(task.name)

    def end_task(self, **_: object) -> None:
        del self._current.task

    def _new_task(self, name: str | None) -> Task:
        with self._lock:
            self.tasks.append(Task(name))
            return self.tasks[-1]

    def begin(self, _connection: sa.Connection) -> None:
        with self._lock:
            self._begun += 1
            self._current.transaction = Transaction(self._begun)

    def commit(self, _connection: sa.Connection) -> None:
        self._end(committed=True)

    def rollback(self, _connection: sa.Connection) -> None:
        self._end(committed=False)

    def _end(self, *, committed: bool) -> None:
        transaction: Transaction = self._current.transaction
        transaction.committed = committed
        task = getattr(self._current, "task", None) or self._new_task(_task_of_thread())
        task.transactions.append(transaction)

    def execute(
        self,
        _connection: sa.Connection,
        _cursor: object,
        text: str,
        parameters: Any,  # noqa: ANN401  # SQLAlchemy's event
        _context: object,
        many: bool,
    ) -> None:
        kept = [_picklable(one) for one in parameters] if many else _picklable(parameters)
        self._current.transaction.statements.append(Statement(text, kept, many))


def _task_of_thread() -> str | None:
    """The task that this thread works for, where it is not the task's own."""
    return DISPATCH_DUE if threading.current_thread().name.startswith("dispatch") else None


def _picklable(parameters: Mapping[str, Any] | Sequence[Any]) -> Any:  # noqa: ANN401  # either kind
    def kept(value: Any) -> Any:  # noqa: ANN401
        return JsonDocument(value.obj) if isinstance(value, Json | Jsonb) else value

    if isinstance(parameters, Mapping):
        return {name: kept(value) for name, value in parameters.items()}
    return tuple(kept(value) for value in parameters)


def record(folder: Path) -> None:
    """Record this process until the worker ends."""
    recorder, engine = Recorder(), sa.Engine
    sa.event.listen(engine, "begin", recorder.begin)
    sa.event.listen(engine, "commit", recorder.commit)
    sa.event.listen(engine, "rollback", recorder.rollback)
    sa.event.listen(engine, "before_cursor_execute", recorder.execute)
    sa.event.listen(engine, "connect", lambda connection, _: trace(connection, folder))
    task_prerun.connect(recorder.begin_task, weak=False)
    task_postrun.connect(recorder.end_task, weak=False)

    def write(**_: object) -> None:
        (folder / "tasks.pickle").write_bytes(pickle.dumps(recorder.tasks))

    worker_shutdown.connect(write, weak=False)


def trace(connection: "psycopg.Connection[Any]", folder: Path) -> None:
    """Write what libpq sends and gets from now on to a file of the connection's own."""
    file = folder / f"{os.getpid()}-{connection.pgconn.backend_pid}.trace"
    connection.pgconn.trace(os.open(file, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600))


def read_traffic(folder: Path) -> Traffic:
    """What the traces in ``folder`` have, of all connections."""
    seen: Counter[str] = Counter()
    for file in folder.glob("*.trace"):
        before = "B"
        for line in file.read_text(errors="replace").splitlines():
            _, direction, _, kind, *rest = [*line.split("\t"), "", "", ""]
            if direction not in ("F", "B"):  # a parameter with a line break in it goes on here
                continue
            seen["trips"] += direction == "F" and before == "B"
            before = direction
            text = rest[0].strip().strip('"')
            if kind == "Execute" or (kind == "Query" and text not in _NOT_COUNTED):
                seen["statements"] += direction == "F"
            seen["commits"] += kind == "Query" and text == "COMMIT"
            seen["pings"] += kind == "Query" and text == ";"
    return Traffic(seen["statements"], seen["trips"], seen["commits"], seen["pings"])
