"""Audit chains, one a tenant."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    LargeBinary,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

from byok.store.schema.base import Timestamp, metadata

audit_heads = Table(
    "audit_heads",
    metadata,
    Column("tenant_id", UUID, ForeignKey("tenants.id"), primary_key=True),
    Column("sequence", BigInteger, nullable=False, comment="number of the last event"),
    Column("hash", LargeBinary, nullable=False),
    CheckConstraint("octet_length(hash) = 32", name="hash"),
)

audit_events = Table(
    "audit_events",
    metadata,
    Column("tenant_id", UUID, ForeignKey("tenants.id"), primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Timestamp, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("details", JSONB, nullable=False),
    Column("previous_hash", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    CheckConstraint("sequence >= 1", name="sequence"),
    CheckConstraint("octet_length(hash) = 32 AND octet_length(previous_hash) = 32", name="hash"),
)

signed_checkpoints = Table(
    "signed_checkpoints",
    metadata,
    Column("tenant_id", UUID, ForeignKey("tenants.id"), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, nullable=False, comment="number of the event that was signed"),
    Column("hash", LargeBinary, nullable=False, comment="that event's"),
    Column("at", Timestamp, nullable=False),
    Column("master_key_id", Text, nullable=False),
    Column("public_key", LargeBinary, nullable=False, comment="Ed25519"),
    Column("signature", LargeBinary, nullable=False),
    CheckConstraint("number >= 1 AND sequence >= 1", name="numbers"),
    CheckConstraint(
        "octet_length(hash) = 32 AND octet_length(public_key) = 32 AND octet_length(signature) = 64",
        name="lengths",
    ),
)
