"""One trace from a command over the worker's task to each request to KMS, as a collector gets it."""

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import timedelta

import pytest
import sqlalchemy as sa

from byok import tracing
from byok.embedded.stack import Stack
from byok.settings import child_environment
from byok.simulator.control import SimulatorControl
from tests.acceptance.conftest import Fleet, running_fleet
from tests.collector import Collector, Span, running_collector
from tests.customers import Customer, join

pytestmark = pytest.mark.slow

_TRACING = {"BYOK_TRACING": "true", "BYOK_LOG_FORMAT": "json", "OTEL_BSP_SCHEDULE_DELAY": "100"}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with running_collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def traced(stack: Stack, engine: sa.Engine, collector: Collector) -> Iterator[Fleet]:
    additions = {**_TRACING, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    with running_fleet(stack, engine, additions, "traced-") as fleet:
        yield fleet
    tracing.use(None)


@pytest.fixture(scope="module")
def customer(traced: Fleet, stack: Stack) -> Customer:
    customer = join(stack, traced.runtime, f"t-{uuid.uuid4().hex[:12]}")
    for key in ("pii", "notes"):
        traced.runtime.services.registry.create_key(
            customer.name,
            key,
            rotation_period=timedelta(hours=1),
            lease_ttl=timedelta(minutes=5),
            actor="test",
        )
        traced.wait_until(lambda key=key: traced.states(customer.name, key) == ["active"])  # type: ignore[misc]  # bound at once
    return customer


def _rotate_by_command(fleet: Fleet, collector: Collector, customer: Customer) -> str:
    """Ask for a rotation on the command line; the id of its trace."""
    show = fleet.runtime.services.registry.show_key  # else it would join one that is open
    fleet.wait_until(lambda: not any(one.is_open for one in show(customer.name, "pii").rotations))
    arguments = [sys.executable, "-m", "byok.cli", "key", "rotate", customer.name, "pii", "--json"]
    additions = {**fleet.stack.environment, **_TRACING, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    known = len(collector.spans)
    subprocess.run(arguments, env=child_environment(additions), check=True, capture_output=True, timeout=60)
    (published,) = [
        one for one in collector.spans[known:] if one.service == "byok-command" and "publish" in one.name
    ]
    return published.trace_id


def _trace(fleet: Fleet, collector: Collector, trace_id: str) -> list[Span]:
    def found() -> list[Span]:
        return [one for one in collector.spans if one.trace_id == trace_id]

    fleet.wait_until(lambda: any(one.name.startswith("run ") for one in found()))  # the last that ends
    return found()


def test_one_trace_from_the_command_to_kms(traced: Fleet, collector: Collector, customer: Customer) -> None:
    trace_id = _rotate_by_command(traced, collector, customer)
    spans = {one.name: one for one in _trace(traced, collector, trace_id)}
    published, ran = spans["publish byok.keys.rotate"], spans["run byok.keys.rotate"]
    assert (published.parent_id, published.service) == ("", "byok-command")
    assert (ran.parent_id, ran.service) == (published.span_id, "byok-worker")
    for step in ("generate", "validate", "promote"):
        assert spans[f"rotations {step}"].parent_id == ran.span_id
    assert spans["rotation generate"].parent_id == spans["rotations generate"].span_id
    made = spans["KMS.GenerateDataKeyWithoutPlaintext"]
    assert made.parent_id == spans["rotation generate"].span_id
    assert spans["KMS.Decrypt"].parent_id == spans["rotation validate"].span_id
    version = traced.runtime.services.registry.show_key(customer.name, "pii").versions[-1]
    assert made.attributes["aws.request_id"] == version.kms_request_id
    assert made.attributes["byok.outcome"] == "ok"
    assert made.attributes["byok.tenant_id"] == str(customer.tenant.id)
    assert spans["rotation generate"].attributes == {
        "byok.rotation_id": str(version.rotation_id),
        "byok.tenant": customer.name,
        "byok.key": "pii",
    }
    lines = [json.loads(line) for line in traced.worker.log_file.read_text().splitlines() if line[:1] == "{"]
    (done,) = [
        one
        for one in lines
        if one["event"] == "rotation_done" and one["rotation_id"] == str(version.rotation_id)
    ]
    assert done["trace_id"] == trace_id
    ended = [one for one in lines if one["event"].startswith("Task byok.keys.rotate[")]
    assert trace_id in {one.get("trace_id") for one in ended}


def test_an_outage_is_an_error_of_its_spans_without_a_text(
    traced: Fleet, collector: Collector, customer: Customer, stack: Stack
) -> None:
    control = SimulatorControl(stack.simulator.url)
    control.internal_error(operation="GenerateDataKeyWithoutPlaintext", key_arn=customer.kms_key)
    spans = _trace(traced, collector, _rotate_by_command(traced, collector, customer))
    control.clear_faults()
    failed = {one.name: one for one in spans if one.is_error}
    assert failed["KMS.GenerateDataKeyWithoutPlaintext"].status_text == "KMSInternalException"
    assert failed["rotation generate"].status_text == "kms-unavailable"
    assert failed["run byok.keys.rotate"].attributes["error.type"] == "kms-unavailable"
    assert customer.kms_key.encode() not in b"".join(collector.raw)
    traced.wait_until(lambda: "active" in traced.states(customer.name)[1:])


def test_what_a_task_sends_is_a_trace_of_its_own_with_a_link(
    traced: Fleet, collector: Collector, customer: Customer
) -> None:
    registry = traced.runtime.services.registry
    for key in ("pii", "notes"):
        registry.set_rotation(customer.name, key, actor="test", next_in=timedelta(0))
    traced.wait_until(lambda: any(one.name == "run byok.keys.rotate_many" for one in collector.spans))
    batch = next(one for one in collector.spans if one.name == "run byok.keys.rotate_many")
    (linked,) = batch.linked_traces
    assert batch.parent_id == ""
    tick = [one for one in collector.spans if one.trace_id == linked]
    traced.wait_until(lambda: any(one.name == "run byok.schedule.dispatch_due" for one in collector.spans))
    assert "publish byok.keys.rotate_many" in {one.name for one in tick}
