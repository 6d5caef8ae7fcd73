"""Moves of tenants from one KMS key to another, and the second wrappings of their versions."""

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import UUID

from byok.store.schema.base import Timestamp, metadata

OPEN_MOVE = text("state IN ('wrapping', 'held')")
WORKING_MOVE = text("state IN ('wrapping', 'committed')")
_OPEN_AND_UNSHARED = text("state IN ('wrapping', 'held') AND NOT shares_connection")

kms_key_moves = Table(
    "kms_key_moves",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("tenant_id", UUID, ForeignKey("tenants.id"), nullable=False),
    Column("state", Text, nullable=False),
    Column("from_kms_key_arn", Text, nullable=False),
    Column("from_role_arn", Text, comment="NULL: key-policy mode"),
    Column("to_kms_key_arn", Text, nullable=False),
    Column("to_role_arn", Text, comment="NULL: key-policy mode"),
    Column(
        "shares_connection",
        Boolean,
        nullable=False,
        comment="somebody said that another tenant may have the new KMS key or role, too",
    ),
    Column("hold", Boolean, nullable=False, comment="stop before the commit"),
    Column("requested_by", Text, nullable=False),
    Column("requested_at", Timestamp, nullable=False),
    Column("batch", Integer, nullable=False, comment="grows with every claim: fences off earlier ones"),
    Column("failures", Integer, nullable=False, comment="batches in a row that came to nothing"),
    Column("wait_cause", Text, comment="why it does not go on; NULL: it does"),
    Column("wait_why", Text),
    Column("wait_remedy", Text),
    Column("claimed_until", Timestamp, comment="a worker has it until then"),
    Column("wake_at", Timestamp, comment="when the sweeper publishes it again"),
    Column("committed_at", Timestamp),
    Column("finished_at", Timestamp),
    CheckConstraint("state IN ('wrapping', 'held', 'committed', 'done', 'rolled-back')", name="state"),
    CheckConstraint("wait_cause IN ('outage', 'stop', 'refusal', 'trouble')", name="wait_cause"),
    CheckConstraint(
        "(wait_cause IS NULL) = (wait_why IS NULL) AND (wait_cause IS NULL) = (wait_remedy IS NULL)",
        name="wait",
    ),
    CheckConstraint("(state IN ('wrapping', 'committed')) = (wake_at IS NOT NULL)", name="wake_at"),
    CheckConstraint("claimed_until IS NULL OR wake_at IS NOT NULL", name="claimed_until"),
    CheckConstraint("(state IN ('committed', 'done')) = (committed_at IS NOT NULL)", name="committed_at"),
    CheckConstraint("(state IN ('done', 'rolled-back')) = (finished_at IS NOT NULL)", name="finished_at"),
    CheckConstraint("from_kms_key_arn <> to_kms_key_arn", name="another_kms_key"),
    Index("uq_kms_key_moves_open", "tenant_id", unique=True, postgresql_where=OPEN_MOVE),
    Index("uq_kms_key_moves_kms_key_arn", "to_kms_key_arn", unique=True, postgresql_where=_OPEN_AND_UNSHARED),
    Index("uq_kms_key_moves_role_arn", "to_role_arn", unique=True, postgresql_where=_OPEN_AND_UNSHARED),
    Index("ix_kms_key_moves_wake_at", "wake_at", postgresql_where=WORKING_MOVE),
    Index("ix_kms_key_moves_tenant_id_requested_at", "tenant_id", "requested_at"),
)

# Until the commit a second wrapping; from then on, without its record, what tells that the old KMS key once
# wrapped the version's secret.
kms_key_move_wrappings = Table(
    "kms_key_move_wrappings",
    metadata,
    Column("move_id", UUID, ForeignKey("kms_key_moves.id"), primary_key=True),
    Column("key_id", UUID, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("encrypted_key", LargeBinary, comment="the second wrapping, sealed; NULL once it is in use"),
    Column("iv", LargeBinary, comment="IV of the seal, 12 bytes"),
    Column("master_key_id", Text, comment="the master key that sealed it"),
    Column("kms_request_id", Text, nullable=False),
    Column("kms_key_material_id", Text, comment="where KMS tells it"),
    Column("validated_at", Timestamp, nullable=False, comment="unwrapped by the new KMS key, and compared"),
    ForeignKeyConstraint(
        ["key_id", "number"],
        ["key_versions.key_id", "key_versions.number"],
        name="fk_kms_key_move_wrappings_version",
    ),
    CheckConstraint(
        "(encrypted_key IS NULL) = (iv IS NULL) AND (encrypted_key IS NULL) = (master_key_id IS NULL)",
        name="record",
    ),
    CheckConstraint("octet_length(iv) = 12", name="iv"),
    Index("ix_kms_key_move_wrappings_version", "key_id", "number"),
)
