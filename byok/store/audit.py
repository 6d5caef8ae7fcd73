"""The audit tables: each tenant's hash chain, and its head that orders the writers."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from byok.core.audit import GENESIS_HASH, link_event
from byok.core.model import AuditEvent
from byok.store import schema
from byok.store.rows import to_audit_event

_events, _heads = schema.audit_events, schema.audit_heads


class AuditTable:
    """Implements `byok.ports.AuditLog`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def append(
        self, tenant_id: UUID, at: datetime, actor: str, action: str, **details: str | int | None
    ) -> AuditEvent:
        sequence, previous_hash = self._lock_head(tenant_id)
        event = link_event(
            tenant_id=tenant_id,
            sequence=sequence + 1,
            previous_hash=previous_hash,
            at=at,
            actor=actor,
            action=action,
            details=details,
        )
        self._connection.execute(
            _events.insert().values(
                tenant_id=event.tenant_id,
                sequence=event.sequence,
                at=event.at,
                actor=event.actor,
                action=event.action,
                details=event.details,
                previous_hash=event.previous_hash,
                hash=event.hash,
            )
        )
        self._connection.execute(
            _heads.update()
            .where(_heads.c.tenant_id == tenant_id)
            .values(sequence=event.sequence, hash=event.hash)
        )
        return event

    def _lock_head(self, tenant_id: UUID) -> tuple[int, bytes]:
        """The chain's last number and hash, locked; the first writer of a tenant makes the head."""
        locked = sa.select(_heads).where(_heads.c.tenant_id == tenant_id).with_for_update()
        row = self._connection.execute(locked).one_or_none()
        if row is None:
            self._connection.execute(
                insert(_heads)
                .values(tenant_id=tenant_id, sequence=0, hash=GENESIS_HASH)
                .on_conflict_do_nothing()
            )
            row = self._connection.execute(locked).one()
        return row.sequence, row.hash

    def list(self, tenant_id: UUID) -> Sequence[AuditEvent]:
        query = sa.select(_events).where(_events.c.tenant_id == tenant_id).order_by(_events.c.sequence)
        return [to_audit_event(row) for row in self._connection.execute(query)]
