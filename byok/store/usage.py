"""The usage ledger: one row for each version that was used, added to by every process."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.dialects.postgresql import UUID as PG_UUID

from byok.core.usage import VersionId, VersionUsage
from byok.store import schema

_usage, _versions, _members = schema.version_usage, schema.key_versions, schema.members


class UsageTable:
    """Implements `byok.ports.Usage`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def add(self, uses: Mapping[VersionId, int], at: datetime) -> None:
        self._connection.execute(sa.text("SET LOCAL statement_timeout = '1s'"))
        if not uses:
            return
        counted = _counted(uses)
        rows = (
            sa.select(
                counted.c.key_id,
                counted.c.number,
                counted.c.uses,
                sa.literal(at, schema.Timestamp).label("first_used_at"),
                sa.literal(at, schema.Timestamp).label("last_used_at"),
            )
            .join_from(
                counted,
                _versions,
                (counted.c.key_id == _versions.c.key_id) & (counted.c.number == _versions.c.number),
            )
            # All writers lock rows in one order: none waits for another in a circle.
            .order_by(counted.c.key_id, counted.c.number)
        )
        added = insert(_usage).from_select([column.name for column in _usage.c], rows)
        self._connection.execute(
            added.on_conflict_do_update(
                index_elements=[_usage.c.key_id, _usage.c.number],
                set_={
                    "uses": _usage.c.uses + added.excluded.uses,
                    "last_used_at": sa.func.greatest(_usage.c.last_used_at, added.excluded.last_used_at),
                },
            )
        )

    def list(self, key_id: UUID) -> Mapping[int, VersionUsage]:
        rows = self._connection.execute(sa.select(_usage).where(_usage.c.key_id == key_id))
        return {
            row.number: VersionUsage(row.number, row.uses, row.first_used_at, row.last_used_at)
            for row in rows
        }

    def note_flush(self, member_id: UUID, at: datetime) -> None:
        self._connection.execute(
            _members.update().where(_members.c.id == member_id).values(usage_flushed_at=at)
        )

    def list_unflushed(self, since: datetime, seen_since: datetime | None) -> Sequence[str]:
        name = schema.member_name.label("name")
        flushed_at = _members.c.usage_flushed_at
        query = sa.select(name).where(flushed_at.is_(None) | (flushed_at < since)).order_by(name)
        if seen_since is not None:
            query = query.where(_members.c.seen_at >= seen_since)
        return list(self._connection.execute(query).scalars())


def _counted(uses: Mapping[VersionId, int]) -> sa.TableValuedAlias:
    """What was counted, as a table of three arrays: one statement whatever the number of versions."""
    return (
        sa.func.unnest(
            sa.cast([version.key_id for version in uses], ARRAY(PG_UUID)),
            sa.cast([version.number for version in uses], ARRAY(sa.Integer)),
            sa.cast(list(uses.values()), ARRAY(sa.BigInteger)),
        )
        .table_valued(
            sa.column("key_id", PG_UUID),
            sa.column("number", sa.Integer),
            sa.column("uses", sa.BigInteger),
            name="counted",
        )
        .render_derived()
    )
