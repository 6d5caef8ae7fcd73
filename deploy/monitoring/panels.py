"""What the dashboard shows: every metric of the list, in the rows that an operator reads from the top."""

from byok.core import metric_list as metrics
from byok.core.jobs import LATE_PERIODS
from byok.core.metric_list import Kind as MetricKind
from byok.core.metric_list import Metric
from deploy.monitoring.dashboard import Kind, Panel, Query, Row

_WINDOW = "$__rate_interval"  # Grafana fills it in: four scrapes at least


def rows() -> tuple[Row, ...]:
    """All rows."""
    return (_fleet(), _rotations(), _kms(), _leases(), _processes(), _watch(), _reencryption())


def _fleet() -> Row:
    return Row(
        "Fleet",
        (
            _stat("Alerts that fire", 'sum(ALERTS{alertname=~"Byok.*",alertstate="firing"}) or vector(0)',
                  "Alerts of byok's that fire now; docs/runbook.md has an entry for each.", red_from=1),
            _stat_of("Keys", metrics.KEYS, total=True),
            _stat_of("Keys overdue", metrics.KEYS_OVERDUE, red_from=1),
            _stat_of("Longest overdue", metrics.OLDEST_OVERDUE_SECONDS, red_from=3600),
            _stat_of("Rotations failed", metrics.ROTATIONS_FAILED, red_from=1),
            _stat_of("Oldest open rotation", metrics.OLDEST_ROTATION_SECONDS, red_from=3600),
            _gauge("Tenants by state", metrics.TENANTS),
            _table("Suspended tenants", metrics.TENANT_SUSPENDED),
            _gauge("Servers reached", metrics.REACHABLE, by="min"),
        ),
    )  # fmt: skip


def _rotations() -> Row:
    return Row(
        "Rotations",
        (
            _rate("Ended, by reason and state", metrics.ROTATIONS),
            _rate("Attempts to be repeated, by error", metrics.ROTATION_RETRIES),
            _gauge("Open, by state", metrics.ROTATIONS_OPEN),
            _quantiles("Step durations", metrics.ROTATION_STEP_SECONDS),
            _quantiles("From request to end", metrics.ROTATION_SECONDS),
            _rate("Dispatcher held back, by reason", metrics.DISPATCH_HELD_BACK),
        ),
    )


def _kms() -> Row:
    requests = metrics.KMS_REQUESTS.exposed_name
    failing = f'{requests}{{outcome=~"outage|throttled"}}'
    judged = f'{requests}{{outcome=~"ok|outage|throttled"}}'
    return Row(
        "Customers' KMS",
        (
            _rate("Requests by outcome", metrics.KMS_REQUESTS, "outcome"),
            _rate("Requests by operation", metrics.KMS_REQUESTS, "operation"),
            Panel(
                "Share that fails",
                "Throttled or not answered, of all that were not refused: what ByokKmsErrorBudget goes by.",
                "percentunit",
                (Query(f"sum(rate({failing}[{_WINDOW}])) / sum(rate({judged}[{_WINDOW}]))", "failing"),),
            ),
            Panel(
                "KMS errors by tenant",
                f"{metrics.KMS_REQUESTS.help} Those that went well are left out.",
                "reqps",
                (Query(f'topk(10, sum by (tenant, outcome) (rate({requests}{{outcome!="ok"}}[{_WINDOW}])))',
                       "{{tenant}} {{outcome}}"),),
                width=12,
            ),
            _quantiles("Latency by operation", metrics.KMS_REQUEST_SECONDS, width=12),
        ),
    )  # fmt: skip


def _leases() -> Row:
    leases = f"rate({metrics.LEASES.exposed_name}[{_WINDOW}])"
    return Row(
        "Leases and revocation",
        (
            _rate("Leases taken, by layer", metrics.LEASES),
            Panel(
                "Share of each layer",
                f"{metrics.LEASES.help} What the process holds already is not counted here.",
                "percentunit",
                (Query(f"sum by (source) ({leases}) / on () group_left () sum({leases})", "{{source}}"),),
            ),
            Panel("Leases held", metrics.LEASES_HELD.help, "none",
                  (Query(f"sum by (instance) ({metrics.LEASES_HELD.exposed_name})", "{{instance}}"),)),
            _rate("Uses written to the ledger", metrics.USES_RECORDED),
            _quantiles("Stops: noticed to dropped", metrics.STOP_SECONDS),
            Panel(
                "Slowest stops against the bound",
                f"{metrics.WORST_REVOCATION_SECONDS.help} {metrics.STOP_BOUND_SECONDS.help}",
                "s",
                (
                    _query(metrics.WORST_REVOCATION_SECONDS),
                    Query(f"max({metrics.STOP_BOUND_SECONDS.exposed_name})", "bound of a stop"),
                    Query(f"max({metrics.REVOCATION_BOUND_SECONDS.exposed_name})", "bound of a revocation"),
                ),
            ),
        ),
    )  # fmt: skip


