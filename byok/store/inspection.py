"""What a registration says of an application's table, compared with the table itself."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import BYTEA

from byok.core.reencryption import ColumnKind, TableShape, TargetColumn, TenantFilter
from byok.errors import TargetMismatch

TYPE_OF: Mapping[ColumnKind, sa.types.TypeEngine[Any]] = {
    ColumnKind.INTEGER: sa.BigInteger(),
    ColumnKind.TEXT: sa.Text(),
    ColumnKind.UUID: sa.Uuid(),
}
PARSE: Mapping[ColumnKind, Callable[[str], Any]] = {
    ColumnKind.INTEGER: int,
    ColumnKind.TEXT: str,
    ColumnKind.UUID: UUID,
}


def inspect_table(
    connection: sa.Connection,
    name: str,
    primary_key: str,
    columns: Sequence[TargetColumn],
    tenant: tuple[str, str] | None,
) -> TableShape:
    """See `byok.ports.RowStore.inspect`."""
    inspector = sa.inspect(connection)
    named_schema, _, table = name.rpartition(".")
    schema = named_schema or inspector.default_schema_name
    try:
        types = {column["name"]: column for column in inspector.get_columns(table, schema)}
    except sa.exc.NoSuchTableError:
        raise TargetMismatch(
            f"the application's database has no table {name}, or hides it from us",
            remedy="name it with its schema, such as crm.users, and grant SELECT and UPDATE on its columns",
        ) from None
    for wanted in (primary_key, *(column.name for column in columns), *(tenant or ())[:1]):
        if wanted not in types:
            raise TargetMismatch(
                f"table {name} has no column {wanted!r}",
                remedy="--primary-key, --column and --where name columns of the table",
            )
    for column in columns:
        if not isinstance(types[column.name]["type"], BYTEA):
            raise TargetMismatch(
                f"column {column.name!r} of {name} is {types[column.name]['type']}, not bytea",
                remedy="tokens are bytes: store them in a bytea column",
            )
    _require_unique(inspector, name, table, schema, primary_key, nullable=types[primary_key]["nullable"])
    _require_update(connection, table, schema, columns)
    return TableShape(
        schema=schema or "public",
        table=table,
        primary_key=primary_key,
        primary_key_kind=_kind(name, primary_key, types[primary_key]["type"]),
        columns=tuple(columns),
        tenant_filter=None if tenant is None else _filter(name, *tenant, types[tenant[0]]["type"]),
    )


def _filter(table: str, column: str, value: str, found: object) -> TenantFilter:
    kind = _kind(table, column, found)
    try:
        PARSE[kind](value)
    except ValueError:
        raise TargetMismatch(f"column {column!r} of {table} can't be {value!r}: it is {kind}") from None
    return TenantFilter(column, kind, value)


def _kind(table: str, column: str, found: object) -> ColumnKind:
    if isinstance(found, sa.Integer):
        return ColumnKind.INTEGER
    if isinstance(found, sa.Uuid):
        return ColumnKind.UUID
    if isinstance(found, (sa.TEXT, sa.VARCHAR)):
        return ColumnKind.TEXT
    raise TargetMismatch(
        f"column {column!r} of {table} is {found}", remedy="an integer, a text or a uuid will do"
    )


def _require_unique(
    inspector: sa.Inspector, name: str, table: str, schema: str | None, column: str, *, nullable: bool
) -> None:
    if inspector.get_pk_constraint(table, schema)["constrained_columns"] == [column]:
        return
    whole = [
        index["column_names"]
        for index in inspector.get_indexes(table, schema)
        if index["unique"] and not index.get("dialect_options", {}).get("postgresql_where")
    ]
    if nullable or [column] not in whole:
        raise TargetMismatch(
            f"column {column!r} of {name} is not unique by itself, or may be NULL",
            remedy="name the primary key, or a column that is NOT NULL and has a unique index of its own",
        )


def _require_update(
    connection: sa.Connection, table: str, schema: str | None, columns: Sequence[TargetColumn]
) -> None:
    quoted = connection.dialect.identifier_preparer.format_table(sa.table(table, schema=schema))
    for column in columns:
        may = sa.select(sa.func.has_column_privilege(quoted, column.name, "UPDATE"))
        if not connection.execute(may).scalar_one():
            raise TargetMismatch(
                f"we may not update column {column.name!r} of {table}",
                remedy=f"GRANT SELECT, UPDATE ({column.name}) ON {quoted} to the user of the URL",
            )
