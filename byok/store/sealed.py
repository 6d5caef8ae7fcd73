"""The tables of sealed records: each has the columns of a place, of the seal, and the KMS key's ARN."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa

from byok.core.model import SealedBox
from byok.core.resealing import RecordKind, RecordPage, RecordPlace, SealedRecord
from byok.store import schema
from byok.store.batches import parameters, table_of

_keys = schema.keys
# What a table needs so that its records are resealed: key_id and number, which are its primary key or begin
# it, kms_key_arn, and the three columns of the seal.
TABLES: Final[Mapping[RecordKind, sa.Table]] = {RecordKind.VERSION: schema.key_versions}


class SealedTable:
    """Implements `byok.ports.SealedRecords` for one kind."""

    def __init__(self, connection: sa.Connection, kind: RecordKind) -> None:
        self._connection = connection
        self._table = TABLES[kind]

    def page(self, after: RecordPlace | None, limit: int, *, not_under: str | None = None) -> RecordPage:
        table = self._table
        place = sa.tuple_(table.c.key_id, table.c.number)
        # The rows of a page are taken first and chosen from afterwards: however few are left to be done,
        # each statement reads a page and no more.
        taken = sa.select(table).order_by(table.c.key_id, table.c.number).limit(limit)
        if after is not None:
            taken = taken.where(place > sa.tuple_(sa.literal(after.key_id), sa.literal(after.number)))
        rows = self._connection.execute(_with_tenants(taken.subquery())).all()
        last = RecordPlace(rows[-1].key_id, rows[-1].number) if len(rows) == limit else None
        return RecordPage(
            [_to_record(row) for row in rows if row.master_key_id not in (None, not_under)], last
        )

    def sample(self, limit: int, *, master_key_id: str | None = None) -> Sequence[SealedRecord]:
        sealed = self._table.c.master_key_id
        taken = (
            sa.select(self._table)
            .where(sealed.is_not(None) if master_key_id is None else sealed == master_key_id)
            .limit(limit)
        )
        return [_to_record(row) for row in self._connection.execute(_with_tenants(taken.subquery()))]

    def replace_seals(self, seals: Sequence[tuple[SealedRecord, SealedBox]]) -> int:
        rows = [
            {
                "key_id": record.place.key_id,
                "number": record.place.number,
                "old_iv": record.box.iv,
                "old_master_key_id": record.box.master_key_id,
                "encrypted_key": new.body,
                "iv": new.iv,
                "master_key_id": new.master_key_id,
            }
            for record, new in seals
        ]
        return self._connection.execute(_swap(self._table), parameters(rows)).rowcount

    def count_not_under(self, master_key_id: str) -> int:
        sealed = self._table.c.master_key_id
        # Not <>, for which no index serves.
        others = sa.or_(sealed < master_key_id, sealed > master_key_id)
        counted = sa.select(sa.func.count()).select_from(self._table).where(others)
        self._allow_a_minute()
        return self._connection.execute(counted).scalar_one()

    def count_by_master_key(self) -> Mapping[str, int]:
        sealed = self._table.c.master_key_id
        self._allow_a_minute()
        counted = (
            sa.select(sealed, sa.func.count()).where(sealed.is_not(None)).group_by(sealed).order_by(sealed)
        )
        return dict(self._connection.execute(counted).all())

    def _allow_a_minute(self) -> None:
        self._connection.execute(sa.text("SET LOCAL statement_timeout = '60s'"))


def _with_tenants(taken: sa.Subquery) -> sa.Select[Any]:
    return (
        sa.select(
            taken.c.key_id,
            taken.c.number,
            taken.c.kms_key_arn,
            taken.c.encrypted_key,
            taken.c.iv,
            taken.c.master_key_id,
            _keys.c.tenant_id,
        )
        .join_from(taken, _keys, _keys.c.id == taken.c.key_id)
        .order_by(taken.c.key_id, taken.c.number)
    )


def _swap(table: sa.Table) -> sa.Update:
    """Put new seals in the place of those that were read. Each seal has an IV of its own: it names the seal.

    It waits for no row that somebody holds: a rotation holds several at a time, too, and of two that wait
    for each other PostgreSQL ends one.
    """
    new = table_of(
        {
            "key_id": sa.Uuid(),
            "number": sa.Integer(),
            "old_iv": table.c.iv.type,
            "old_master_key_id": sa.Text(),
            "encrypted_key": table.c.encrypted_key.type,
            "iv": table.c.iv.type,
            "master_key_id": sa.Text(),
        }
    )

    def is_as_read(seals: sa.FromClause) -> sa.ColumnElement[bool]:
        return sa.and_(
            table.c.key_id == seals.c.key_id,
            table.c.number == seals.c.number,
            table.c.iv == seals.c.old_iv,
            table.c.master_key_id == seals.c.old_master_key_id,
        )

    held = (
        sa.select(*new.c)
        .join_from(new, table, is_as_read(new))
        .with_for_update(of=table, key_share=True, skip_locked=True)
        .cte("held")
    )
    names = ("encrypted_key", "iv", "master_key_id")
    return table.update().where(is_as_read(held)).values({name: held.c[name] for name in names})


def _to_record(row: sa.Row[Any]) -> SealedRecord:
    return SealedRecord(
        RecordPlace(row.key_id, row.number),
        row.tenant_id,
        row.kms_key_arn,
        SealedBox(row.master_key_id, row.iv, row.encrypted_key),
    )
