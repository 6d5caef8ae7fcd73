"""Implements `byok.ports.Metrics` with Prometheus counters.

Counted per process. The workers' pool is threads, so that a worker is one process and one page.
"""

from collections.abc import Sequence
from datetime import timedelta

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from byok.core.model import RotationReason, RotationState
from byok.core.reencryption import OPEN_STATES, CampaignState


class PrometheusMetrics:
    """Counters of one process. One gauge alone names tenants, and only a few: cardinality stays bounded."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._rotations = Counter(
            "byok_rotations",
            "Rotations that came to their end, by reason and state (done, failed).",
            ["reason", "state"],
            registry=self._registry,
        )
        self._retries = Counter(
            "byok_rotation_retries",
            "Attempts that failed and will be followed by another, by error code.",
            ["code"],
            registry=self._registry,
        )
        self._held_back = Counter(
            "byok_dispatch_held_back",
            "Runs of the dispatcher that left due keys for later, by reason.",
            ["reason"],
            registry=self._registry,
        )
        self._findings = Counter(
            "byok_sweeper_findings",
            "What the sweeper had to mend, by kind.",
            ["finding"],
            registry=self._registry,
        )
        self._alarms = Counter(
            "byok_integrity_alarms",
            "Versions whose record and KMS key don't belong together: page somebody.",
            registry=self._registry,
        )
        self._campaigns = Counter(
            "byok_campaigns",
            "Campaigns of re-encryption that ended, by state.",
            ["state"],
            registry=self._registry,
        )
        self._rewritten = Counter(
            "byok_rows_rewritten", "Rows of the application that were re-encrypted.", registry=self._registry
        )
        self._leases = Counter(
            "byok_leases",
            "Leases that this process took, by where they came from (cache, kms).",
            ["source"],
            registry=self._registry,
        )
        self._uses = Counter(
            "byok_uses_recorded",
            "Encryptions and decryptions that this process wrote to the usage ledger.",
            registry=self._registry,
        )
        self._stops = Histogram(
            "byok_stop_seconds",
            "From the moment that a stop was noticed until this process had dropped the tenant's leases.",
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300),
            registry=self._registry,
        )
        self._worst_stop = Gauge(
            "byok_worst_revocation_seconds",
            "The longest that a stop of this tenant took to reach the last process, within 90 days; who does"
            " not answer counts until its leases end. Slowest tenants only.",
            ["tenant"],
            registry=self._registry,
        )
        # Known from the start, so that the first failure is an increase that an alert can see.
        for reason in RotationReason:
            for state in (RotationState.DONE, RotationState.FAILED):
                self._rotations.labels(reason.value, state.value)
        for ended in set(CampaignState) - OPEN_STATES:
            self._campaigns.labels(ended.value)

    def rotation_ended(self, reason: RotationReason, state: RotationState) -> None:
        """See the port."""
        self._rotations.labels(reason.value, state.value).inc()

    def rotation_tried_again(self, code: str) -> None:
        """See the port."""
        self._retries.labels(code).inc()

    def dispatch_held_back(self, reason: str) -> None:
        """See the port."""
        self._held_back.labels(reason).inc()

    def sweeper_found(self, finding: str, count: int) -> None:
        """See the port."""
        self._findings.labels(finding).inc(count)

    def integrity_alarm(self) -> None:
        """See the port."""
        self._alarms.inc()

    def campaign_ended(self, state: CampaignState) -> None:
        """See the port."""
        self._campaigns.labels(state.value).inc()

    def rows_rewritten(self, count: int) -> None:
        """See the port."""
        self._rewritten.inc(count)

    def lease_taken(self, source: str) -> None:
        """See the port."""
        self._leases.labels(source).inc()

    def uses_recorded(self, count: int) -> None:
        """See the port."""
        self._uses.inc(count)

    def stop_reached(self, latency: timedelta) -> None:
        """See the port."""
        self._stops.observe(latency.total_seconds())

    def worst_stops(self, latencies: Sequence[tuple[str, timedelta]]) -> None:
        """See the port."""
        self._worst_stop.clear()
        for tenant, latency in latencies:
            self._worst_stop.labels(tenant).set(latency.total_seconds())

    def serve(self, address: str, port: int) -> None:
        """Serve the page under /metrics from a thread of its own."""
        start_http_server(port, address, registry=self._registry)