def _processes() -> Row:
    age, period = metrics.TICK_AGE_SECONDS, metrics.TICK_PERIOD_SECONDS
    (job,) = age.labels
    return Row(
        "Queues, workers, Beat",
        (
            _gauge("Queue depth", metrics.QUEUE_DEPTH),
            _gauge("Processes by kind", metrics.MEMBERS),
            Panel(
                "Ticks: age in periods",
                f"{age.help} In periods of the job: well above {LATE_PERIODS} it is late.",
                "none",
                (Query(f"max by ({job}) ({age.exposed_name}) / max by ({job}) ({period.exposed_name})",
                       f"{{{{{job}}}}}"),),
            ),
            _rate("Sweeper: what it mended", metrics.SWEEPER_FINDINGS, width=24),
        ),
    )  # fmt: skip


def _watch() -> Row:
    longest, period = _query(metrics.OLDEST_WATCH_SECONDS), _query(metrics.WATCH_PERIOD_SECONDS)
    return Row(
        "Watch and audit",
        (
            _stat_of("Integrity alarms in an hour", metrics.INTEGRITY_ALARMS, red_from=1, width=8),
            _stat_of("Audit chains broken", metrics.AUDIT_CHAINS_BROKEN, red_from=1, width=8),
            _stat(
                "Longest not looked at, in periods",
                f"{longest.expression} / {period.expression}",
                f"{metrics.OLDEST_WATCH_SECONDS.help} In periods of the watch: from 2 on it is stale.",
                red_from=2,
                width=8,
            ),
            _gauge("Findings by kind", metrics.FINDINGS),
            _table("KMS keys to be deleted", metrics.KMS_KEY_DELETION_DAYS),
            _table("Key material that expires", metrics.KEY_MATERIAL_EXPIRY_DAYS),
            _gauge("Longest wait of a webhook", metrics.WEBHOOKS_WAITING_SECONDS, width=12),
            _gauge("Webhooks given up in a day", metrics.WEBHOOKS_GIVEN_UP, width=12),
        ),
    )


def _reencryption() -> Row:
    return Row(
        "Re-encryption",
        (
            _rate("Rows rewritten", metrics.ROWS_REWRITTEN, width=12),
            _rate("Campaigns ended, by state", metrics.CAMPAIGNS, width=12),
        ),
    )


def _unit(metric: Metric) -> str:
    for ending, unit in (("_seconds", "s"), ("_days", "d")):
        if metric.name.endswith(ending):
            return unit
    return "none"


def _legend(*labels: str) -> str:
    return " ".join(f"{{{{{label}}}}}" for label in labels)


def _query(metric: Metric, by: str = "max") -> Query:
    """A gauge that each exporter tells alike."""
    grouping = f" by ({', '.join(metric.labels)}) " if metric.labels else ""
    return Query(f"{by}{grouping}({metric.exposed_name})", _legend(*metric.labels) or metric.name)


def _gauge(title: str, metric: Metric, *, by: str = "max", width: int = 8) -> Panel:
    return Panel(title, metric.help, _unit(metric), (_query(metric, by),), width=width)


def _table(title: str, metric: Metric) -> Panel:
    return Panel(title, metric.help, _unit(metric), (_query(metric),), Kind.TABLE)


def _stat(
    title: str, expression: str, text: str, *, red_from: float | None, unit: str = "none", width: int = 4
) -> Panel:
    return Panel(title, text, unit, (Query(expression),), Kind.STAT, width, red_from)


def _stat_of(
    title: str, metric: Metric, *, red_from: float | None = None, total: bool = False, width: int = 4
) -> Panel:
    """One number. ``total``: added up over the metric's labels."""
    expression = _query(metric).expression
    if metric.kind is MetricKind.COUNTER:
        expression = f"sum(increase({metric.exposed_name}[1h]))"
    elif total:
        expression = f"sum({expression})"
    return _stat(title, expression, metric.help, red_from=red_from, unit=_unit(metric), width=width)


def _rate(title: str, metric: Metric, *labels: str, width: int = 8) -> Panel:
    """A second's events of all processes, by these labels or all that it has."""
    shown = labels or metric.labels
    grouping = f" by ({', '.join(shown)}) " if shown else ""
    query = Query(
        f"sum{grouping}(rate({metric.exposed_name}[{_WINDOW}]))", _legend(*shown) or "all processes"
    )
    return Panel(title, metric.help, "cps", (query,), width=width)


def _quantiles(title: str, metric: Metric, *, width: int = 8) -> Panel:
    """The median and the 99th percentile over all processes."""
    grouping = ", ".join(("le", *metric.labels))
    buckets = f"sum by ({grouping}) (rate({metric.exposed_name}_bucket[{_WINDOW}]))"
    queries = tuple(
        Query(f"histogram_quantile({share}, {buckets})", f"{_legend(*metric.labels)} {name}".strip())
        for share, name in ((0.5, "p50"), (0.99, "p99"))
    )
    return Panel(title, metric.help, _unit(metric), queries, width=width)
