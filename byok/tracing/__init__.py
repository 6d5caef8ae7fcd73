"""Traces, by OpenTelemetry where they are switched on; else nothing is done, nor imported.

Services and adapters know this module alone. A span carries names, ids and codes, never an argument, an
exception's text or a statement ([ADR 28](../../docs/adr/0028-logs-and-traces.md)).
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from byok.errors import ConfigurationError
from byok.ports import KmsRequest

# What a message carries of the trace that it was sent in.
TRACE_PARENT, TRACE_STATE, IS_LINKED = "traceparent", "tracestate", "byok-trace-is-linked"
HEADERS = (TRACE_PARENT, TRACE_STATE, IS_LINKED)


class Tracer(Protocol):
    """What makes spans. For each method see the function of its name."""

    def span(self, name: str, names: Mapping[str, str | int]) -> AbstractContextManager[object]:
        """A span around a block."""

    def publishing(self, task: str, queue: str) -> AbstractContextManager[Mapping[str, str]]:
        """A span around the sending of a message."""

    def running(
        self, task: str, task_id: str, headers: Mapping[str, object]
    ) -> AbstractContextManager[object]:
        """A span around a task."""

    def request_ended(self, request: KmsRequest) -> None:
        """A span of a request that has ended."""

    def ids(self) -> Mapping[str, str]:
        """The ids of the span around."""


_tracer: Tracer | None = None


def use(tracer: Tracer | None) -> None:
    """Have this process make its spans with ``tracer``; None: no more."""
    global _tracer  # one a process, like its loggers
    _tracer = tracer


def switch_on(kind: str) -> None:
    """Begin to trace this process, unless it does already. ``kind``: see `byok.wiring.build`.

    A service's spans go where its application sends its own. Workers and commands send theirs by OTLP over
    HTTP, set up by the standard's ``OTEL_*`` variables.

    Raises:
        ConfigurationError: OpenTelemetry is not installed.
    """
    if _tracer is not None:
        return
    try:
        from byok.tracing import otel
    except ImportError as error:
        raise ConfigurationError(
            f"BYOK_TRACING: {error.name} is not installed", remedy="pip install 'byok[otel]'"
        ) from error
    use(otel.tracer_of(kind))


def span(name: str, **names: str | int) -> AbstractContextManager[object]:
    """A span around a block, with names and ids as attributes ``byok.…``."""
    return nullcontext() if _tracer is None else _tracer.span(name, names)


def publishing(task: str, queue: str) -> AbstractContextManager[Mapping[str, str]]:
    """A span around the sending of a message; the headers that the message is to carry."""
    return nullcontext({}) if _tracer is None else _tracer.publishing(task, queue)


def running(task: str, task_id: str, headers: Mapping[str, object]) -> AbstractContextManager[object]:
    """A span around a task: in the trace of whoever sent it, or, where that was a task, in one of its own
    that links there. One sweep sends hundreds."""
    return nullcontext() if _tracer is None else _tracer.running(task, task_id, headers)


def request_ended(request: KmsRequest) -> None:
    """A span of a request to AWS that has just ended."""
    if _tracer is not None:
        _tracer.request_ended(request)


def ids() -> Mapping[str, str]:
    """``trace_id`` and ``span_id`` of the span around, for log lines."""
    return {} if _tracer is None else _tracer.ids()
