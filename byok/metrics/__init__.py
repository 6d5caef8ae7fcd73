"""Prometheus metrics: what this process counts (`byok.ports.Metrics`), and what the exporter read."""

from byok.metrics.fleet import FleetCollector
from byok.metrics.multiprocess import ProcessFolder
from byok.metrics.page import serve
from byok.metrics.process import PrometheusMetrics

__all__ = ["FleetCollector", "ProcessFolder", "PrometheusMetrics", "serve"]
