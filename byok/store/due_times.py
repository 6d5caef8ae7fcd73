"""The columns that say when a key's validation, or a tenant's sync or watch, is due next."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa

from byok.core.model import TenantState
from byok.store import schema

_tenants, _keys, _findings = schema.tenants, schema.keys, schema.findings
# As for rotations: up to 5 % early, so that what was made together does not stay aligned.
_JITTER = 0.05
_IS_ACTIVE = _tenants.c.state == TenantState.ACTIVE
# Whoever left has its open findings closed, and is left alone from then on.
_IS_WATCHED = sa.or_(
    _tenants.c.state != TenantState.OFFBOARDED,
    sa.exists().where(_findings.c.tenant_id == _tenants.c.id, schema.OPEN_FINDING),
)


class DueTimeTable:
    """Implements `byok.ports.DueTimes`. ``names`` are the columns that a task is published with, and
    ``is_wanted`` says whose is."""

    def __init__(
        self,
        connection: sa.Connection,
        table: sa.Table,
        due_at: sa.Column[datetime],
        names: Sequence[sa.Column[str]],
        of_tenant: sa.ColumnElement[bool],
        is_wanted: sa.ColumnElement[bool] = _IS_ACTIVE,
    ) -> None:
        self._connection = connection
        self._table = table
        self._due_at = due_at
        self._names = names
        self._of_tenant = of_tenant
        self._is_wanted = is_wanted

    @classmethod
    def of_validations(cls, connection: sa.Connection) -> "DueTimeTable":
        """When each key's active version is validated next."""
        return cls(
            connection, _keys, _keys.c.next_validation_at, (_tenants.c.name, _keys.c.name),
            _tenants.c.id == _keys.c.tenant_id,
        )  # fmt: skip

    @classmethod
    def of_syncs(cls, connection: sa.Connection) -> "DueTimeTable":
        """When each tenant's KMS key is asked next what it says of rotation."""
        return cls(connection, _tenants, _tenants.c.next_sync_at, (_tenants.c.name,), sa.true())

    @classmethod
    def of_watches(cls, connection: sa.Connection) -> "DueTimeTable":
        """When each tenant's side is looked over next."""
        return cls(connection, _tenants, _tenants.c.next_watch_at, (_tenants.c.name,), sa.true(), _IS_WATCHED)

    def claim(self, now: datetime, period: timedelta, limit: int) -> Mapping[UUID, tuple[str, ...]]:
        due = self._locked(self._due_at <= now, limit)
        next_at = _after(now, period, 1 - _JITTER * sa.func.random())
        rows = self._connection.execute(
            self._moved(due, next_at)
            .where(self._of_tenant)
            .returning(self._table.c.id, self._is_wanted, *self._names)
        )
        return {id_: tuple(names) for id_, is_wanted, *names in rows if is_wanted}

    def give_back(self, ids: Collection[UUID], now: datetime) -> None:
        given_back = self._table.update().where(self._table.c.id.in_(ids))
        self._connection.execute(given_back.values({self._due_at: now}))

    def draw_in(self, now: datetime, period: timedelta, limit: int) -> int:
        too_late = self._locked(self._due_at > now + period, limit)
        moved = self._moved(too_late, _after(now, period, sa.func.random()))
        return self._connection.execute(moved).rowcount

    def _locked(self, condition: sa.ColumnElement[bool], limit: int) -> sa.CTE:
        """Ids of rows, locked. A CTE runs once, whatever it is joined to: it locks no more than ``limit``."""
        return (
            sa.select(self._table.c.id)
            .where(condition)
            .order_by(self._due_at)
            .limit(limit)
            .with_for_update(skip_locked=True, key_share=True)
            .cte("chosen")
        )

    def _moved(self, chosen: sa.CTE, to: sa.ColumnElement[datetime]) -> sa.Update:
        return self._table.update().where(self._table.c.id == chosen.c.id).values({self._due_at: to})


def _after(now: datetime, period: timedelta, share: sa.ColumnElement[float]) -> sa.ColumnElement[datetime]:
    """A time that lies so much of a period ahead; drawn for each row."""
    return sa.literal(now, schema.Timestamp) + share * period
