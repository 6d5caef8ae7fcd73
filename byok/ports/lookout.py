"""What the services need to keep what the watch over customers' sides found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from byok.core.audit import ChainPlace
from byok.core.counts import Count
from byok.core.lookout import FindingKind, Severity, TenantFinding


class Findings(Protocol):
    """The findings table."""

    def list_open(self, tenant_id: UUID) -> Sequence[TenantFinding]:
        """A tenant's open findings."""

    def list_all(self, tenant_id: UUID, limit: int) -> Sequence[TenantFinding]:
        """A tenant's findings, resolved ones too, the latest first."""

    def list_gravest(self, limit: int) -> Sequence[TenantFinding]:
        """Open findings of all tenants, the gravest first, then the nearest deadline."""

    def add(self, findings: Sequence[TenantFinding]) -> None:
        """Insert open findings, of which their tenants have none of the kind."""

    def update(self, findings: Sequence[TenantFinding]) -> None:
        """Write findings as they are now."""

    def count_by_severity(self) -> Mapping[Severity, Count]:
        """How many are open, of those severities of which there are any, the gravest first."""

    def count_by_kind(self) -> Mapping[FindingKind, Mapping[Severity, Count]]:
        """How many are open, of every kind and severity."""

    def soonest(self, kind: FindingKind, limit: int) -> Sequence[tuple[str, datetime]]:
        """The nearest deadlines of open findings of a kind, each with its tenant's name."""


@dataclass(frozen=True, slots=True)
class AuditCheckpoint:
    """Up to where a chain was verified, and when it last was from its first event on."""

    place: ChainPlace
    walked_at: datetime


class AuditCheckpoints(Protocol):
    """The audit_checkpoints table."""

    def find(self, tenant_id: UUID) -> AuditCheckpoint | None:
        """A tenant's."""

    def set(self, tenant_id: UUID, checkpoint: AuditCheckpoint) -> None:
        """Replace a tenant's."""

    def remove(self, tenant_id: UUID) -> None:
        """Forget it: the chain is to be verified from its first event on."""
