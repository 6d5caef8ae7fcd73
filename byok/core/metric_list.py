"""Every metric of byok, in one list: the adapter, the exporter, the docs and the dashboard are made from it.

Units are seconds, days where a name says so, and else a number of things. Labels have few values each; where
one names tenants, no process names more than `MAX_TENANTS` of them.
"""

from dataclasses import dataclass
from enum import StrEnum

MAX_TENANTS = 100
OTHER_TENANTS = "other"  # the label of those beyond that


class Kind(StrEnum):
    """Prometheus's kinds."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Origin(StrEnum):
    """Who knows it."""

    PROCESS = "process"  # each worker and service counts for itself: add them up
    FLEET = "fleet"  # read from PostgreSQL and Redis by the exporter: one page tells it all


class KmsOutcome(StrEnum):
    """How a request to KMS ended, as it is counted."""

    OK = "ok"  # answered as it is to be; a refusal that somebody asks for is an answer, too
    DENIED = "denied"
    UNUSABLE = "unusable"  # the KMS key's state does not allow it, or its key store is away
    THROTTLED = "throttled"
    OUTAGE = "outage"
    REJECTED = "rejected"  # our request or our identity is at fault
    INTEGRITY = "integrity"


class SweeperFinding(StrEnum):
    """What the sweeper had to mend."""

    REPUBLISHED = "republished"  # a rotation that nobody worked on
    ORPHAN_REJECTED = "orphan-rejected"  # a pending version whose rotation had ended
    PURGED = "purged"  # leases that a push did not reach
    CAMPAIGN = "campaign"
    RESEAL = "reseal"
    MOVE = "move"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric. ``name`` is without the ``_total`` that Prometheus shows of a counter."""

    name: str
    kind: Kind
    origin: Origin
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def exposed_name(self) -> str:
        """The name in queries; of a histogram, ``_bucket``, ``_sum`` and ``_count`` go behind it."""
        return f"{self.name}_total" if self.kind is Kind.COUNTER else self.name


@dataclass(frozen=True, slots=True)
class Sample:
    """What a gauge shows. ``labels``: a value for each of the metric's, in its order."""

    metric: Metric
    value: float
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.metric.labels):
            raise ValueError(f"{self.metric.name} has labels {self.metric.labels}, not {len(self.labels)}")


def _counter(name: str, help_text: str, *labels: str) -> Metric:
    return Metric(name, Kind.COUNTER, Origin.PROCESS, help_text, labels)


def _histogram(name: str, help_text: str, buckets: tuple[float, ...], *labels: str) -> Metric:
    return Metric(name, Kind.HISTOGRAM, Origin.PROCESS, help_text, labels, buckets)


def _gauge(name: str, help_text: str, *labels: str, origin: Origin = Origin.FLEET) -> Metric:
    return Metric(name, Kind.GAUGE, origin, help_text, labels)


# --- counted by each worker and service -----------------------------------------------------------

ROTATIONS = _counter(
    "byok_rotations",
    "Rotations that came to their end, by reason and state (done, failed).",
    "reason",
    "state",
)
ROTATION_RETRIES = _counter(
    "byok_rotation_retries", "Attempts that failed and will be followed by another, by error code.", "code"
)
ROTATION_STEP_SECONDS = _histogram(
    "byok_rotation_step_seconds",
    "How long a step of a rotation took (generate, validate, promote); of a batch, the whole batch's step.",
    (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30),
    "step",
)
ROTATION_SECONDS = _histogram(
    "byok_rotation_seconds",
    "From the request of a rotation to its end, by reason.",
    (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3600),
    "reason",
)
KMS_REQUESTS = _counter(
    "byok_kms_requests",
    "Requests to customers' KMS and STS, by operation and outcome (ok, denied, unusable, throttled, outage,"
    " rejected, integrity). A tenant is named from its first request on that did not go well; `other`: there"
    " were too many to name. Those of `byok tenant verify` and of the watch, and those that only explain"
    " another failure, are not counted.",
    "operation",
    "outcome",
    "tenant",
)
KMS_REQUEST_SECONDS = _histogram(
    "byok_kms_request_seconds",
    "How long a request to KMS took, by operation.",
    (0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10),
    "operation",
)
LEASES = _counter(
    "byok_leases",
    "Leases that a process took, by layer (cache: another process had asked KMS; kms: asked by this one).",
    "source",
)
LEASES_HELD = _gauge(
    "byok_leases_held",
    "Leases that a process held when it last looked for stops, BYOK_RECHECK_SECONDS ago at most.",
    origin=Origin.PROCESS,
)
USES_RECORDED = _counter(
    "byok_uses_recorded",
    "Encryptions and decryptions that a process wrote to the usage ledger.",
)
STOP_SECONDS = _histogram(
    "byok_stop_seconds",
    "From the moment that a stop was noticed until this process had dropped the tenant's leases.",
    (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300),
)
SWEEPER_FINDINGS = _counter(
    "byok_sweeper_findings",
    "What the sweeper had to mend, by kind (republished, orphan-rejected, purged, campaign, reseal, move).",
    "finding",
)
DISPATCH_HELD_BACK = _counter(
    "byok_dispatch_held_back", "Runs of the dispatcher that left due keys for later, by reason.", "reason"
)
INTEGRITY_ALARMS = _counter(
    "byok_integrity_alarms",
    "Versions whose record and KMS key don't belong together, or whose record does not open: page somebody.",
)
CAMPAIGNS = _counter("byok_campaigns", "Campaigns of re-encryption that ended, by state.", "state")
ROWS_REWRITTEN = _counter("byok_rows_rewritten", "Rows of the application that were re-encrypted.")

