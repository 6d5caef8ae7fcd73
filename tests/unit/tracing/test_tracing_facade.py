"""Tracing that is off costs nothing and imports nothing; switched on without its library it says so."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from uuid import UUID

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from byok import tracing
from byok.core.arns import KmsKeyArn
from byok.core.metric_list import KmsOutcome
from byok.core.model import Connection
from byok.errors import ConfigurationError
from byok.ports import KmsRequest
from byok.settings import child_environment
from byok.tracing.otel import OpenTelemetryTracer

CONNECTION = Connection(
    UUID(int=1),
    KmsKeyArn.parse("arn:aws:kms:eu-central-1:222222222001:key/00000000-0000-4000-8000-000000000001"),
    "external",
    tenant_name="acme",
)


@pytest.fixture
def made() -> Iterator[InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.use(OpenTelemetryTracer(provider))
    yield exporter
    tracing.use(None)
    provider.shutdown()


def test_without_it_nothing_is_imported() -> None:
    program = (
        "import sys, byok, workers.app; from byok import tracing\n"
        "with tracing.span('a', tenant='x'), tracing.running('t', 'i', {}):\n"
        "    with tracing.publishing('t', 'q') as sent:\n"
        "        assert not sent and not tracing.ids()\n"
        # redis-py looks for the metrics of the library, where that is installed.
        "assert not {'byok.tracing.otel', 'opentelemetry.sdk.trace'} & {*sys.modules}\n"
    )
    _run(program)


def test_without_the_library_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "byok.tracing.otel")
    monkeypatch.delattr(tracing, "otel")
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ConfigurationError, match="not installed") as refused:
        tracing.switch_on("worker")
    assert refused.value.remedy == "pip install 'byok[otel]'"


def test_a_message_carries_the_trace_and_whether_a_task_sent_it(made: InMemorySpanExporter) -> None:
    with tracing.publishing("task", "queue") as by_a_caller:
        pass
    with tracing.running("tick", "1", {}), tracing.publishing("task", "queue") as by_a_task:
        pass
    assert by_a_caller.keys() == {"traceparent"}
    assert by_a_task.keys() == {"traceparent", "byok-trace-is-linked"}
    made.clear()
    for headers in (by_a_caller, by_a_task):
        with tracing.running("task", "2", headers):
            pass
    child, linked = made.get_finished_spans()
    assert child.parent is not None
    assert f"{child.parent.trace_id:032x}" in by_a_caller["traceparent"]
    assert linked.parent is None
    assert f"{linked.links[0].context.trace_id:032x}" in by_a_task["traceparent"]


@pytest.mark.parametrize("headers", [{"traceparent": 7}, {"traceparent": "x"}, {"traceparent": ["00"]}, {}])
def test_a_strangers_headers_begin_a_trace(made: InMemorySpanExporter, headers: Mapping[str, object]) -> None:
    with tracing.running("task", "1", headers):
        assert len(tracing.ids()["trace_id"]) == 32
    (span,) = made.get_finished_spans()
    assert span.parent is None


def test_an_exception_leaves_its_code_and_no_text(made: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="hunter2"), tracing.span("step", tenant="acme"):
        raise ValueError("hunter2")
    (span,) = made.get_finished_spans()
    assert span.status.description == "ValueError"
    assert dict(span.attributes or {}) == {"byok.tenant": "acme", "error.type": "ValueError"}
    assert span.events == ()


def test_a_request_that_failed_aside_is_no_error(made: InMemorySpanExporter) -> None:
    for is_aside in (False, True):
        tracing.request_ended(
            KmsRequest(
                "Decrypt",
                CONNECTION,
                KmsOutcome.INTEGRITY,
                "InvalidCiphertextException",
                "r-1",
                0.5,
                is_aside,
            )
        )
    failed, aside = made.get_finished_spans()
    assert (failed.name, failed.status.is_ok, aside.status.is_ok) == ("KMS.Decrypt", False, True)
    assert failed.end_time is not None
    assert failed.start_time is not None
    assert failed.end_time - failed.start_time == 500_000_000


def test_a_command_does_not_wait_for_a_collector_that_is_away(unused_port: int) -> None:
    program = "from byok import tracing\ntracing.switch_on('command')\nwith tracing.span('a'): pass\n"
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{unused_port}",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "100",  # seconds
    }
    _run(program, environment)


def test_a_services_spans_go_to_its_applications_provider() -> None:
    _run(
        "from opentelemetry import trace\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "from opentelemetry.sdk.trace.export import SimpleSpanProcessor\n"
        "from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter\n"
        "from byok import tracing\n"
        "tracing.switch_on('service')\n"  # before the application has set one up
        "exporter, provider = InMemorySpanExporter(), TracerProvider()\n"
        "provider.add_span_processor(SimpleSpanProcessor(exporter))\n"
        "trace.set_tracer_provider(provider)\n"
        "with provider.get_tracer('app').start_as_current_span('request'), tracing.span('a'): pass\n"
        "ours, theirs = exporter.get_finished_spans()\n"
        "assert (ours.name, ours.parent.span_id) == ('a', theirs.context.span_id)\n"
    )


def _run(program: str, environment: Mapping[str, str] | None = None) -> None:
    """A process of its own: a provider is one for all."""
    command = [sys.executable, "-c", program]
    subprocess.run(command, env=child_environment(environment or {}), check=True, timeout=60)
