"""Many rows in one statement: arrays of values as a table, so that a batch costs one round trip."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

Column = tuple[sa.types.TypeEngine[Any], Sequence[object]]
"""The type of a column and its values, one a row."""


def table_of(columns: Mapping[str, Column]) -> sa.TableValuedAlias:
    """A table named ``new`` of these columns.

    Its text is the same whatever the number of rows, so that it is compiled once. A JSON value may itself
    be a list.
    """
    arrays = [
        sa.bindparam(f"new_{name}", list(values), ARRAY(type_, dimensions=1), unique=True)
        for name, (type_, values) in columns.items()
    ]
    typed = [sa.column(name, type_) for name, (type_, _) in columns.items()]
    return sa.func.unnest(*arrays).table_valued(*typed).render_derived(name="new")


def rows_of(table: sa.Table, rows: Sequence[Mapping[str, object]]) -> sa.TableValuedAlias:
    """Rows of a table, not yet inserted, as `table_of`."""
    return table_of({name: (table.c[name].type, [row[name] for row in rows]) for name in rows[0]})


def insert_all(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, object]]) -> None:
    """Insert rows, one or many."""
    new = rows_of(table, rows)
    connection.execute(table.insert().from_select(list(rows[0]), sa.select(*new.c)))


def any_of(column: sa.ColumnElement[Any], values: Collection[object]) -> sa.ColumnElement[bool]:
    """Whether a column has one of these values: ``= ANY``, whose text does not grow with them."""
    return column == sa.any_(sa.literal(list(values), ARRAY(column.type, dimensions=1)))
