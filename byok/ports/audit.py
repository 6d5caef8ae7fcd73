"""What the services need of the audit chains in PostgreSQL."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from byok.core.audit import AuditChain, AuditEntry, ChainPlace
from byok.core.checkpoints import SignedCheckpoint
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

    def list_after(
        self, tenant_id: UUID, sequence: int, limit: int, *, since: datetime | None = None
    ) -> Sequence[AuditEvent]:
        """Up to ``limit`` of a tenant's events behind the one of this number, oldest first; only those from
        ``since`` on.

        Raises:
            AuditChainBroken: an event can't be read as one.
        """

    def find_head(self, tenant_id: UUID) -> ChainPlace:
        """The last event's place, as the chain's head has it; before the first where there is no head."""

    def lock_head(self, tenant_id: UUID) -> ChainPlace:
        """The last event's place, which nobody moves until the transaction ends."""

    def chain(self, tenant: Tenant) -> AuditChain:
        """A tenant's chain as its head has it."""

    def list_chains(self, after: UUID | None, limit: int) -> Sequence[AuditChain]:
        """Up to ``limit`` chains of tenants with greater ids than ``after``, by id; also of tenants whose
        head is gone."""


class SignedCheckpoints(Protocol):
    """The signed_checkpoints table."""

    def add(self, signed: SignedCheckpoint) -> None:
        """Insert one, under the lock of the chain's head."""

    def find_latest(self, tenant_id: UUID) -> SignedCheckpoint | None:
        """A tenant's last one."""

    def list_after(self, tenant_id: UUID, number: int, limit: int) -> Sequence[SignedCheckpoint]:
        """Up to ``limit`` of a tenant's behind the one of this number, in order.

        Raises:
            AuditChainBroken: one can't be read as such.
        """
