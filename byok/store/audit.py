"""The audit tables: each tenant's hash chain, and its head that orders the writers."""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from byok.core.audit import BEFORE_THE_FIRST, GENESIS_HASH, AuditChain, AuditEntry, ChainPlace, link_event
from byok.core.model import AuditEvent, Tenant
from byok.errors import AuditChainBroken
from byok.store import schema
from byok.store.batches import any_of, insert_all, parameters, rows_of
from byok.store.rows import from_audit_event, to_audit_event

_events, _heads, _tenants = schema.audit_events, schema.audit_heads, schema.tenants
_checkpoints = schema.signed_checkpoints
_One = TypeVar("_One")
# Beside the head, in one statement: both as they were at one moment.
_LAST_CHECKPOINT = (
    sa.select(sa.func.coalesce(sa.func.max(_checkpoints.c.number), 0))
    .where(_checkpoints.c.tenant_id == _tenants.c.id)
    .scalar_subquery()
)
_CHAIN = (_heads.c.sequence, _heads.c.hash, _LAST_CHECKPOINT)
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

    def list_after(
        self, tenant_id: UUID, sequence: int, limit: int, *, since: datetime | None = None
    ) -> Sequence[AuditEvent]:
        query = (
            sa.select(_events)
            .where(_events.c.tenant_id == tenant_id, _events.c.sequence > sequence)
            .order_by(_events.c.sequence)
            .limit(limit)
        )
        if since is not None:
            query = query.where(_events.c.at >= since)
        return read_whole(self._connection, query, to_audit_event, _events.c.sequence, "event")

    def find_head(self, tenant_id: UUID) -> ChainPlace:
        query = sa.select(_heads.c.sequence, _heads.c.hash).where(_heads.c.tenant_id == tenant_id)
        row = self._connection.execute(query).one_or_none()
        return BEFORE_THE_FIRST if row is None else ChainPlace(*row)

    def lock_head(self, tenant_id: UUID) -> ChainPlace:
        return ChainPlace(*self._lock_heads({tenant_id})[tenant_id])

    def chain(self, tenant: Tenant) -> AuditChain:
        query = sa.select(_tenants.c.id, _tenants.c.name, *_CHAIN).outerjoin_from(_tenants, _heads)
        return _to_chain(*self._connection.execute(query.where(_tenants.c.id == tenant.id)).one())

    def list_chains(self, after: UUID | None, limit: int) -> Sequence[AuditChain]:
        query = (
            sa.select(_tenants.c.id, _tenants.c.name, *_CHAIN)
            .outerjoin_from(_tenants, _heads)  # whose head is gone has a chain as well: a broken one
            .order_by(_tenants.c.id)
            .limit(limit)
        )
        if after is not None:
            query = query.where(_tenants.c.id > after)
        return [_to_chain(*row) for row in self._connection.execute(query)]


def _to_chain(
    tenant_id: UUID, name: str, sequence: int | None, hash_: bytes | None, checkpoints: int
) -> AuditChain:
    head = BEFORE_THE_FIRST if sequence is None or hash_ is None else ChainPlace(sequence, hash_)
    return AuditChain(tenant_id, name, head, checkpoints)


def read_whole(
    connection: sa.Connection,
    query: sa.Select[Any],
    read: Callable[[sa.Row[Any]], _One],
    number: sa.Column[int],
    what: str,
) -> Sequence[_One]:
    """The rows of a query, of which a hand may have made what Python has no value for, such as the time
    ``infinity``.

    Raises:
        AuditChainBroken: naming the first such row, a ``what``, by its ``number``.
    """
    try:
        return [read(row) for row in connection.execute(query).all()]
    except (sa.exc.DataError, ValueError):
        pass
    numbers = connection.execute(query.with_only_columns(number)).scalars().all()
    for one in numbers:
        try:
            connection.execute(query.where(number == one)).all()
        except (sa.exc.DataError, ValueError):
            raise AuditChainBroken(f"{what} {one} was changed: nothing writes such values") from None
    return [read(row) for row in connection.execute(query)]
