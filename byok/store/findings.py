"""The tables of what the watch found, and of how far audit chains are verified."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from byok.core.audit import ChainPlace
from byok.core.counts import COUNTED, Count
from byok.core.lookout import FindingKind, Severity, TenantFinding
from byok.ports import AuditCheckpoint
from byok.store import schema

_findings, _tenants, _checkpoints = schema.findings, schema.tenants, schema.audit_checkpoints
_GRAVEST_FIRST = tuple(reversed(Severity))
_PAIRS = sa.values(sa.column("kind", sa.Text), sa.column("severity", sa.Text), name="pairs").data(
    [(kind.value, severity.value) for kind in FindingKind for severity in Severity]
)


class FindingTable:
    """Implements `byok.ports.Findings`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def list_open(self, tenant_id: UUID) -> Sequence[TenantFinding]:
        query = sa.select(_findings).where(_findings.c.tenant_id == tenant_id, schema.OPEN_FINDING)
        return self._all(query.order_by(_findings.c.kind))

    def list_all(self, tenant_id: UUID, limit: int) -> Sequence[TenantFinding]:
        query = sa.select(_findings).where(_findings.c.tenant_id == tenant_id)
        return self._all(query.order_by(_findings.c.first_seen_at.desc(), _findings.c.id).limit(limit))

    def list_gravest(self, limit: int) -> Sequence[TenantFinding]:
        return [_to_finding(row) for row in self._gravest_first(sa.select(_findings), limit)]

    def _gravest_first(self, query: sa.Select[Any], limit: int) -> Sequence[sa.Row[Any]]:
        """The open ones of a query, the nearest deadline first within a severity."""
        # Severity by severity, each along its index: sorting would read all that are open.
        gravest: list[sa.Row[Any]] = []
        for severity in _GRAVEST_FIRST:
            of_severity = (
                query.where(schema.OPEN_FINDING, _findings.c.severity == severity)
                .order_by(_findings.c.deadline_at)
                .limit(limit - len(gravest))
            )
            gravest += self._connection.execute(of_severity)
            if len(gravest) == limit:
                break
        return gravest

    def _all(self, query: sa.Select[Any]) -> Sequence[TenantFinding]:
        return [_to_finding(row) for row in self._connection.execute(query)]

    def add(self, findings: Sequence[TenantFinding]) -> None:
        for finding in findings:
            self._connection.execute(_findings.insert().values(_row(finding)))

    def update(self, findings: Sequence[TenantFinding]) -> None:
        for finding in findings:
            self._connection.execute(
                _findings.update().where(_findings.c.id == finding.id).values(_row(finding))
            )

    def count_by_severity(self) -> Mapping[Severity, Count]:
        seen = self._seen()
        counts = {
            severity: Count.of_seen(sum(by_severity[severity] for by_severity in seen.values()))
            for severity in _GRAVEST_FIRST
        }
        return {severity: count for severity, count in counts.items() if count.number}

    def count_by_kind(self) -> Mapping[FindingKind, Mapping[Severity, Count]]:
        return {
            kind: {severity: Count.of_seen(number) for severity, number in by_severity.items()}
            for kind, by_severity in self._seen().items()
        }

    def _seen(self) -> Mapping[FindingKind, Mapping[Severity, int]]:
        """How many of each kind and severity an index has, each counted no further than needed."""
        some = (
            sa.select(sa.literal(1).label("one"))
            .where(
                schema.OPEN_FINDING,
                _findings.c.kind == _PAIRS.c.kind,
                _findings.c.severity == _PAIRS.c.severity,
            )
            .limit(COUNTED + 1)
            .lateral()
        )
        query = (
            sa.select(_PAIRS.c.kind, _PAIRS.c.severity, sa.func.count(some.c.one))
            .select_from(_PAIRS.outerjoin(some, sa.true()))
            .group_by(_PAIRS.c.kind, _PAIRS.c.severity)
        )
        seen: dict[FindingKind, dict[Severity, int]] = {kind: {} for kind in FindingKind}
        for kind, severity, number in self._connection.execute(query):
            seen[FindingKind(kind)][Severity(severity)] = number
        return seen

    def soonest(self, kind: FindingKind, limit: int) -> Sequence[tuple[str, datetime]]:
        query = (
            sa.select(_tenants.c.name, _findings.c.deadline_at)
            .join(_tenants, _tenants.c.id == _findings.c.tenant_id)
            .where(_findings.c.kind == kind, _findings.c.deadline_at.is_not(None))
        )
        # The nearer a deadline, the graver.
        return [(row.name, row.deadline_at) for row in self._gravest_first(query, limit)]


def _to_finding(row: sa.Row[Any]) -> TenantFinding:
    return TenantFinding(
        id=row.id,
        tenant_id=row.tenant_id,
        kind=FindingKind(row.kind),
        severity=Severity(row.severity),
        detail=row.detail,
        first_seen_at=row.first_seen_at,
        last_seen_at=row.last_seen_at,
        deadline_at=row.deadline_at,
        resolved_at=row.resolved_at,
    )


def _row(finding: TenantFinding) -> dict[str, object]:
    return {
        "id": finding.id,
        "tenant_id": finding.tenant_id,
        "kind": finding.kind,
        "severity": finding.severity,
        "detail": dict(finding.detail),
        "first_seen_at": finding.first_seen_at,
        "last_seen_at": finding.last_seen_at,
        "deadline_at": finding.deadline_at,
        "resolved_at": finding.resolved_at,
    }


class AuditCheckpointTable:
    """Implements `byok.ports.AuditCheckpoints`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def find(self, tenant_id: UUID) -> AuditCheckpoint | None:
        query = sa.select(_checkpoints).where(_checkpoints.c.tenant_id == tenant_id)
        row = self._connection.execute(query).one_or_none()
        return None if row is None else AuditCheckpoint(ChainPlace(row.sequence, row.hash), row.walked_at)

    def set(self, tenant_id: UUID, checkpoint: AuditCheckpoint) -> None:
        values = {
            "sequence": checkpoint.place.sequence,
            "hash": checkpoint.place.hash,
            "walked_at": checkpoint.walked_at,
        }
        added = insert(_checkpoints).values(tenant_id=tenant_id, **values)
        self._connection.execute(added.on_conflict_do_update(index_elements=["tenant_id"], set_=values))

    def remove(self, tenant_id: UUID) -> None:
        self._connection.execute(_checkpoints.delete().where(_checkpoints.c.tenant_id == tenant_id))
