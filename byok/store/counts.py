"""Counts for a glance at the fleet. Each statement reads a bounded part of one index.

`docs/scale.md` has their plans at a million keys.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from byok.core.counts import COUNTED, Count, Precision
from byok.core.model import RotationState, TenantState
from byok.store import schema

_tenants, _keys, _rotations = schema.tenants, schema.keys, schema.rotations


class CountTable:
    """Implements `byok.ports.Counts`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def tenants(self) -> Mapping[TenantState, Count]:
        total = self._size(_tenants)
        counted = self._by_state(sa.select(_tenants.c.state).where(schema.NOT_ACTIVE))
        others = {TenantState(state): count for state, count in counted.items()}
        active = max(total.number - sum(count.number for count in others.values()), 0)
        if active:
            others[TenantState.ACTIVE] = Count(active, total.precision)
        return others

    def keys(self) -> Count:
        return self._size(_keys)

    def overdue(self, now: datetime) -> Count:
        active = sa.func.count().filter(_tenants.c.state == TenantState.ACTIVE)
        seen, overdue = self._connection.execute(_of_due(now, sa.func.count(), active)).one()
        return Count(min(overdue, COUNTED), _precision(seen))

    def open_rotations(self) -> Mapping[RotationState, Count]:
        return self._rotations_where(schema.OPEN_ROTATION)

    def oldest_open_rotation(self) -> datetime | None:
        waking = (
            sa.select(_rotations.c.requested_at)
            .where(schema.OPEN_ROTATION)
            .order_by(_rotations.c.wake_at)
            .limit(COUNTED + 1)
            .subquery()
        )
        query = sa.select(sa.func.min(waking.c.requested_at))
        oldest: datetime | None = self._connection.execute(query).scalar_one()
        return oldest

    def oldest_overdue(self, now: datetime) -> datetime | None:
        due_at = sa.column("next_rotation_at", schema.Timestamp)
        oldest = sa.func.min(due_at).filter(_tenants.c.state == TenantState.ACTIVE)
        since: datetime | None = self._connection.execute(_of_due(now, oldest)).scalar_one()
        return since

    def rotations(self, since: datetime) -> Mapping[RotationState, Count]:
        return (
            self._rotations_where(schema.OPEN_ROTATION)
            | self._rotations_where(
                _rotations.c.id >= _first_id(since), _rotations.c.state == RotationState.DONE
            )
            | self._rotations_where(schema.FAILED_ROTATION, _rotations.c.finished_at >= since)
        )

    def _rotations_where(
        self, *conditions: sa.ColumnElement[bool] | sa.TextClause
    ) -> dict[RotationState, Count]:
        counted = self._by_state(sa.select(_rotations.c.state).where(*conditions))
        return {RotationState(state): count for state, count in counted.items()}

    def _by_state(self, states: sa.Select[Any]) -> dict[str, Count]:
        seen: Sequence[str] = self._connection.execute(states.limit(COUNTED + 1)).scalars().all()
        return {
            state: Count(min(number, COUNTED), _precision(len(seen)))
            for state, number in sorted(Counter(seen).items())
        }

    def _size(self, table: sa.Table) -> Count:
        """Rows of a table: counted, or else as vacuum and analyze last saw them."""
        seen = count_some(self._connection, sa.select(sa.literal(1)).select_from(table))
        if seen <= COUNTED:
            return Count(seen)
        known = sa.text("SELECT reltuples::bigint FROM pg_class WHERE oid = CAST(:name AS regclass)")
        estimate = self._connection.execute(known, {"name": table.name}).scalar_one()
        if estimate > COUNTED:
            return Count(estimate, Precision.ABOUT)
        return Count(COUNTED, Precision.AT_LEAST)  # it grew faster than vacuum came round


def count_some(connection: sa.Connection, rows: sa.Select[Any]) -> int:
    """How many rows a query has; one more than `COUNTED` where there are more."""
    some = rows.limit(COUNTED + 1).subquery()
    seen: int = connection.execute(sa.select(sa.func.count()).select_from(some)).scalar_one()
    return seen


def _of_due(now: datetime, *what: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """Something of the keys that are due, with their tenants: of those that wait longest, so many at most."""
    due = (
        sa.select(_keys.c.tenant_id, _keys.c.next_rotation_at)
        .where(_keys.c.next_rotation_at <= now)
        .order_by(_keys.c.next_rotation_at)
        .limit(COUNTED + 1)
        .subquery()
    )
    return sa.select(*what).select_from(due.join(_tenants, _tenants.c.id == due.c.tenant_id))


def _precision(seen: int) -> Precision:
    """Of a count that ended at one more than `COUNTED`."""
    return Precision.AT_LEAST if seen > COUNTED else Precision.EXACT


def _first_id(since: datetime) -> UUID:
    """No rotation that was requested later has a smaller id: they are version 7 UUIDs, which begin with the
    milliseconds since 1970. That saves an index."""
    return UUID(int=int(since.timestamp() * 1000) << 80)
