"""The log of every request to KMS and STS."""

from sqlalchemy import Column, Index, Table, Text, text
from sqlalchemy.dialects.postgresql import UUID

from byok.store.schema.base import Timestamp, metadata

# No foreign key: it is evidence, and is moved here after the fact, in large batches.
kms_requests = Table(
    "kms_requests",
    metadata,
    Column("id", UUID, primary_key=True, comment="in the request's User-Agent, as byok-id/…"),
    Column("tenant_id", UUID, nullable=False),
    Column("operation", Text, nullable=False),
    Column("subject", Text, nullable=False, comment="the ARN that it was about, or a region"),
    Column("role_arn", Text, comment="in whose session; NULL: our own identity"),
    Column("region", Text, nullable=False),
    Column("began_at", Timestamp, nullable=False),
    Column("ended_at", Timestamp, comment="NULL: its process died before"),
    Column("request_id", Text, nullable=False, server_default=text("''"), comment="AWS's; empty: no reply"),
    Column("code", Text, nullable=False, server_default=text("''"), comment="AWS's error code"),
    Index("ix_kms_requests_tenant_id_began_at_id", "tenant_id", "began_at", "id"),
    Index("ix_kms_requests_began_at", "began_at"),
)
