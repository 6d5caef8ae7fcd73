"""Implements `byok.ports.Metrics` with Prometheus counters.

Counted per process. The workers' pool is threads, so that a worker is one process and one page.
"""

from prometheus_client import CollectorRegistry, Counter, start_http_server

from byok.core.model import RotationReason, RotationState


class PrometheusMetrics:
    """Counters of one process. No label names a tenant: cardinality stays bounded."""

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
        self._findings = Counter(
            "byok_sweeper_findings",
            "What the sweeper had to mend, by kind.",
            ["finding"],
            registry=self._registry,
        )
        # Known from the start, so that the first failure is an increase that an alert can see.
        for reason in RotationReason:
            for state in (RotationState.DONE, RotationState.FAILED):
                self._rotations.labels(reason.value, state.value)

    def rotation_ended(self, reason: RotationReason, state: RotationState) -> None:
        """See the port."""
        self._rotations.labels(reason.value, state.value).inc()

    def rotation_tried_again(self, code: str) -> None:
        """See the port."""
        self._retries.labels(code).inc()

    def sweeper_found(self, finding: str, count: int) -> None:
        """See the port."""
        self._findings.labels(finding).inc(count)

    def serve(self, address: str, port: int) -> None:
        """Serve the page under /metrics from a thread of its own."""
        start_http_server(port, address, registry=self._registry)
