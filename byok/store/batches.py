"""Many rows in one statement, so that a batch costs one round trip.

Rows go as one JSON document, which PostgreSQL reads as a table: psycopg would make arrays in Python, element
by element, at five times the cost. A statement's text does not depend on how many there are. The document is
a parameter of its own, so that a statement that is always the same can be made once.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

_ROWS = "new_rows"
Types = Mapping[str, sa.types.TypeEngine[Any]]


def table_of(types: Types) -> sa.TableValuedAlias:
    """A table named ``new`` with columns of these types; `parameters` gives a statement its rows."""
    document = sa.cast(sa.bindparam(_ROWS, type_=sa.Text), sa.JSON)
    columns = [sa.column(name, type_) for name, type_ in types.items()]
    table = sa.func.json_to_recordset(document).table_valued(*columns)
    return table.render_derived(name="new", with_types=True)


@cache
def rows_of(table: sa.Table, *names: str) -> sa.TableValuedAlias:
    """Some columns of rows of a table, as `table_of`."""
    return table_of({name: table.c[name].type for name in names})


def parameters(rows: Sequence[Mapping[str, object]]) -> dict[str, str]:
    """The parameters of a statement with a table of new rows in it."""
    return {_ROWS: json.dumps(rows, default=_plain)}


def insert_all(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, object]]) -> None:
    """Insert rows, one or many, all with the same columns."""
    connection.execute(_insert(table, *rows[0]), parameters(rows))


@cache
def _insert(table: sa.Table, *names: str) -> sa.Insert:
    return table.insert().from_select(list(names), sa.select(*rows_of(table, *names).c))


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
