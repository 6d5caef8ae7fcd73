"""Implements `byok.ports.RowStore` on the application's PostgreSQL.

Names of tables and columns come from registrations: they go through SQLAlchemy's quoting, and each value
is bound. A batch is one UPDATE that compares every old token, so that no write of the application is lost.
It locks what it can at once and leaves out the rest: as it never waits for a row, it can't be part of a
deadlock, and the application waits for it for the length of one batch at most.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA

from byok.core.reencryption import NO_TOKEN, TableShape, TargetColumn
from byok.core.wire import HEADER_BYTES, OVERHEAD_BYTES, TINK_PREFIX
from byok.errors import ApplicationUnavailable, ConfigurationError, TargetMismatch
from byok.ports import CountedPage, Replacement, Row
from byok.store.inspection import PARSE, TYPE_OF, inspect_table

# undefined_table, undefined_column, insufficient_privilege, undefined_function, datatype_mismatch
_MISMATCHES = frozenset({"42P01", "42703", "42501", "42883", "42804"})


class PostgresRows:
    """Reads and writes tokens in the application's database. Thread-safe.

    Without an ``engine`` everything raises ConfigurationError.
    """

    def __init__(self, engine: sa.Engine | None) -> None:
        self._engine = engine

    def inspect(
        self,
        table: str,
        primary_key: str,
        columns: Sequence[TargetColumn],
        tenant: tuple[str, str] | None,
    ) -> TableShape:
        with self._connected() as connection:
            return inspect_table(connection, table, primary_key, columns, tenant)

    def page(self, shape: TableShape, after: str | None, limit: int) -> Sequence[Row]:
        table = _Table(shape)
        query = (
            sa.select(table.key, *table.tokens)
            .where(*table.rows_after(after))
            .order_by(table.key)
            .limit(limit)
        )
        with self._connected() as connection:
            return [Row(str(row[0]), tuple(row[1:])) for row in connection.execute(query)]

    def replace(self, shape: TableShape, replacements: Sequence[Replacement]) -> int:
        by_columns: dict[tuple[int, ...], list[Replacement]] = defaultdict(list)
        for one in replacements:
            changed = tuple(place for place, old in enumerate(one.old) if old != one.new[place])
            by_columns[changed].append(one)
        with self._connected() as connection:
            return sum(
                _replace(connection, _Table(shape), places, group) for places, group in by_columns.items()
            )

    def count(self, shape: TableShape, after: str | None, limit: int) -> CountedPage:
        table = _Table(shape)
        rows = table.rows_after(after)
        # An offset into one page: all that is skipped is counted, too.
        last = sa.select(table.key).where(*rows).order_by(table.key).offset(limit - 1).limit(1)
        with self._connected() as connection:
            last_key = connection.execute(last).scalar_one_or_none()
            if last_key is not None:
                rows = [*rows, table.key <= last_key]
            by_column = [
                connection.execute(sa.select(header, sa.func.count()).where(*rows).group_by(header)).all()
                for header in map(_header, table.tokens)
            ]
        counts: Counter[int] = Counter()
        for groups in by_column:
            for header, count in groups:
                if header is not None:
                    counts[_version_number(header)] += count
        return CountedPage(
            rows=sum(count for _, count in by_column[0]),
            counts=counts,
            last_id=None if last_key is None else str(last_key),
        )

    @contextmanager
    def _connected(self) -> Iterator[sa.Connection]:
        """A transaction in the application's database."""
        if self._engine is None:
            raise ConfigurationError(
                "BYOK_APPLICATION_DATABASE_URL: is not set in this process",
                remedy="set it, for workers and the command line, to the database whose rows are to be "
                "re-encrypted; see docs/reencryption.md",
            )
        try:
            with self._engine.begin() as connection:
                yield connection
        except exc.DBAPIError as error:
            raise _translated(error) from None  # the driver's message may hold values and the address
        except exc.TimeoutError:
            raise ApplicationUnavailable("all connections to the application's database are in use") from None

    def dispose(self) -> None:
        """Forget the connections without closing the sockets that a parent process still uses."""
        if self._engine is not None:
            self._engine.dispose(close=False)

    def close(self) -> None:
        """Close all idle connections."""
        if self._engine is not None:
            self._engine.dispose()


