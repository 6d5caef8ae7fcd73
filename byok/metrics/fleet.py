"""What the exporter read, as Prometheus's page has it."""

from collections.abc import Callable, Iterator, Sequence

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from byok.core.metric_list import Sample


class FleetCollector(Collector):
    """Asks at each scrape. What could not be read is not there, rather than what it was."""

    def __init__(self, read: Callable[[], Sequence[Sample]]) -> None:
        self._read = read

    def describe(self) -> Sequence[Metric]:
        """Nothing: else registering would ask."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The samples, by metric."""
        families: dict[str, GaugeMetricFamily] = {}
        for sample in self._read():
            metric = sample.metric
            if metric.name not in families:
                families[metric.name] = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
            families[metric.name].add_metric(sample.labels, sample.value)
        yield from families.values()
