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
