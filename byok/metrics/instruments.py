"""Prometheus's instruments, made from the list of metrics."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from byok.core.metric_list import METRICS, Kind, Metric, Origin


class Instruments:
    """One for each metric that a process counts. Thread-safe."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counted = [metric for metric in METRICS if metric.origin is Origin.PROCESS]
        self._counters = {
            one.name: Counter(one.name, one.help, one.labels, registry=registry)
            for one in counted
            if one.kind is Kind.COUNTER
        }
        self._histograms = {
            one.name: Histogram(one.name, one.help, one.labels, buckets=one.buckets, registry=registry)
            for one in counted
            if one.kind is Kind.HISTOGRAM
        }
        # Of several processes, that of those that live, added up.
        self._gauges = {
            one.name: Gauge(one.name, one.help, one.labels, registry=registry, multiprocess_mode="livesum")
            for one in counted
            if one.kind is Kind.GAUGE
        }

    def count(self, metric: Metric, *labels: str, by: float = 1) -> None:
        """Add to a counter. By 0, its series is there before anything happened."""
        counter = self._counters[metric.name]
        (counter.labels(*labels) if labels else counter).inc(by)

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Put a value into a histogram."""
        histogram = self._histograms[metric.name]
        (histogram.labels(*labels) if labels else histogram).observe(value)

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Set a gauge."""
        gauge = self._gauges[metric.name]
        (gauge.labels(*labels) if labels else gauge).set(value)