# --- read by the exporter -------------------------------------------------------------------------

TENANTS = _gauge("byok_tenants", "Tenants by state.", "state")
TENANT_SUSPENDED = _gauge(
    "byok_tenant_suspended",
    "Seconds since a tenant was suspended, by AWS's code (by-hand: somebody stopped it; drill: an exercise)."
    " The latest only.",
    "tenant",
    "code",
)
KEYS = _gauge("byok_keys", "Keys; above 10,000 by PostgreSQL's statistics.")
KEYS_OVERDUE = _gauge("byok_keys_overdue", "Keys of active tenants whose rotation is due; counted to 10,000.")
OLDEST_OVERDUE_SECONDS = _gauge(
    "byok_oldest_overdue_seconds",
    "How long that key of an active tenant has been due which has waited longest; 0 if none is.",
)
ROTATIONS_OPEN = _gauge("byok_rotations_open", "Rotations that are not at their end, by state.", "state")
OLDEST_ROTATION_SECONDS = _gauge(
    "byok_oldest_rotation_seconds", "Age of the oldest rotation that is not at its end; 0 if there is none."
)
ROTATIONS_FAILED = _gauge(
    "byok_rotations_failed",
    "Rotations that failed for good and were not followed by another; the latest only.",
)
QUEUE_DEPTH = _gauge("byok_queue_depth", "Messages that wait in a queue.", "queue")
TICK_AGE_SECONDS = _gauge(
    "byok_tick_age_seconds", "How long ago a job of Beat's last began; infinite if it never did.", "beat_job"
)
TICK_PERIOD_SECONDS = _gauge("byok_tick_period_seconds", "How often a job of Beat's is to begin.", "beat_job")
MEMBERS = _gauge(
    "byok_members", "Processes that may hold leases and live, by kind (service, worker, command).", "kind"
)
WORST_REVOCATION_SECONDS = _gauge(
    "byok_worst_revocation_seconds",
    "The longest that a stop of this tenant took to reach the last process, within 90 days; who does not"
    " answer counts until its leases end. Slowest tenants only.",
    "tenant",
)
REVOCATION_BOUND_SECONDS = _gauge(
    "byok_revocation_bound_seconds",
    "From AWS's first refusal until no process serves plaintext, at most, even without push, by these"
    " settings.",
)
STOP_BOUND_SECONDS = _gauge(
    "byok_stop_bound_seconds",
    "From the moment that a stop was noticed until the last process has dropped the tenant's leases, at most,"
    " by these settings: what byok_worst_revocation_seconds and byok_stop_seconds are held against.",
)
REACHABLE = _gauge(
    "byok_reachable", "1 if the exporter reaches a server (postgresql, broker, cache).", "server"
)
FINDINGS = _gauge(
    "byok_findings",
    "What the watch over customers' KMS keys and policies found and is still so, by kind and severity;"
    " counted to 10,000.",
    "kind",
    "severity",
)
KMS_KEY_DELETION_DAYS = _gauge(
    "byok_kms_key_deletion_days", "Days until AWS deletes a tenant's KMS key; the soonest only.", "tenant"
)
KEY_MATERIAL_EXPIRY_DAYS = _gauge(
    "byok_key_material_expiry_days",
    "Days until the imported material of a tenant's KMS key expires; the soonest only.",
    "tenant",
)
OLDEST_WATCH_SECONDS = _gauge(
    "byok_oldest_watch_seconds", "How long ago the tenant that was looked at least recently was looked at."
)
WATCH_PERIOD_SECONDS = _gauge(
    "byok_watch_period_seconds", "How often the watch is to look at each tenant, by these settings."
)
AUDIT_CHAINS_BROKEN = _gauge(
    "byok_audit_chains_broken", "Tenants whose audit chain did not verify when it was last looked at."
)
WEBHOOKS_WAITING_SECONDS = _gauge(
    "byok_webhooks_waiting_seconds",
    "How long that message to a customer's endpoint has been due for its next try which has waited longest;"
    " 0 if none is.",
)
WEBHOOKS_GIVEN_UP = _gauge(
    "byok_webhooks_given_up",
    "Messages to customers' endpoints that were given up within 24 hours; counted to 10,000.",
)

METRICS: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
