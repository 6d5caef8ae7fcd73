"""How workers and the command line print lines: JSON or for people, only what `redaction` lets through."""

import json
import logging
import sys
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, TextIO

import structlog

from byok.logs.context import current
from byok.logs.redaction import clean_named, clean_text, clean_value, describe_error, tell_exception

LogFormat = Literal["json", "console"]

_OURS = ("byok", "workers")
# At INFO SQLAlchemy logs statements with their parameters; at DEBUG botocore and urllib3 whole replies and
# headers. Held back whatever level somebody gives their loggers.
_QUIET = ("sqlalchemy", "alembic", "botocore", "boto3", "s3transfer", "urllib3")
_ATTRIBUTES = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime"}


def configure_logging(
    log_format: LogFormat,
    level: int = logging.INFO,
    trace_ids: Callable[[], Mapping[str, str]] = dict,
) -> None:
    """Send all logging of this process to standard error in one format.

    Below INFO ``level`` counts for byok's own lines alone. ``trace_ids``: of the span that a line is in.
    """
    handler = _Handler()
    handler.setFormatter(_Formatter(log_format, trace_ids))
    handler.addFilter(_is_let_through)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.INFO))
    for name in _OURS:
        logging.getLogger(name).setLevel(level if level < logging.INFO else logging.NOTSET)
    logging.captureWarnings(log_format == "json")


def log_uncaught() -> None:
    """Have exceptions that nobody catches end as log lines, not as tracebacks on standard error."""
    log = logging.getLogger("byok.uncaught")

    def tell(kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None) -> None:
        if not issubclass(kind, KeyboardInterrupt | SystemExit):
            log.critical("uncaught_exception", exc_info=(kind, error or kind(), traceback))

    sys.excepthook = tell
    threading.excepthook = lambda told: tell(told.exc_type, told.exc_value, told.exc_traceback)
    sys.unraisablehook = lambda told: tell(told.exc_type, told.exc_value, told.exc_traceback)


class _Handler(logging.StreamHandler[TextIO]):
    """To standard error. A line that can't be written is lost: what logging would print of it instead holds
    its arguments."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        """Say nothing."""


def _is_let_through(record: logging.LogRecord) -> bool:
    package = record.name.partition(".")[0]
    if package in _OURS:
        return True
    return record.levelno >= (logging.WARNING if package in _QUIET else logging.INFO)


class _Formatter(logging.Formatter):
    """Makes a line of a record. Never raises, and never prints what it was not told to."""

    def __init__(self, log_format: LogFormat, trace_ids: Callable[[], Mapping[str, str]]) -> None:
        super().__init__()
        self._trace_ids = trace_ids
        self._is_for_people = log_format == "console"
        self._render: structlog.typing.Processor = (
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
            if self._is_for_people
            else structlog.processors.JSONRenderer()
        )

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        try:
            return str(self._render(None, record.levelname, self._tell(record)))
        except Exception as error:  # noqa: BLE001  # a line must not cost a task, nor print its arguments
            told = {"event": "line_not_printable", "level": "error", "why": type(error).__name__}
            return json.dumps({**told, "logger": clean_text(record.name)})

    def _tell(self, record: logging.LogRecord) -> dict[str, Any]:
        event: dict[str, Any] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": _message(record),
        }
        extra = {name: value for name, value in vars(record).items() if name not in _ATTRIBUTES}
        for name, value in {**current(), **extra, **self._trace_ids()}.items():
            if value is not None:
                event[clean_text(name)] = clean_named(name, value)
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            told = tell_exception(error)
            event["exception"] = _for_people(told) if self._is_for_people else told
        return event


def _message(record: logging.LogRecord) -> str:
    """The record's text over arguments that may be shown."""
    if not isinstance(record.msg, str):
        return str(clean_value(record.msg))
    if not record.args:
        return clean_text(record.msg)
    arguments: Any
    if isinstance(record.args, Mapping):
        arguments = {name: clean_named(str(name), value) for name, value in record.args.items()}
    else:
        arguments = tuple(clean_value(value) for value in record.args)
    try:
        return clean_text(record.msg % arguments)
    except Exception as error:  # noqa: BLE001  # any: a text that does not fit its arguments
        return f"{clean_text(record.msg)} ({describe_error(error)})"


def _for_people(told: list[Mapping[str, Any]]) -> str:
    return "\n".join("\n    ".join([one["says"], *one["frames"]]) for one in told)
