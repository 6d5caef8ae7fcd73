"""Alerts about customers, their KMS keys and their rotations."""

from datetime import timedelta

from byok.core.metric_list import (
    FINDINGS,
    KEY_MATERIAL_EXPIRY_DAYS,
    KMS_KEY_DELETION_DAYS,
    KMS_REQUESTS,
    OLDEST_OVERDUE_SECONDS,
    OLDEST_ROTATION_SECONDS,
    ROTATIONS,
    ROTATIONS_FAILED,
    STOP_BOUND_SECONDS,
    TENANT_SUSPENDED,
    TENANTS,
    WORST_REVOCATION_SECONDS,
)
from byok.core.model import TenantState
from deploy.monitoring.rules import (
    DAY,
    HOUR,
    MINUTE,
    Alert,
    Pace,
    Severity,
    counted,
    counted_with_first,
)

_PAGE, _TICKET = Severity.PAGE, Severity.TICKET

_AHEAD_DAYS = 30  # what is further off the watch calls a note, too (`byok/core/lookout.py`)
# Customers turn access off one by one; many at once have met the same, and that is rather ours. Of more than
# `MAX_TENANTS` the exporter names the latest only: this one goes on.
_MANY_SUSPENDED = 10
_SOON_DAYS = 3  # before a deadline beyond which a customer's data can't be read any more

# One request in a hundred may fail. Below 99 % AWS pays back its second tier (aws.amazon.com/kms/sla), and
# less byok rides out: leases go on for their TTL, rotations are tried eight times. Refusals are customers'
# doing, and in neither part of the fraction.
_KMS_BUDGET = 0.01
# How many times faster than that the budget of 30 days is spent, over a long window, which says that it is no
# blip, and a short one, which says that it goes on: 2 % of it in an hour, 5 % in six, 10 % in three days
# (The Site Reliability Workbook, chapter 5, table 5-8).
_FAST_BURNS = ((14.4, HOUR, 5 * MINUTE), (6.0, 6 * HOUR, 30 * MINUTE))
_SLOW_BURNS = ((1.0, 3 * DAY, 6 * HOUR),)
# Nor is a share told of fewer failures than that in the long window. A fleet without traffic sends a few
# requests an hour, and one customer's eight attempts at a rotation that all fail are most of them: that is
# ByokRotationFailed's to tell.
_LEAST_FAILED = 10

# Findings that have an alert of their own.
_TOLD_ELSEWHERE = "kms-key-pending-deletion|key-material-expiring|audit-chain-broken|not-looked-at"


def of_rotations(pace: Pace) -> tuple[Alert, ...]:
    """Rotations that are late, failed, or don't end."""
    overdue = f"max({OLDEST_OVERDUE_SECONDS.exposed_name})"
    oldest_open = f"max({OLDEST_ROTATION_SECONDS.exposed_name})"
    hour, day = pace.seconds(HOUR), pace.seconds(DAY)
    compromised = f'{ROTATIONS.exposed_name}{{reason="compromise",state="failed"}}'
    waited = "The key that has waited longest has been due for {{ $value | humanizeDuration }}."
    return (
        Alert(
            "ByokRotationOverdue",
            _TICKET,
            f"{overdue} > {hour:g} <= {day:g}",
            "Keys are rotated late.",
            waited,
            lasting=10 * MINUTE,
        ),
        Alert(
            "ByokRotationOverdue",
            _PAGE,
            f"{overdue} > {day:g}",
            "Keys are rotated a day late and more.",
            waited,
            lasting=10 * MINUTE,
        ),
        # What the schedule tries again each hour is open meanwhile: that must not end the alert.
        Alert(
            "ByokRotationFailed",
            _TICKET,
            f"max({ROTATIONS_FAILED.exposed_name}) > 0",
            "A rotation failed for good.",
            "Keys whose latest rotation failed for good: {{ $value }}. They go on with their old version.",
            kept=30 * MINUTE,
        ),
        Alert(
            "ByokRotationFailed",
            _PAGE,
            f"{counted(compromised, pace.window(HOUR))} > 0",
            "A compromised key could not be rotated.",
            "A rotation for the reason compromise failed for good: the compromised version encrypts still.",
        ),
        Alert(
            "ByokRotationStuck",
            _TICKET,
            f"{oldest_open} > {hour:g}",
            "A rotation does not come to its end.",
            "The oldest open rotation was asked for {{ $value | humanizeDuration }} ago."
            " Eight attempts take a quarter of an hour.",
            lasting=5 * MINUTE,
        ),
    )


