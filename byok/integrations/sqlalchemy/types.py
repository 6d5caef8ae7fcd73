"""Column types that encrypt on the way into the database and decrypt on the way out.

What is stored is a token in a LargeBinary (PostgreSQL: BYTEA), NULL for None. Its context is
``table.column``, without a schema, since schemas are renamed and mapped; so a token opens in any row of its
column. `byok.integrations.sqlalchemy.rows` binds values to their rows.
"""

from typing import Any, ClassVar, Literal, Never, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import operators
from sqlalchemy.types import TypeDecorator

from byok import connect
from byok.errors import InvalidInput, NoRow, NotComparable
from byok.integrations.values import BYTES, JSON, TEXT, CipherSource, Codec, TenantSource, VaultSource

_Value = TypeVar("_Value")


class _NullOnly(TypeDecorator.Comparator[Any]):
    """Two tokens of one value differ: the database can tell of a column whether it is NULL, and no more."""

    def operate(self, op: operators.OperatorType, *other: Any, **named: Any) -> sa.ColumnElement[Any]:
        null = len(other) == 1 and (other[0] is None or isinstance(other[0], sa.Null))
        if null and op in (operators.eq, operators.ne, operators.is_, operators.is_not):
            return super().operate(op, *other, **named)
        raise not_comparable(str(self.expr))

    def reverse_operate(self, op: operators.OperatorType, other: Any, **named: Any) -> Never:
        raise not_comparable(str(self.expr))


class Encrypted(TypeDecorator[_Value]):
    """Base of the encrypted column types.

    ``tenant`` gives the tenant whose value it is, and is called for each value: read a ContextVar. Without
    a tenant nothing is written or read. ``vault`` is one, or gives one; `byok.connect` by default.
    ``context`` fixes what is ``table.column`` otherwise: needed to keep data readable when either is renamed.
    """

    impl = sa.LargeBinary
    comparator_factory = _NullOnly
    codec: ClassVar[Codec[Any]]

    # SQLAlchemy caches compiled statements by the attributes that are named like these parameters, and leaves
    # out those behind a star.
    def __init__(
        self, key: str, tenant: TenantSource, vault: VaultSource = connect, context: str | None = None
    ) -> None:
        super().__init__()
        self.key = key
        self.tenant = tenant
        self.vault = vault
        self.context = context
        self._has_fixed_context = context is not None
        self.source = CipherSource(key, tenant, vault)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.key!r}, context={self.context!r})"

    def process_bind_param(self, value: _Value | None, dialect: Dialect) -> bytes | None:
        """Encrypt, just before the statement runs."""
        return None if value is None else self.codec.seal(self.source, value, self._known_context())

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> _Value | None:
        """Decrypt, when the row is read."""
        if value is None:
            return None
        opened: _Value = self.codec.open(self.source, value, self._known_context())
        return opened

    def literal_processor(self, dialect: Dialect) -> Never:
        """Refuse: the text of a statement goes into logs."""
        # Here and not in the processor: SQLAlchemy would name the value in an error of its own.
        raise NotComparable("an encrypted column's value is not written into SQL text", remedy="bind it")

    def with_variant(self, type_: object, *dialect_names: str) -> Never:
        """Refuse: on some database the values would be stored as they are."""
        raise InvalidInput("an encrypted column type has no variants", remedy="use it for all databases")

    def _set_parent(self, parent: Any, outer: bool = False, **named: Any) -> None:
        super()._set_parent(parent, outer, **named)
        event.listen(parent, "after_parent_attach", self._become_part_of)

    def _become_part_of(self, column: "sa.Column[Any]", table: sa.Table) -> None:
        """Give the column a type of its own, since one object may be given to several columns."""
        if not self._has_fixed_context:
            own = self.copy()
            own.context = column_context(table.name, column.name)
            column.type = own

    def _known_context(self) -> str:
        if self.context is None:
            raise NoRow("an encrypted type was used outside of a column", remedy="say context=")
        return self.context


class EncryptedString(Encrypted[str]):
    """Text, encrypted as UTF-8."""

    cache_ok = True  # each class says so for itself
    codec = TEXT


class EncryptedBytes(Encrypted[bytes]):
    """Bytes."""

    cache_ok = True
    codec = BYTES


class EncryptedJSON(Encrypted[Any]):
    """What the standard library's json takes, encrypted as its shortest text with sorted keys. None is NULL.

    A change inside the value is noticed under ``MutableDict.as_mutable(EncryptedJSON(…))`` only.
    """

    cache_ok = True
    codec = JSON
    hashable = False


def column_context(table: str, column: str) -> str:
    """The context of a column's values.

    Raises:
        InvalidInput: a name would make contexts ambiguous.
    """
    if any(mark in name for name in (table, column) for mark in ".:"):
        raise InvalidInput(
            f"column {column!r} of table {table!r} has a dot or colon in its name", remedy="say context="
        )
    return f"{table}.{column}"


def not_comparable(column: str) -> NotComparable:
    """The error for whoever asks the database about an encrypted value."""
    return NotComparable(
        f"{column} is encrypted: the database can only tell whether it is NULL",
        remedy="search by a blind index in a column of its own: docs/search.md",
    )


def render_item(kind: str, item: object, autogen_context: object) -> str | Literal[False]:
    """For Alembic's ``context.configure(render_item=…)``: migrations see what is stored, and need no byok."""
    return "sa.LargeBinary()" if kind == "type" and isinstance(item, Encrypted) else False
