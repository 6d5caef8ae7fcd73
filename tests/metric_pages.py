"""Pages of metrics as Prometheus reads them, to be held against the list."""

from dataclasses import dataclass
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from byok.core.metric_list import METRICS, Metric, Origin

_ADDED = {"le", "quantile"}  # by Prometheus's format


@dataclass(frozen=True)
class Shown:
    """A metric on a page. ``labels``: those of each series, as sets."""

    kind: str
    help: str
    labels: frozenset[frozenset[str]]


def of_list(origin: Origin) -> dict[str, Metric]:
    """The metrics of an origin by name."""
    return {metric.name: metric for metric in METRICS if metric.origin is origin}


def read_page(port: int, timeout_seconds: float = 10.0) -> str:
    """The page that is served on a port of 127.0.0.1."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=timeout_seconds) as reply:
        return str(reply.read().decode())


def shown(page: str) -> dict[str, Shown]:
    """What a page shows, by name, without the times since when something is counted."""
    families = {}
    for family in text_string_to_metric_families(page):
        if not family.name.endswith("_created"):
            labels = {frozenset(sample.labels) - _ADDED for sample in family.samples}
            families[family.name] = Shown(family.type, family.documentation, frozenset(labels))
    return families


def value(page: str, name: str, **labels: str) -> float | None:
    """A series' value; None: it is not there."""
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return float(sample.value)
    return None


def assert_agrees(page: str, origin: Origin) -> None:
    """Names, kinds, meanings and labels are those of the list, both ways."""
    assert set(shown(page)) == set(of_list(origin))
    assert_listed(page, origin)


def assert_listed(page: str, origin: Origin) -> None:
    """What is there is as the list has it: of several processes a page has what some of them counted."""
    listed = of_list(origin)
    for name, one in shown(page).items():
        metric = listed[name]
        assert (one.kind, one.help) == (metric.kind.value, metric.help)
        assert one.labels <= {frozenset(metric.labels)}, name
