"""Many rows in one statement, so that a batch costs one round trip.

Rows go as one JSON document, which PostgreSQL reads as a table: psycopg would make arrays in Python, element
by element, at five times the cost.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY


def table_of(
    types: Mapping[str, sa.types.TypeEngine[Any]], rows: Sequence[Mapping[str, object]]
) -> sa.TableValuedAlias:
    """A table named ``new`` with columns of these types. Its text is the same whatever the number of rows,
    so that it is compiled once."""
    document = sa.cast(
        sa.bindparam("new_rows", json.dumps(rows, default=_plain), sa.Text, unique=True), sa.JSON
    )
    columns = [sa.column(name, type_) for name, type_ in types.items()]
    table = sa.func.json_to_recordset(document).table_valued(*columns)
    return table.render_derived(name="new", with_types=True)


def rows_of(table: sa.Table, rows: Sequence[Mapping[str, object]]) -> sa.TableValuedAlias:
    """Rows of a table, not yet inserted or only some columns of them, as `table_of`."""
    return table_of({name: table.c[name].type for name in rows[0]}, rows)


def insert_all(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, object]]) -> None:
    """Insert rows, one or many."""
    new = rows_of(table, rows)
    connection.execute(table.insert().from_select(list(rows[0]), sa.select(*new.c)))


def any_of(column: sa.ColumnElement[Any], values: Collection[object]) -> sa.ColumnElement[bool]:
    """Whether a column has one of these values: ``= ANY``, whose text does not grow with them."""
    return column == sa.any_(sa.literal(list(values), ARRAY(column.type, dimensions=1)))


def _plain(value: object) -> str:
    """What JSON has no type for, as the text that PostgreSQL reads it from."""
    match value:
        case UUID():
            return str(value)
        case datetime():
            return value.isoformat()
        case bytes():
            return f"\\x{value.hex()}"
    raise TypeError(f"a row holds a {type(value).__name__}")
