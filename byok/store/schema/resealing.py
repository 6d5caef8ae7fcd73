"""Reseals: records on their way under another master key."""

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, Integer, Table, Text, text
from sqlalchemy.dialects.postgresql import JSONB, UUID

from byok.store.schema.base import Timestamp, metadata

RUNNING_RESEAL = text("state = 'running'")

reseals = Table(
    "reseals",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("master_key_id", Text, nullable=False, comment="the key that is to have sealed all records"),
    Column("state", Text, nullable=False),
    Column("requested_by", Text, nullable=False),
    Column("requested_at", Timestamp, nullable=False),
    Column("total", BigInteger, nullable=False, comment="records under other keys when it was asked for"),
    Column("kind", Text, comment="the kind of records that the pass is at; NULL: it is to be counted"),
    Column("cursor", Text, comment="the last place that this pass has done with"),
    Column("batch", Integer, nullable=False, comment="grows with every claim: fences off earlier ones"),
    Column("pass_number", Integer, nullable=False),
    Column("resealed", BigInteger, nullable=False),
    Column("conflicts", BigInteger, nullable=False, comment="somebody else wrote or held the record then"),
    Column("unreadable", BigInteger, nullable=False, comment="records that don't open, in all passes"),
    Column("pass_resealed", BigInteger, nullable=False),
    Column("pass_conflicts", BigInteger, nullable=False),
    Column("pass_unreadable", BigInteger, nullable=False),
    Column("unreadable_records", JSONB, nullable=False, comment="the first of those that don't open"),
    Column("waits_for", Text, comment="why it goes on although there is nothing to do now"),
    Column("claimed_until", Timestamp, comment="a worker has it until then"),
    Column("wake_at", Timestamp, comment="when the sweeper publishes it again"),
    Column("failures", Integer, nullable=False, comment="batches in a row that came to nothing"),
    Column("failure", Text, comment="why it failed or waits"),
    Column("finished_at", Timestamp),
    CheckConstraint("state IN ('running', 'done', 'failed', 'superseded')", name="state"),
    CheckConstraint("(state = 'running') = (finished_at IS NULL)", name="finished_at"),
    CheckConstraint("(state = 'running') = (wake_at IS NOT NULL)", name="wake_at"),
    CheckConstraint("claimed_until IS NULL OR state = 'running'", name="claimed_until"),
    CheckConstraint("state <> 'failed' OR failure IS NOT NULL", name="failure"),
    # One at a time: of two, each would undo what the other did.
    Index("uq_reseals_running", "state", unique=True, postgresql_where=RUNNING_RESEAL),
    Index("ix_reseals_requested_at", "requested_at"),
)
