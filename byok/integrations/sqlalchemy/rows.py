"""Values bound to their row, on the ORM level: a token that is copied to another row does not open there.

The context is ``table.column:primary key``: the names of the column that holds the token, then the key as
`row_context` writes it. The mapped attribute holds tokens only; beside it stands one that reads and writes
values::

    email_token: Mapped[bytes | None] = mapped_column("email")
    email = row_encrypted("email_token", EncryptedString("pii", tenant=current_tenant))
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.ext.hybrid import Comparator, hybrid_property
from sqlalchemy.orm import InstanceState, Mapper
from sqlalchemy.sql.operators import OperatorType

from byok.errors import NoRow
from byok.integrations.sqlalchemy.types import Encrypted, column_context, not_comparable

_Value = TypeVar("_Value")


def row_encrypted(token_attribute: str, kind: Encrypted[_Value]) -> "RowEncrypted[_Value]":
    """An attribute of a mapped class whose values are encrypted, each for its row, into another attribute.

    It is decrypted when it is read. Until a new object is flushed its values wait in the object, since its
    primary key may not be known before; the key must be known to Python then. A default of the key's column
    is made use of. Whatever is assigned is encrypted anew, also if it equals what is there.

    ``kind`` says the tenant, the key and the type; its ``context`` replaces ``table.column``.
    """
    return RowEncrypted(token_attribute, kind)


class RowEncrypted(hybrid_property[_Value | None]):
    """What `row_encrypted` makes."""

    def __init__(self, token_attribute: str, kind: Encrypted[_Value]) -> None:
        compared: Any = self._compared  # annotated as a comparator, and called with the class for one
        super().__init__(self._read, fset=self._write, custom_comparator=compared)
        self._token_attribute = token_attribute
        self._kind = kind

    def __set_name__(self, owner: type, name: str) -> None:
        self.__name__ = name
        event.listen(owner, "before_insert", self._before_insert, propagate=True)
        event.listen(owner, "before_update", self._before_update, propagate=True)

    # --- the attribute ----------------------------------------------------------------------------

    def _read(self, instance: Any) -> _Value | None:
        state = sa.inspect(instance)
        if not state.key and self.__name__ in _waiting(state):
            waiting: _Value | None = _waiting(state)[self.__name__]
            return waiting
        token = getattr(instance, self._token_attribute)
        return None if token is None else self._open(state.mapper, token, _identity(state))

    def _write(self, instance: Any, value: _Value | None) -> None:
        state = sa.inspect(instance)
        if state.key:
            self._seal_into(instance, state.mapper, value, _identity(state))
        else:
            _waiting(state)[self.__name__] = value

    def _compared(self, owner: type) -> "_Refusing":
        return _Refusing(f"{owner.__name__}.{self.__name__}")

    # --- the flush --------------------------------------------------------------------------------

    def _before_insert(self, mapper: Mapper[Any], connection: Connection, instance: Any) -> None:
        state = sa.inspect(instance)
        _make_primary_key(mapper, instance)
        waiting = _waiting(state)
        if self.__name__ in waiting:
            self._seal_into(instance, mapper, waiting[self.__name__], _identity(state))
            del waiting[self.__name__]
        elif (token := getattr(instance, self._token_attribute)) is not None:
            self._open(mapper, token, _identity(state))  # one of another row must not get in

    def _before_update(self, mapper: Mapper[Any], connection: Connection, instance: Any) -> None:
        """Follow a change of the primary key."""
        state = sa.inspect(instance)
        old, new = _identity(state), mapper.primary_key_from_instance(instance)
        token = getattr(instance, self._token_attribute)
        if tuple(old) != tuple(new) and token is not None:
            self._seal_into(instance, mapper, self._open(mapper, token, old), new)

    # --- the cryptography -------------------------------------------------------------------------

    def _seal_into(
        self, instance: Any, mapper: Mapper[Any], value: _Value | None, identity: Sequence[Any]
    ) -> None:
        context = self._context(mapper, identity)
        token = None if value is None else self._kind.codec.seal(self._kind.source, value, context)
        setattr(instance, self._token_attribute, token)

    def _open(self, mapper: Mapper[Any], token: bytes, identity: Sequence[Any]) -> _Value:
        opened: _Value = self._kind.codec.open(self._kind.source, token, self._context(mapper, identity))
        return opened

    def _context(self, mapper: Mapper[Any], identity: Sequence[Any]) -> str:
        prefix = self._kind.context
        if prefix is None:
            column = mapper.column_attrs[self._token_attribute].columns[0]
            assert isinstance(column.table, sa.Table)
            prefix = column_context(column.table.name, column.name)
        return row_context(prefix, identity)


class _Refusing(Comparator[Any]):
    def __init__(self, name: str) -> None:
        super().__init__(sa.null())
        self._name = name

    def __clause_element__(self) -> Any:
        raise not_comparable(self._name)

    def operate(self, op: OperatorType, *other: Any, **named: Any) -> Any:
        raise not_comparable(self._name)

    def reverse_operate(self, op: OperatorType, other: Any, **named: Any) -> Any:
        raise not_comparable(self._name)

    def _bulk_dml_setter(self, key: str) -> Callable[[object], None]:
        """Refuse rows of parameters that name the attribute: SQLAlchemy would leave it out of them."""

        def refuse(row: object) -> None:
            raise not_comparable(self._name)

        return refuse


def row_context(column: str, identity: Sequence[Any]) -> str:
    """The context of a value in a row: ``users.email:42``.

    The parts of the primary key, in the order of its columns, are joined by colons: integers in decimal,
    UUIDs as 8-4-4-4-12 lower-case hexadecimal digits, strings as they are.

    Raises:
        NoRow: a part is missing or of another type, or a string that is one part of several has a colon.
    """
    return ":".join([column, *(_written(part, alone=len(identity) == 1) for part in identity)])


def _written(part: object, *, alone: bool) -> str:
    if part is None:
        raise NoRow(
            "the primary key of a row with encrypted values is not known before the database makes it",
            remedy="make it in Python: mapped_column(primary_key=True, default=uuid.uuid4)",
        )
    usable = isinstance(part, int | UUID | str) and not isinstance(part, bool)
    if not usable or (isinstance(part, str) and not alone and ":" in part):
        raise NoRow(
            f"a {type(part).__name__} can't name the row of an encrypted value",
            remedy="use integers, UUIDs or strings as primary key; several strings without colons",
        )
    return str(part)


def _identity(state: InstanceState[Any]) -> Sequence[Any]:
    """The primary key that the row has in the database, or will have."""
    return state.identity or state.mapper.primary_key_from_instance(state.obj())


def _waiting(state: InstanceState[Any]) -> dict[str, Any]:
    """The values of a new object that are not encrypted yet, by attribute."""
    waiting: dict[str, Any] = state.info.setdefault("byok", {})
    return waiting


def _make_primary_key(mapper: Mapper[Any], instance: Any) -> None:
    """Do what SQLAlchemy would do a moment later: call the defaults of the primary key."""
    for column in mapper.primary_key:
        attribute = mapper.get_property_by_column(column).key
        if getattr(instance, attribute) is None and column.default is not None and column.default.is_callable:
            setattr(instance, attribute, column.default.arg(None))
