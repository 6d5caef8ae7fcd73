"""A process's counts: made from the list, each of its entries fed, few tenants named."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from byok.core.metric_list import MAX_TENANTS, METRICS, KmsOutcome, Origin, SweeperFinding
from byok.core.model import Rotation, RotationReason, RotationState
from byok.core.reencryption import CampaignState
from byok.metrics import PrometheusMetrics
from byok.metrics.tenants import NamedTenants

AT = datetime(2026, 1, 1, tzinfo=UTC)
COUNTED = {metric.name for metric in METRICS if metric.origin is Origin.PROCESS}


def ended(state: RotationState = RotationState.FAILED) -> Rotation:
    return Rotation(
        UUID(int=1), UUID(int=2), RotationReason.SCHEDULED, state, "schedule", AT,
        finished_at=AT + timedelta(seconds=7),
    )  # fmt: skip


@pytest.fixture
def metrics() -> PrometheusMetrics:
    return PrometheusMetrics()


def page(metrics: PrometheusMetrics) -> str:
    registry = CollectorRegistry()
    registry.register(metrics)
    return generate_latest(registry).decode()


def fed(metrics: PrometheusMetrics) -> dict[str, list[tuple[str, float]]]:
    """Each metric's samples, without those that only say since when it is counted."""
    return {
        family.name: [(one.name, one.value) for one in family.samples if not one.name.endswith("_created")]
        for family in metrics.collect()
    }


def test_what_was_counted_is_on_the_page_and_what_may_happen_is_there_from_the_start(
    metrics: PrometheusMetrics,
) -> None:
    failed = 'byok_rotations_total{reason="scheduled",state="failed"}'
    orphans = 'byok_sweeper_findings_total{finding="orphan-rejected"}'
    for never_happened in (failed, orphans, "byok_integrity_alarms_total"):
        assert f"{never_happened} 0.0" in page(metrics)
    metrics.rotation_ended(ended())
    metrics.rotation_tried_again("kms-unavailable")
    metrics.sweeper_found(SweeperFinding.REPUBLISHED, 3)
    assert f"{failed} 1.0" in page(metrics)
    assert 'byok_rotation_seconds_sum{reason="scheduled"} 7.0' in page(metrics)
    assert 'byok_rotation_retries_total{code="kms-unavailable"} 1.0' in page(metrics)
    assert 'byok_sweeper_findings_total{finding="republished"} 3.0' in page(metrics)


def test_each_metric_of_the_list_is_fed_by_a_call_and_nothing_else_is_there(
    metrics: PrometheusMetrics,
) -> None:
    metrics.rotation_ended(ended())
    metrics.rotation_tried_again("kms-unavailable")
    metrics.rotation_step_took("generate", 0.1)
    metrics.kms_requested("Decrypt", KmsOutcome.OK, "acme", 0.1)
    metrics.dispatch_held_back("window-full")
    metrics.sweeper_found(SweeperFinding.PURGED, 1)
    metrics.integrity_alarm()
    metrics.campaign_ended(CampaignState.DONE)
    metrics.rows_rewritten(1)
    metrics.lease_taken("kms")
    metrics.leases_held(1)
    metrics.uses_recorded(1)
    metrics.stop_reached(timedelta(seconds=1))
    samples = fed(metrics)
    assert set(samples) == COUNTED
    assert {name for name, values in samples.items() if not any(value for _, value in values)} == set()


def test_a_tenant_is_named_from_its_first_trouble_on(metrics: PrometheusMetrics) -> None:
    metrics.kms_requested("Decrypt", KmsOutcome.OK, "acme", 0.1)
    assert "acme" not in page(metrics)
    metrics.kms_requested("Decrypt", KmsOutcome.DENIED, "acme", 0.1)
    metrics.kms_requested("Decrypt", KmsOutcome.OK, "acme", 0.1)
    metrics.kms_requested("Decrypt", KmsOutcome.OK, "globex", 0.1)
    shown = page(metrics)
    assert 'byok_kms_requests_total{operation="Decrypt",outcome="denied",tenant="acme"} 1.0' in shown
    assert 'byok_kms_requests_total{operation="Decrypt",outcome="ok",tenant="acme"} 1.0' in shown
    assert 'byok_kms_requests_total{operation="Decrypt",outcome="ok",tenant=""} 2.0' in shown
    assert 'byok_kms_request_seconds_count{operation="Decrypt"} 4.0' in shown


def test_beyond_so_many_tenants_all_are_others() -> None:
    named = NamedTenants()
    labels = [named.label(f"tenant-{number}", KmsOutcome.OUTAGE) for number in range(MAX_TENANTS + 5)]
    assert labels[:MAX_TENANTS] == [f"tenant-{number}" for number in range(MAX_TENANTS)]
    assert labels[MAX_TENANTS:] == ["other"] * 5
    assert named.label("tenant-0", KmsOutcome.OUTAGE) == "tenant-0"
    assert named.label(f"tenant-{MAX_TENANTS}", KmsOutcome.OK) == ""


def test_two_processes_worth_of_metrics_do_not_share_a_registry() -> None:
    PrometheusMetrics().integrity_alarm()
    assert "byok_integrity_alarms_total 0.0" in page(PrometheusMetrics())


def test_an_application_registers_them_with_its_own(metrics: PrometheusMetrics) -> None:
    registry = CollectorRegistry(auto_describe=True)  # as prometheus_client.REGISTRY is
    registry.register(metrics)
    metrics.integrity_alarm()
    assert "byok_integrity_alarms_total 1.0" in generate_latest(registry).decode()


def test_a_forked_child_begins_at_nothing_wherever_it_is_registered(metrics: PrometheusMetrics) -> None:
    registry = CollectorRegistry()
    registry.register(metrics)
    metrics.integrity_alarm()
    metrics.forget()
    assert "byok_integrity_alarms_total 0.0" in generate_latest(registry).decode()
    metrics.integrity_alarm()
    assert "byok_integrity_alarms_total 1.0" in generate_latest(registry).decode()
