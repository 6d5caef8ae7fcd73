"""What the watch over customers' sides found, and how far audit chains are verified."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

from byok.store.schema.base import Timestamp, metadata

OPEN_FINDING = text("resolved_at IS NULL")

findings = Table(
    "findings",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("tenant_id", UUID, ForeignKey("tenants.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("detail", JSONB, nullable=False, comment="what was seen; nothing secret"),
    Column("first_seen_at", Timestamp, nullable=False),
    Column("last_seen_at", Timestamp, nullable=False),
    Column("deadline_at", Timestamp, comment="when it is too late, where there is such a day"),
    Column("resolved_at", Timestamp, comment="when it was seen no more; NULL: open"),
    CheckConstraint(
        "kind IN ('kms-key-pending-deletion', 'kms-key-disabled', 'key-material-missing',"
        " 'key-material-expiring', 'kms-key-rotation-off', 'external-id-not-enforced',"
        " 'context-not-enforced', 'excess-rights', 'access-broken', 'never-verified', 'not-looked-at',"
        " 'audit-chain-broken')",
        name="kind",
    ),
    CheckConstraint("severity IN ('note', 'warning', 'urgent', 'critical')", name="severity"),
    CheckConstraint("octet_length(detail::text) <= 4096", name="detail"),
    CheckConstraint("last_seen_at >= first_seen_at AND resolved_at >= last_seen_at", name="order_of_times"),
    Index("uq_findings_open", "tenant_id", "kind", unique=True, postgresql_where=OPEN_FINDING),
    Index("ix_findings_tenant_id_first_seen_at", "tenant_id", "first_seen_at"),
    Index("ix_findings_open_kind", "kind", "severity", "deadline_at", postgresql_where=OPEN_FINDING),
    Index("ix_findings_open_severity", "severity", "deadline_at", postgresql_where=OPEN_FINDING),
)

audit_checkpoints = Table(
    "audit_checkpoints",
    metadata,
    Column("tenant_id", UUID, ForeignKey("tenants.id"), primary_key=True),
    Column("sequence", BigInteger, nullable=False, comment="number of the last event that was verified"),
    Column("hash", LargeBinary, nullable=False),
    Column("walked_at", Timestamp, nullable=False, comment="when it was last verified from its first event"),
    CheckConstraint("octet_length(hash) = 32", name="hash"),
)

webhook_messages = Table(
    "webhook_messages",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("tenant_id", UUID, ForeignKey("tenants.id"), nullable=False),
    Column("body", Text, nullable=False, comment="canonical JSON; nothing secret"),
    Column("created_at", Timestamp, nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("due_at", Timestamp, comment="when it is posted next; NULL: never again"),
    Column("delivered_at", Timestamp),
    Column("given_up_at", Timestamp),
    Column("failure", Text, comment="why the latest try failed"),
    CheckConstraint("octet_length(body) <= 8192", name="body"),
    CheckConstraint("attempts >= 0", name="attempts"),
    CheckConstraint("num_nonnulls(due_at, delivered_at, given_up_at) = 1", name="one_end"),
    Index("ix_webhook_messages_due", "attempts", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    Index(
        "ix_webhook_messages_retries",
        "due_at",
        postgresql_where=text("due_at IS NOT NULL AND attempts > 0"),
    ),
    Index(
        "ix_webhook_messages_delivered_at",
        "delivered_at",
        postgresql_where=text("delivered_at IS NOT NULL"),
    ),
    Index(
        "ix_webhook_messages_given_up_at",
        "given_up_at",
        postgresql_where=text("given_up_at IS NOT NULL"),
    ),
    Index("ix_webhook_messages_tenant_id_created_at", "tenant_id", "created_at"),
)
