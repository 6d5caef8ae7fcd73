"""The ways out of tenants."""

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, Table, Text, text
from sqlalchemy.dialects.postgresql import JSONB, UUID

from byok.store.schema.base import Timestamp, metadata

NOT_CANCELLED = text("state <> 'cancelled'")
UNFINISHED = text("state IN ('waiting', 'shredding', 'shredded')")

offboardings = Table(
    "offboardings",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("tenant_id", UUID, ForeignKey("tenants.id"), nullable=False),
    Column("state", Text, nullable=False),
    Column("requested_by", Text, nullable=False),
    Column("requested_at", Timestamp, nullable=False),
    Column("reason", Text, nullable=False),
    Column("shred_after", Timestamp, nullable=False, comment="no wrapped key is destroyed before"),
    Column("stop_id", UUID, ForeignKey("stops.id"), comment="what ended its use; NULL: it never was active"),
    Column("cancelled_at", Timestamp),
    Column("shredding_at", Timestamp, comment="from then on it can't be taken back"),
    Column("shredded_at", Timestamp, comment="when no wrapped key was left"),
    Column("certificate", JSONB, comment="signed: docs/spec/report.md"),
    Column("access_statement", JSONB, comment="signed: whether the customer has shut us out"),
    CheckConstraint("state IN ('waiting', 'cancelled', 'shredding', 'shredded', 'certified')", name="state"),
    CheckConstraint("(state = 'cancelled') = (cancelled_at IS NOT NULL)", name="cancelled_at"),
    CheckConstraint(
        "(state IN ('shredding', 'shredded', 'certified')) = (shredding_at IS NOT NULL)", name="shredding_at"
    ),
    CheckConstraint("(state IN ('shredded', 'certified')) = (shredded_at IS NOT NULL)", name="shredded_at"),
    CheckConstraint("(state = 'certified') = (certificate IS NOT NULL)", name="certificate"),
    CheckConstraint("access_statement IS NULL OR certificate IS NOT NULL", name="access_statement"),
    CheckConstraint(
        "shred_after >= requested_at AND shredding_at >= shred_after AND shredded_at >= shredding_at",
        name="order_of_times",
    ),
    Index("uq_offboardings_tenant_id", "tenant_id", unique=True, postgresql_where=NOT_CANCELLED),
    Index("ix_offboardings_due", "shred_after", postgresql_where=UNFINISHED),
)
