"""What operators are told in numbers."""

from prometheus_client import generate_latest

from byok.core.model import RotationReason, RotationState
from byok.metrics import PrometheusMetrics


def test_every_outcome_is_there_from_the_start_and_counts() -> None:
    metrics = PrometheusMetrics()
    failed = 'byok_rotations_total{reason="scheduled",state="failed"}'
    assert f"{failed} 0.0" in generate_latest(metrics._registry).decode()
    metrics.rotation_ended(RotationReason.SCHEDULED, RotationState.FAILED)
    metrics.rotation_tried_again("kms-unavailable")
    metrics.sweeper_found("republished", 3)
    page = generate_latest(metrics._registry).decode()
    assert f"{failed} 1.0" in page
    assert 'byok_rotation_retries_total{code="kms-unavailable"} 1.0' in page
    assert 'byok_sweeper_findings_total{finding="republished"} 3.0' in page


def test_two_processes_worth_of_metrics_do_not_share_a_registry() -> None:
    PrometheusMetrics()
    PrometheusMetrics()
