"""The log of every request to KMS and STS."""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.dialects.postgresql import UUID as PG_UUID

from byok.core.request_log import LoggedRequest
from byok.store import schema
from byok.store.batches import any_of

_requests = schema.kms_requests
_COLUMNS = tuple(_requests.c)
_PLACE = (_requests.c.began_at, _requests.c.id)


class RequestLogTable:
    """Implements `byok.ports.RequestLogTable`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def add(self, requests: Sequence[LoggedRequest]) -> None:
        # Whoever moves a spool also looks for stops: it gives up, and comes again.
        self._connection.execute(sa.text("SET LOCAL statement_timeout = '1s'"))
        table = _as_table(requests)
        # All writers insert in one order: none waits for another in a circle.
        added = insert(_requests).from_select(
            [column.name for column in _COLUMNS], sa.select(*table.c).order_by(table.c.id)
        )
        self._connection.execute(
            added.on_conflict_do_update(
                index_elements=[_requests.c.id],
                set_={name: added.excluded[name] for name in ("ended_at", "request_id", "code")},
                where=sa.and_(_requests.c.ended_at.is_(None), added.excluded.ended_at.is_not(None)),
            )
        )

    def page(
        self,
        tenant_id: UUID,
        since: datetime,
        until: datetime,
        after: LoggedRequest | None,
        limit: int,
    ) -> Sequence[LoggedRequest]:
        query = (
            sa.select(_requests)
            .where(
                _requests.c.tenant_id == tenant_id,
                _requests.c.began_at >= since,
                _requests.c.began_at < until,
            )
            .order_by(*_PLACE)
            .limit(limit)
        )
        if after is not None:
            query = query.where(sa.tuple_(*_PLACE) > (after.began_at, after.id))
        return [LoggedRequest(**row._mapping) for row in self._connection.execute(query)]

    def find(
        self, request_ids: Collection[str], ids: Collection[UUID], since: datetime, until: datetime
    ) -> Sequence[LoggedRequest]:
        query = sa.select(_requests).where(
            _requests.c.began_at >= since,
            _requests.c.began_at < until,
            sa.or_(any_of(_requests.c.request_id, request_ids), any_of(_requests.c.id, ids)),
        )
        return [LoggedRequest(**row._mapping) for row in self._connection.execute(query)]

    def first_began_at(self) -> datetime | None:
        return self._connection.execute(
            sa.select(_requests.c.began_at).order_by(_requests.c.began_at).limit(1)
        ).scalar_one_or_none()

    def remove_before(self, before: datetime, limit: int) -> int:
        old = (
            sa.select(_requests.c.id)
            .where(_requests.c.began_at < before)
            .order_by(_requests.c.began_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        return self._connection.execute(_requests.delete().where(_requests.c.id.in_(old))).rowcount


def _as_table(requests: Sequence[LoggedRequest]) -> sa.TableValuedAlias:
    """Requests as a table of arrays: one statement whatever their number."""

    def column(name: str, kind: Any, read: Callable[[LoggedRequest], object]) -> Any:  # noqa: ANN401  # types of SQLAlchemy's columns
        return sa.cast([read(request) for request in requests], ARRAY(kind)), sa.column(name, kind)

    pairs = [
        column(one.name, PG_UUID if isinstance(one.type, PG_UUID) else one.type, _reader(one.name))
        for one in _COLUMNS
    ]
    return (
        sa.func.unnest(*(values for values, _ in pairs))
        .table_valued(*(made for _, made in pairs), name="logged")
        .render_derived()
    )


def _reader(name: str) -> Callable[[LoggedRequest], object]:
    return lambda request: getattr(request, name)
