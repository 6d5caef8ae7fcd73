"""What the services need of the world: clock, KMS, store, lease cache and queue.

Adapters implement these; the fakes of the test suite pass the same contract tests as the real ones.
"""

from byok.ports.audit import AuditLog, SignedCheckpoints
from byok.ports.campaigns import Campaigns, Targets
from byok.ports.counts import Counts
from byok.ports.due_times import DueTimes
from byok.ports.fleet import Members, Notice, NoticeBoard, Stops, Subscription
from byok.ports.inspection import DatabaseFacts, RedisFacts
from byok.ports.kms import (
    Kms,
    KmsKeyDescription,
    KmsRequest,
    RequestMetrics,
    RotationReading,
    UnwrappedKey,
    WrappedKey,
)
from byok.ports.lookout import AuditCheckpoint, AuditCheckpoints, Findings
from byok.ports.moves import Moves
from byok.ports.offboarding import Offboardings, Remains
from byok.ports.queues import Queues
from byok.ports.request_log import RequestLog, RequestLogTable, RequestSpool
from byok.ports.resealing import Reseals, SealedRecords
from byok.ports.rotations import Rotations
from byok.ports.rows import CountedPage, Replacement, Row, RowStore
from byok.ports.store import Keys, Store, Tenants, Ticks, Transaction, Versions
from byok.ports.usage import Usage
from byok.ports.webhooks import Outbox, WebhookSender, WebhookState
from byok.ports.world import (
    CacheAnswer,
    Clock,
    Failing,
    Failure,
    LeaseCache,
    LeaseId,
    Metrics,
    MetricsCollector,
    Random,
    SealedLease,
    TaskQueue,
)

__all__ = [
    "AuditCheckpoint",
    "AuditCheckpoints",
    "AuditLog",
    "CacheAnswer",
    "Campaigns",
    "Clock",
    "CountedPage",
    "Counts",
    "DatabaseFacts",
    "DueTimes",
    "Failing",
    "Failure",
    "Findings",
    "Keys",
    "Kms",
    "KmsKeyDescription",
    "KmsRequest",
    "LeaseCache",
    "LeaseId",
    "Members",
    "Metrics",
    "MetricsCollector",
    "Moves",
    "Notice",
    "NoticeBoard",
    "Offboardings",
    "Outbox",
    "Queues",
    "Random",
    "RedisFacts",
    "Remains",
    "Replacement",
    "RequestLog",
    "RequestLogTable",
    "RequestMetrics",
    "RequestSpool",
    "Reseals",
    "RotationReading",
    "Rotations",
    "Row",
    "RowStore",
    "SealedLease",
    "SealedRecords",
    "SignedCheckpoints",
    "Stops",
    "Store",
    "Subscription",
    "Targets",
    "TaskQueue",
    "Tenants",
    "Ticks",
    "Transaction",
    "UnwrappedKey",
    "Usage",
    "Versions",
    "WebhookSender",
    "WebhookState",
    "WrappedKey",
]
