"""Implements `byok.tracing.Tracer` with OpenTelemetry. Imported only where tracing is switched on."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from byok.core.metric_list import KmsOutcome
from byok.errors import ByokError
from byok.ports import KmsRequest
from byok.tracing import IS_LINKED, TRACE_PARENT, TRACE_STATE

# Trace context alone: baggage may hold what somebody put there, and would reach Redis.
_PROPAGATOR = TraceContextTextMapPropagator()
_IN_TASK = contexts.create_key("byok-in-task")
# Whoever waits at a terminal is not to wait for a collector that is away.
_PATIENCE_OF_COMMANDS_SECONDS = 2.0
_OF_STS = frozenset({"AssumeRole", "GetCallerIdentity"})


def tracer_of(kind: str) -> "OpenTelemetryTracer":
    """A tracer for a process of this kind. A service's provider is its application's."""
    if kind == "service":
        return OpenTelemetryTracer(trace.get_tracer_provider())
    ours = Resource({"service.name": f"byok-{kind}", "service.version": version("byok")})
    named = ours.merge(OTELResourceDetector().detect())  # what OTEL_* says goes first
    provider = TracerProvider(resource=Resource.create(named.attributes))
    # None: what OTEL_EXPORTER_OTLP_TIMEOUT says, or 10 s
    timeout_seconds = _PATIENCE_OF_COMMANDS_SECONDS if kind == "command" else None
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=timeout_seconds)))
    return OpenTelemetryTracer(provider)


class OpenTelemetryTracer:
    """Makes spans that hold names, ids and codes."""

    def __init__(self, provider: trace.TracerProvider) -> None:
        self._tracer = provider.get_tracer("byok", version("byok"))

    @contextmanager
    def span(
        self,
        name: str,
        names: Mapping[str, str | int],
        kind: SpanKind = SpanKind.INTERNAL,
        links: Sequence[Link] = (),
    ) -> Iterator[None]:
        """See `byok.tracing.span`."""
        with self._tracer.start_as_current_span(
            name,
            kind=kind,
            links=links,
            attributes={one if "." in one else f"byok.{one}": value for one, value in names.items()},
            record_exception=False,  # its text and its frames may hold anything
            set_status_on_exception=False,
        ) as span:
            try:
                yield
            except Exception as error:
                code = error.code if isinstance(error, ByokError) else type(error).__name__
                span.set_status(StatusCode.ERROR, code)
                span.set_attribute("error.type", code)
                raise

    @contextmanager
    def publishing(self, task: str, queue: str) -> Iterator[Mapping[str, str]]:
        """See `byok.tracing.publishing`."""
        with self.span(f"publish {task}", {"messaging.destination.name": queue}, SpanKind.PRODUCER):
            headers: dict[str, str] = {}
            _PROPAGATOR.inject(headers)
            if headers and contexts.get_value(_IN_TASK):
                headers[IS_LINKED] = "1"
            yield headers

    @contextmanager
    def running(self, task: str, task_id: str, headers: Mapping[str, object]) -> Iterator[None]:
        """See `byok.tracing.running`."""
        known = {
            name: value for name in (TRACE_PARENT, TRACE_STATE) if isinstance(value := headers.get(name), str)
        }
        around = _PROPAGATOR.extract(known, contexts.Context())
        links = []
        if headers.get(IS_LINKED):
            links, around = [Link(trace.get_current_span(around).get_span_context())], contexts.Context()
        token = contexts.attach(contexts.set_value(_IN_TASK, True, around))
        try:
            with self.span(f"run {task}", {"messaging.message.id": task_id}, SpanKind.CONSUMER, links):
                yield
        finally:
            contexts.detach(token)

    def request_ended(self, request: KmsRequest) -> None:
        """See `byok.tracing.request_ended`."""
        ended_ns = time.time_ns()
        service = "STS" if request.operation in _OF_STS else "KMS"
        span = self._tracer.start_span(
            f"{service}.{request.operation}",
            kind=SpanKind.CLIENT,
            start_time=ended_ns - int(request.duration_seconds * 1e9),
            attributes={
                "rpc.system": "aws-api",
                "rpc.service": service,
                "rpc.method": request.operation,
                "aws.request_id": request.request_id,
                "byok.outcome": request.outcome.value,
                "byok.tenant": request.connection.tenant_name,
                "byok.tenant_id": str(request.connection.tenant_id),
            },
        )
        if request.outcome is not KmsOutcome.OK:
            span.set_attribute("error.type", request.code)
            if not request.is_aside:
                span.set_status(StatusCode.ERROR, request.code)
        span.end(ended_ns)

    def ids(self) -> Mapping[str, str]:
        """See `byok.tracing.ids`."""
        here = trace.get_current_span().get_span_context()
        if not here.is_valid:
            return {}
        return {
            "trace_id": trace.format_trace_id(here.trace_id),
            "span_id": trace.format_span_id(here.span_id),
        }
