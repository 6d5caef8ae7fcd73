"""The audit tables: each tenant's hash chain, and its head that orders the writers."""

from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from byok.core.audit import GENESIS_HASH, AuditChain, AuditEntry, link_event
from byok.core.model import AuditEvent, Tenant
from byok.store import schema
from byok.store.batches import any_of, insert_all, parameters, rows_of
from byok.store.rows import from_audit_event, to_audit_event

_events, _heads, _tenants = schema.audit_events, schema.audit_heads, schema.tenants
_given = rows_of(_heads, "tenant_id", "sequence", "hash")
_NEW_HEADS = (
    insert(_heads)
    .from_select(["tenant_id", "sequence", "hash"], sa.select(*_given.c))
    .on_conflict_do_nothing()
)
_MOVE_HEADS = (
    _heads.update()
    .where(_heads.c.tenant_id == _given.c.tenant_id)
    .values(sequence=_given.c.sequence, hash=_given.c.hash)
)


class AuditTable:
    """Implements `byok.ports.AuditLog`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def append(
        self, tenant_id: UUID, at: datetime, actor: str, action: str, **details: str | int | None
    ) -> None:
        self.append_all([AuditEntry(tenant_id, at, actor, action, details)])

    def append_all(self, entries: Sequence[AuditEntry]) -> None:
        if not entries:
            return
        heads = self._lock_heads({entry.tenant_id for entry in entries})
        events = []
        for entry in entries:
            sequence, previous_hash = heads[entry.tenant_id]
            event = link_event(
                tenant_id=entry.tenant_id,
                sequence=sequence + 1,
                previous_hash=previous_hash,
                at=entry.at,
                actor=entry.actor,
                action=entry.action,
                details=entry.details,
            )
            heads[entry.tenant_id] = (event.sequence, event.hash)
            events.append(event)
        insert_all(self._connection, _events, [from_audit_event(event) for event in events])
        self._move(heads)

    def _lock_heads(self, tenant_ids: set[UUID]) -> dict[UUID, tuple[int, bytes]]:
        """The last number and hash of each chain, locked; the first writer of a tenant makes the head."""
        heads = self._read_locked(tenant_ids)
        if missing := tenant_ids - heads.keys():
            rows = [
                {"tenant_id": tenant_id, "sequence": 0, "hash": GENESIS_HASH} for tenant_id in sorted(missing)
            ]
            self._connection.execute(_NEW_HEADS, parameters(rows))
            heads |= self._read_locked(missing)
        return heads

    def _read_locked(self, tenant_ids: Collection[UUID]) -> dict[UUID, tuple[int, bytes]]:
        """In one order, or two who write for several tenants could wait for each other."""
        locked = (
            sa.select(_heads)
            .where(any_of(_heads.c.tenant_id, tenant_ids))
            .order_by(_heads.c.tenant_id)
            .with_for_update()
        )
        return {row.tenant_id: (row.sequence, row.hash) for row in self._connection.execute(locked).all()}

    def _move(self, heads: dict[UUID, tuple[int, bytes]]) -> None:
        rows = [
            {"tenant_id": tenant_id, "sequence": sequence, "hash": hash_}
            for tenant_id, (sequence, hash_) in heads.items()
        ]
        self._connection.execute(_MOVE_HEADS, parameters(rows))

    def list(self, tenant_id: UUID) -> Sequence[AuditEvent]:
        query = sa.select(_events).where(_events.c.tenant_id == tenant_id).order_by(_events.c.sequence)
        return [to_audit_event(row) for row in self._connection.execute(query)]

    def list_after(self, tenant_id: UUID, sequence: int, limit: int) -> Sequence[AuditEvent]:
        query = (
            sa.select(_events)
            .where(_events.c.tenant_id == tenant_id, _events.c.sequence > sequence)
            .order_by(_events.c.sequence)
            .limit(limit)
        )
        return [to_audit_event(row) for row in self._connection.execute(query)]

    def chain(self, tenant: Tenant) -> AuditChain:
        query = sa.select(_heads.c.sequence).where(_heads.c.tenant_id == tenant.id)
        return AuditChain(tenant.id, tenant.name, self._connection.execute(query).scalar_one_or_none() or 0)

    def list_chains(self, after: UUID | None, limit: int) -> Sequence[AuditChain]:
        query = (
            sa.select(_heads.c.tenant_id, _tenants.c.name, _heads.c.sequence)
            .join(_tenants)
            .order_by(_heads.c.tenant_id)
            .limit(limit)
        )
        if after is not None:
            query = query.where(_heads.c.tenant_id > after)
        return [AuditChain(*row) for row in self._connection.execute(query)]