def of_customers(pace: Pace) -> tuple[Alert, ...]:
    """Customers without access, or who are about to lose it."""
    suspended = TENANT_SUSPENDED.exposed_name
    findings = f'{FINDINGS.exposed_name}{{severity!="note",kind!~"{_TOLD_ELSEWHERE}"}}'
    return (
        Alert(
            "ByokTenantSuspended",
            _PAGE,
            f'max by (tenant, code) ({suspended}{{code!~"by-hand|drill"}}) >= 0',
            "AWS refuses byok a customer's KMS key.",
            "{{ $labels.tenant }} has been suspended for {{ $value | humanizeDuration }}; AWS says"
            " {{ $labels.code }}. None of its data can be read or written.",
            lasting=MINUTE,
        ),
        Alert(
            "ByokTenantSuspended",
            _TICKET,
            f'max by (tenant, code) ({suspended}{{code=~"by-hand|drill"}}) > {pace.seconds(HOUR):g}',
            "A customer that somebody stopped is stopped still.",
            "{{ $labels.tenant }} was stopped {{ $value | humanizeDuration }} ago ({{ $labels.code }})."
            " None of its data can be read or written.",
        ),
        Alert(
            "ByokTenantsSuspended",
            _PAGE,
            f'max({TENANTS.exposed_name}{{state="{TenantState.SUSPENDED}"}}) > {_MANY_SUSPENDED}',
            "Many customers are suspended at once.",
            "{{ $value }} tenants are suspended. Rather than all of these customers, something of ours may"
            " have changed.",
            lasting=MINUTE,
        ),
        *_days_left(
            "ByokKmsKeyDeletion",
            KMS_KEY_DELETION_DAYS.exposed_name,
            "A customer's KMS key is to be deleted",
            "The KMS key of {{ $labels.tenant }} is deleted in %s. After that nobody can ever read its data.",
        ),
        *_days_left(
            "ByokKeyMaterialExpiry",
            KEY_MATERIAL_EXPIRY_DAYS.exposed_name,
            "The imported material of a customer's KMS key expires",
            "The KMS key material of {{ $labels.tenant }} expires in %s. None of its data can be read from"
            " then on, until it is imported again.",
        ),
        Alert(
            "ByokDriftFound",
            _TICKET,
            f"sum by (kind) (max by (kind, severity) ({findings})) > 0",
            "Customers' KMS keys or policies are not what they should be.",
            "Findings of the kind {{ $labels.kind }}: {{ $value }}.",
        ),
        _revocation_slow(pace),
    )


def _days_left(name: str, metric: str, summary: str, description: str) -> tuple[Alert, ...]:
    days = f"min by (tenant) ({metric})"
    text = description % '{{ $value | printf "%.1f" }} days'
    return (
        Alert(name, _TICKET, f"{days} > {_SOON_DAYS} <= {_AHEAD_DAYS}", f"{summary}.", text),
        Alert(name, _PAGE, f"{days} <= {_SOON_DAYS}", f"{summary} within {_SOON_DAYS} days.", text),
    )


def _revocation_slow(pace: Pace) -> Alert:
    # The slowest stop of 90 days is shown for 90 days: what it was six hours ago nobody need hear of again.
    worst, bound = WORST_REVOCATION_SECONDS.exposed_name, STOP_BOUND_SECONDS.exposed_name
    before = f"max_over_time({worst}[{pace.window(7 * DAY)}] offset {pace.window(6 * HOUR)})"
    return Alert(
        "ByokRevocationSlow",
        _PAGE,
        f"(max by (tenant) ({worst}) > on () group_left () max({bound}))"
        f" unless (max by (tenant) ({worst}) <= max by (tenant) ({before}))",
        "A stop took longer than it may.",
        "It took {{ $value | humanizeDuration }} until no process served {{ $labels.tenant }} any more, or"
        " takes that long already.",
    )


def of_kms(pace: Pace) -> tuple[Alert, ...]:
    """Requests to KMS that fail, whoever's."""
    text = (
        "{{ $value | humanizePercentage }} of the requests to customers' KMS were throttled or not answered."
    )
    return (
        Alert(
            "ByokKmsErrorBudget",
            _PAGE,
            " or ".join(_burns(pace, *pair) for pair in _FAST_BURNS),
            "Many requests to KMS fail.",
            text,
            lasting=2 * MINUTE,
        ),
        Alert(
            "ByokKmsErrorBudget",
            _TICKET,
            " or ".join(_burns(pace, *pair) for pair in _SLOW_BURNS),
            "For days too many requests to KMS have failed.",
            text,
            lasting=HOUR,
        ),
    )


def _burns(pace: Pace, factor: float, long: timedelta, short: timedelta) -> str:
    limit = f"{factor * _KMS_BUDGET:g}"
    shares = [f"{_failing_share(pace.window(window))} > {limit}" for window in (long, short)]
    return f"({' and '.join(shares)} and {_failed(pace.window(long))} > {_LEAST_FAILED})"


def _failing_share(window: str) -> str:
    judged = f'{KMS_REQUESTS.exposed_name}{{outcome=~"ok|outage|throttled"}}'
    return f"{_failed(window)} / {counted_with_first(judged, window)}"


def _failed(window: str) -> str:
    return counted_with_first(f'{KMS_REQUESTS.exposed_name}{{outcome=~"outage|throttled"}}', window)