class _Table:
    """A registered table as SQLAlchemy sees it: every name quoted, every value typed and bound."""

    def __init__(self, shape: TableShape) -> None:
        self._parse = PARSE[shape.primary_key_kind]
        self.key_type = TYPE_OF[shape.primary_key_kind]
        key: sa.ColumnClause[Any] = sa.column(shape.primary_key, self.key_type)
        tokens = [sa.column(column.name, BYTEA) for column in shape.columns]
        columns: dict[str, sa.ColumnClause[Any]] = {one.name: one for one in (key, *tokens)}
        mine = shape.tenant_filter
        if mine is not None:
            columns.setdefault(mine.column, sa.column(mine.column, TYPE_OF[mine.kind]))
        self.clause = sa.table(shape.table, *columns.values(), schema=shape.schema)
        self.key = self.clause.c[shape.primary_key]
        self.tokens = [self.clause.c[one.name] for one in tokens]
        self._mine = [] if mine is None else [self.clause.c[mine.column] == PARSE[mine.kind](mine.value)]

    def rows_after(self, after: str | None) -> list[sa.ColumnElement[bool]]:
        """The conditions on the tenant's rows behind a primary key."""
        return self._mine if after is None else [*self._mine, self.key > self.parse(after)]

    def parse(self, row_id: str) -> Any:  # noqa: ANN401  # an int, a str or a UUID
        """A primary key from its text."""
        return self._parse(row_id)


def _replace(
    connection: sa.Connection, table: _Table, places: tuple[int, ...], replacements: Sequence[Replacement]
) -> int:
    """One UPDATE for all rows in which the same columns change."""
    ids = sa.literal([table.parse(one.id) for one in replacements], ARRAY(table.key_type))
    given_columns: list[sa.ColumnClause[Any]] = [sa.column("id", table.key_type)]
    arrays: list[sa.ColumnElement[Any]] = [ids]
    for place in places:
        given_columns += [sa.column(f"old_{place}", BYTEA), sa.column(f"new_{place}", BYTEA)]
        arrays += [
            sa.literal([one.old[place] for one in replacements], ARRAY(BYTEA)),
            sa.literal([one.new[place] for one in replacements], ARRAY(BYTEA)),
        ]
    given = sa.func.unnest(*arrays).table_valued(*given_columns, name="given").render_derived()
    locked = (
        sa.select(table.key.label("id"))
        .where(table.key == sa.any_(ids))
        .with_for_update(key_share=True, skip_locked=True)
        .cte("locked")
    )
    statement = (
        table.clause.update()
        .where(
            table.key.in_(sa.select(locked.c.id)),
            table.key == given.c.id,
            *(table.tokens[place] == given.c[f"old_{place}"] for place in places),
        )
        .values({table.tokens[place]: given.c[f"new_{place}"] for place in places})
    )
    return connection.execute(statement).rowcount


def _header(token: sa.ColumnElement[bytes]) -> sa.ColumnElement[bytes | None]:
    """Prefix and version number of a token, nothing of what is too short to be one; NULL of NULL."""
    is_long_enough = sa.func.octet_length(token) >= OVERHEAD_BYTES
    nothing = sa.cast(sa.literal(b""), BYTEA)
    return sa.case(
        (token.is_(None), None), (is_long_enough, sa.func.substr(token, 1, HEADER_BYTES)), else_=nothing
    )


def _version_number(header: bytes) -> int:
    if len(header) != HEADER_BYTES or header[0] != TINK_PREFIX:
        return NO_TOKEN
    return int.from_bytes(header[1:])


def _translated(error: exc.DBAPIError) -> Exception:
    diagnostics = getattr(error.orig, "diag", None)
    state = getattr(diagnostics, "sqlstate", None) or ""
    if state in _MISMATCHES:
        told = getattr(diagnostics, "message_primary", None) or "PostgreSQL refuses the statement"
        return TargetMismatch(
            f"the table is not what was registered, or not ours to write: {told}",
            remedy="grant SELECT and UPDATE on its columns, or register the target anew",
        )
    return ApplicationUnavailable(
        f"the application's database does not answer ({type(error.orig).__name__}, {state or 'no code'})",
        remedy="check that it runs and BYOK_APPLICATION_DATABASE_URL names it",
    )
