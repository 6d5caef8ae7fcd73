"""Alerts about byok's own processes, servers and records, and about being watched at all."""

from byok.core.jobs import ALLOWANCE, LATE_PERIODS
from byok.core.metric_list import (
    AUDIT_CHAINS_BROKEN,
    INTEGRITY_ALARMS,
    KMS_REQUESTS,
    MEMBERS,
    OLDEST_WATCH_SECONDS,
    QUEUE_DEPTH,
    REACHABLE,
    SWEEPER_FINDINGS,
    TICK_AGE_SECONDS,
    TICK_PERIOD_SECONDS,
    WATCH_PERIOD_SECONDS,
    WEBHOOKS_GIVEN_UP,
)
from deploy.monitoring.rules import (
    EXPORTER_JOB,
    HOUR,
    MINUTE,
    WORKERS_JOB,
    Alert,
    Pace,
    Severity,
    counted,
    counted_with_first,
)

_PAGE, _TICKET = Severity.PAGE, Severity.TICKET

# With more rotations than that in the queues the sweeper holds back (`byok/services/scheduling.py`).
_DEEP_QUEUE_MESSAGES = 1000

_WORKERS = f'max({MEMBERS.exposed_name}{{kind="worker"}})'
_DATABASE_REACHED = f'max({REACHABLE.exposed_name}{{server="postgresql"}} == 1)'


def of_integrity(pace: Pace) -> tuple[Alert, ...]:
    """Records that are not as byok wrote them."""
    window = pace.window(HOUR)
    # Alarms are counted where leases are taken; probes and validations of workers meet the same.
    refused = f'{KMS_REQUESTS.exposed_name}{{outcome="integrity"}}'
    orphans = f'{SWEEPER_FINDINGS.exposed_name}{{finding="orphan-rejected"}}'
    return (
        Alert(
            "ByokIntegrityAlarm",
            _PAGE,
            f"({counted(INTEGRITY_ALARMS.exposed_name, window)} > 0)"
            f" or ({counted_with_first(refused, window)} > 0)",
            "A key record and its KMS key don't belong together.",
            "KMS refused a wrapped key that byok stored, or answered with another. Nobody was suspended.",
        ),
        Alert(
            "ByokAuditChainBroken",
            _PAGE,
            f"max({AUDIT_CHAINS_BROKEN.exposed_name}) > 0",
            "The audit log was edited.",
            "Tenants whose audit chain does not verify: {{ $value }}.",
        ),
        Alert(
            "ByokOrphanVersion",
            _TICKET,
            f"{counted(orphans, window)} > 0",
            "Rows were changed by hand.",
            "The sweeper rejected pending versions whose rotation had ended. byok leaves none behind.",
        ),
    )


def of_processes(pace: Pace) -> tuple[Alert, ...]:
    """Processes and servers that are not there, or don't keep up."""
    republished = f'{SWEEPER_FINDINGS.exposed_name}{{finding="republished"}}'
    return (
        _beat_silent(),
        # Of a kind that nobody is of there may be no series.
        Alert(
            "ByokNoWorker",
            _PAGE,
            f"({_WORKERS} or {_DATABASE_REACHED} * 0) < 1",
            "No worker runs.",
            "Until one does, nothing is rotated, and a revocation is noticed only by services that ask KMS.",
            lasting=2 * MINUTE,
        ),
        Alert(
            "ByokQueueDeep",
            _TICKET,
            f"max by (queue) ({QUEUE_DEPTH.exposed_name}) > {_DEEP_QUEUE_MESSAGES}",
            "A queue stays deep.",
            "{{ $value }} messages wait in {{ $labels.queue }}.",
            lasting=15 * MINUTE,
        ),
        # What a deploy or an outage left is mended within the hour.
        Alert(
            "ByokSweeperBusy",
            _TICKET,
            f"sum(increase({republished}[{pace.window(15 * MINUTE)}])) > 0",
            "The sweeper finds something all the time.",
            'It set {{ $value | printf "%.0f" }} rotations going again within a quarter of an hour, and has'
            " done so for an hour.",
            lasting=HOUR,
        ),
        Alert(
            "ByokServerUnreachable",
            _PAGE,
            f'{REACHABLE.exposed_name}{{server!="cache"}} == 0',
            "A server that byok can't work without is away.",
            "The exporter at {{ $labels.instance }} does not reach {{ $labels.server }}.",
            lasting=MINUTE,
        ),
        Alert(
            "ByokServerUnreachable",
            _TICKET,
            f'{REACHABLE.exposed_name}{{server="cache"}} == 0',
            "The lease cache is away.",
            "The exporter at {{ $labels.instance }} does not reach it. Processes ask KMS instead.",
            lasting=5 * MINUTE,
        ),
    )


def _beat_silent() -> Alert:
    (job,) = TICK_AGE_SECONDS.labels
    age = f"max by ({job}) ({TICK_AGE_SECONDS.exposed_name})"
    period = f"max by ({job}) ({TICK_PERIOD_SECONDS.exposed_name})"
    return Alert(
        "ByokBeatSilent",
        _PAGE,
        f"({age} > {LATE_PERIODS} * {period} + {ALLOWANCE.total_seconds():g})"
        f" or (({period} unless {age}) and on () {_DATABASE_REACHED})",
        "A periodic job does not begin.",
        f"{{{{ $labels.{job} }}}} has missed a whole period and more, or never began: no Beat ticks, or"
        " no worker takes the queue maintenance.",
        # A restart of Beat, or of the last worker, is over by then.
        lasting=2 * MINUTE,
    )


def of_monitoring() -> tuple[Alert, ...]:
    """Whoever should look and does not: the other alerts rest on these."""
    return (
        Alert(
            "ByokWatchStale",
            _TICKET,
            f"max({OLDEST_WATCH_SECONDS.exposed_name}) > 2 * max({WATCH_PERIOD_SECONDS.exposed_name})",
            "Customers' KMS keys are not looked at.",
            "The watch has not come to some tenant for {{ $value | humanizeDuration }}, which is more than"
            " two of its periods.",
            lasting=HOUR,
        ),
        Alert(
            "ByokExporterDown",
            _PAGE,
            f"absent({REACHABLE.exposed_name})",
            "byok is not watched.",
            "Prometheus gets nothing from any exporter: most other alerts can't fire.",
            lasting=2 * MINUTE,
        ),
        Alert(
            "ByokTargetDown",
            _TICKET,
            f'up{{job=~"{EXPORTER_JOB}|{WORKERS_JOB}"}} == 0',
            "A process of byok does not serve its metrics.",
            "Prometheus gets nothing from {{ $labels.instance }} ({{ $labels.job }}).",
            lasting=5 * MINUTE,
        ),
        Alert(
            "ByokWorkersNotScraped",
            _TICKET,
            f"absent({INTEGRITY_ALARMS.exposed_name}) and on () {_WORKERS} > 0",
            "Workers run, and Prometheus asks none.",
            "Alerts about KMS errors, integrity and the sweeper can't fire.",
            lasting=10 * MINUTE,
        ),
        Alert(
            "ByokWebhooksGivenUp",
            _TICKET,
            f"max({WEBHOOKS_GIVEN_UP.exposed_name}) > 0",
            "A customer was not told of a finding.",
            "Messages to customers' endpoints that were given up within 24 hours: {{ $value }}.",
        ),
    )
