"""What the services need of the audit chains in PostgreSQL."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from byok.core.audit import AuditChain, AuditEntry
from byok.core.model import AuditEvent, Tenant


class AuditLog(Protocol):
    """The audit_events table."""

    def append(
        self, tenant_id: UUID, at: datetime, actor: str, action: str, **details: str | int | None
    ) -> None:
        """Add the next event of a tenant's chain; concurrent writers of one tenant wait for each other."""

    def append_all(self, entries: Sequence[AuditEntry]) -> None:
        """Add events of any tenants, each to its tenant's chain, in this order."""

    def list(self, tenant_id: UUID) -> Sequence[AuditEvent]:
        """A tenant's events, oldest first."""

    def list_after(self, tenant_id: UUID, sequence: int, limit: int) -> Sequence[AuditEvent]:
        """Up to ``limit`` of a tenant's events behind the one of this number, oldest first."""

    def chain(self, tenant: Tenant) -> AuditChain:
        """A tenant's chain as its head has it."""

    def list_chains(self, after: UUID | None, limit: int) -> Sequence[AuditChain]:
        """Up to ``limit`` chains of tenants with greater ids than ``after``, by id."""
