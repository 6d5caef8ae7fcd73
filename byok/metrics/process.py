"""Implements `byok.ports.Metrics` with Prometheus's instruments."""

from collections.abc import Iterator
from datetime import timedelta

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector

from byok.core import metric_list as metrics
from byok.core.metric_list import KmsOutcome, SweeperFinding
from byok.core.model import Rotation, RotationReason, RotationState
from byok.core.reencryption import OPEN_STATES, CampaignState
from byok.metrics.instruments import Instruments
from byok.metrics.tenants import NamedTenants


class PrometheusMetrics(Collector):
    """Counts of one process; what is collected is what it counted. Thread-safe.

    Under PROMETHEUS_MULTIPROC_DIR the counts are in files, which `ProcessFolder` adds up. Two of these in one
    process would write over each other's then: one vault a process.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin at 0, as a forked child does: what its parent counted, the parent tells."""
        self._registry = CollectorRegistry()
        self._instruments = Instruments(self._registry)
        self._named = NamedTenants()
        # Known from the start, so that the first failure is an increase that an alert can see.
        for reason in RotationReason:
            for state in (RotationState.DONE, RotationState.FAILED):
                self._instruments.count(metrics.ROTATIONS, reason.value, state.value, by=0)
        for finding in SweeperFinding:
            self._instruments.count(metrics.SWEEPER_FINDINGS, finding.value, by=0)
        for ended in set(CampaignState) - OPEN_STATES:
            self._instruments.count(metrics.CAMPAIGNS, ended.value, by=0)

    def collect(self) -> Iterator[Metric]:
        """The metrics now."""
        return iter(list(self._registry.collect()))

    def rotation_ended(self, rotation: Rotation) -> None:
        """See the port."""
        reason = rotation.reason.value
        self._instruments.count(metrics.ROTATIONS, reason, rotation.state.value)
        if rotation.finished_at is not None:
            took = rotation.finished_at - rotation.requested_at
            self._instruments.observe(metrics.ROTATION_SECONDS, took.total_seconds(), reason)

    def rotation_tried_again(self, code: str) -> None:
        """See the port."""
        self._instruments.count(metrics.ROTATION_RETRIES, code)

    def rotation_step_took(self, step: str, seconds: float) -> None:
        """See the port."""
        self._instruments.observe(metrics.ROTATION_STEP_SECONDS, seconds, step)

    def kms_requested(self, operation: str, outcome: KmsOutcome, tenant: str, seconds: float) -> None:
        """See the port."""
        name = self._named.label(tenant, outcome)
        self._instruments.count(metrics.KMS_REQUESTS, operation, outcome.value, name)
        self._instruments.observe(metrics.KMS_REQUEST_SECONDS, seconds, operation)

    def dispatch_held_back(self, reason: str) -> None:
        """See the port."""
        self._instruments.count(metrics.DISPATCH_HELD_BACK, reason)

    def sweeper_found(self, finding: SweeperFinding, count: int) -> None:
        """See the port."""
        self._instruments.count(metrics.SWEEPER_FINDINGS, finding.value, by=count)

    def integrity_alarm(self) -> None:
        """See the port."""
        self._instruments.count(metrics.INTEGRITY_ALARMS)

    def campaign_ended(self, state: CampaignState) -> None:
        """See the port."""
        self._instruments.count(metrics.CAMPAIGNS, state.value)

    def rows_rewritten(self, count: int) -> None:
        """See the port."""
        self._instruments.count(metrics.ROWS_REWRITTEN, by=count)

    def lease_taken(self, source: str) -> None:
        """See the port."""
        self._instruments.count(metrics.LEASES, source)

    def leases_held(self, count: int) -> None:
        """See the port."""
        self._instruments.set(metrics.LEASES_HELD, count)

    def uses_recorded(self, count: int) -> None:
        """See the port."""
        self._instruments.count(metrics.USES_RECORDED, by=count)

    def stop_reached(self, latency: timedelta) -> None:
        """See the port."""
        self._instruments.observe(metrics.STOP_SECONDS, latency.total_seconds())
