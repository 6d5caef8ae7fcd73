"""Values bound to their rows, over real PostgreSQL."""

import uuid
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, make_transient, mapped_column

from byok.embedded.stack import Stack
from byok.errors import CannotDecrypt, NoRow, NotComparable, NoTenant
from byok.integrations.sqlalchemy import EncryptedJSON, EncryptedString, row_encrypted
from byok.integrations.sqlalchemy.rows import row_context
from byok.services.vault import Vault
from tests.world import World

SECRET = "ada@example.com"

current_tenant: ContextVar[str] = ContextVar("current_tenant")
vault: ContextVar[Vault] = ContextVar("vault")

TEXT = EncryptedString("pii", tenant=current_tenant.get, vault=vault.get)
ANYTHING = EncryptedJSON("pii", tenant=current_tenant.get, vault=vault.get)


class Base(DeclarativeBase):
    metadata = sa.MetaData(schema="rows")


class Addressed:
    """A mixin."""

    address_token: Mapped[bytes | None]
    address = row_encrypted("address_token", ANYTHING)


class User(Addressed, Base):
    __tablename__ = "users"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    email_token: Mapped[bytes | None] = mapped_column("email")
    email = row_encrypted("email_token", TEXT)


class Seat(Base):
    __tablename__ = "seats"

    row: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    guest_token: Mapped[bytes | None] = mapped_column("guest")
    guest = row_encrypted("guest_token", TEXT)


class Counted(Base):
    __tablename__ = "counted"

    id: Mapped[int] = mapped_column(primary_key=True)
    email_token: Mapped[bytes | None] = mapped_column("email")
    email = row_encrypted("email_token", TEXT)


@pytest.fixture(scope="module")
def tables(stack: Stack) -> Iterator[sa.Engine]:
    engine = sa.create_engine(stack.environment["BYOK_DATABASE_URL"])
    with engine.begin() as connection:
        connection.execute(sa.schema.CreateSchema("rows"))
    Base.metadata.create_all(engine)
    yield engine
    with engine.begin() as connection:
        connection.execute(sa.schema.DropSchema("rows", cascade=True))
    engine.dispose()


@pytest.fixture
def session(tables: sa.Engine, world: World) -> Iterator[Session]:
    """A session within acme's request."""
    world.add_tenant()
    world.add_key()
    tokens = current_tenant.set("acme"), vault.set(world.services.vault)
    with tables.connect() as connection:
        outer = connection.begin()
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            yield session
        outer.rollback()
    current_tenant.reset(tokens[0])
    vault.reset(tokens[1])


def opened(world: World, token: bytes | None, context: str) -> str:
    assert token is not None
    return world.services.vault.cipher("acme", "pii").decrypt(token, context=context.encode()).decode()


def test_a_value_is_under_its_table_column_and_key_and_opens_by_hand(session: Session, world: World) -> None:
    user = User(email=SECRET, address={"b": 1, "a": 2})
    assert (user.email, user.email_token) == (SECRET, None)
    session.add(user)
    session.commit()
    assert opened(world, user.email_token, f"users.email:{user.id}") == SECRET
    assert opened(world, user.address_token, f"users.address_token:{user.id}") == '{"a":2,"b":1}'
    session.expire_all()
    again = session.scalars(sa.select(User)).one()
    assert (again.email, again.address) == (SECRET, {"a": 2, "b": 1})


def test_keys_of_several_columns(session: Session, world: World) -> None:
    seat = Seat(row="A", number=7, guest=SECRET)
    session.add(seat)
    session.flush()
    assert opened(world, seat.guest_token, "seats.guest:A:7") == SECRET


def test_a_token_of_another_row_does_not_open(session: Session) -> None:
    ada, eve = User(email=SECRET), User(email="eve@example.com")
    session.add_all([ada, eve])
    session.flush()
    eve.email_token = ada.email_token
    session.flush()
    with pytest.raises(CannotDecrypt):
        _ = eve.email
    assert ada.email == SECRET


def test_nor_does_it_get_into_a_new_row(session: Session) -> None:
    ada = User(email=SECRET)
    session.add(ada)
    session.flush()
    session.add(User(email_token=ada.email_token))
    with pytest.raises(CannotDecrypt):
        session.flush()


def test_none_is_null(session: Session) -> None:
    user = User(email=None)
    session.add(user)
    session.flush()
    assert (user.email, user.email_token, user.address) == (None, None, None)
    user.email = SECRET
    session.flush()
    user.email = None
    session.commit()
    assert session.get_one(User, user.id).email_token is None


def test_an_update_is_encrypted_at_once_and_anew(session: Session, world: World) -> None:
    user = User(email=SECRET)
    session.add(user)
    session.commit()
    before = user.email_token
    user.email = SECRET
    assert user.email_token != before
    session.commit()
    assert opened(world, user.email_token, f"users.email:{user.id}") == SECRET
    user.email = "grace@example.com"
    session.rollback()
    assert user.email == SECRET


def test_the_last_value_before_the_first_flush_counts(session: Session) -> None:
    user = User(email="first@example.com")
    session.add(user)
    user.email = SECRET
    user.id = uuid.uuid4()
    session.commit()
    assert session.get_one(User, user.id).email == SECRET


def test_a_flush_that_failed_can_be_repeated(session: Session) -> None:
    taken = User(email="grace@example.com")
    session.add(taken)
    session.commit()
    key = taken.id
    session.expunge_all()
    user = User(id=key, email=SECRET)
    session.add(user)
    with pytest.raises(sa.exc.IntegrityError):
        session.flush()
    session.rollback()
    assert user.email == SECRET
    user.id, user.email = uuid.uuid4(), user.email
    session.add(user)
    session.commit()
    assert session.get_one(User, user.id).email == SECRET


def test_values_follow_a_changed_key(session: Session, world: World) -> None:
    seat = Seat(row="A", number=7, guest=SECRET)
    session.add(seat)
    session.commit()
    seat.number = 8
    assert seat.guest == SECRET
    session.commit()
    assert seat.guest == SECRET
    assert opened(world, seat.guest_token, "seats.guest:A:8") == SECRET
    seat.number, seat.guest = 9, "grace@example.com"
    session.commit()
    assert opened(world, seat.guest_token, "seats.guest:A:9") == "grace@example.com"


def test_what_was_loaded_outlives_its_session(session: Session) -> None:
    session.add(User(email=SECRET))
    session.commit()
    user = session.scalars(sa.select(User)).one()
    session.expunge(user)
    assert user.email == SECRET
    make_transient(user)
    assert user.email == SECRET


def test_a_key_that_only_the_database_makes_is_refused(session: Session) -> None:
    session.add(Counted(email=SECRET))
    with pytest.raises(NoRow, match="not known before the database makes it") as caught:
        session.flush()
    assert "uuid" in str(caught.value.remedy)
    session.rollback()
    session.add(Counted(id=1, email=SECRET))
    session.add(Counted(id=2))
    session.flush()
    assert session.get_one(Counted, 1).email == SECRET


def test_without_a_tenant_nothing_is_written_or_read(session: Session) -> None:
    user = User(email=SECRET)
    session.add(user)
    session.commit()
    current_tenant.set("")
    with pytest.raises(NoTenant):
        _ = user.email
    with pytest.raises(NoTenant):
        user.email = "grace@example.com"
    session.add(User(email=SECRET))
    with pytest.raises(NoTenant):
        session.flush()


@pytest.mark.parametrize(
    "query",
    [
        lambda: User.email == SECRET,
        lambda: sa.select(User.email),
        lambda: sa.select(User).filter_by(email=SECRET),
        lambda: sa.select(User).order_by(User.email),
        lambda: User.email.in_([SECRET]),
    ],
)
def test_the_database_is_not_asked_what_it_can_not_know(query: Any) -> None:
    with pytest.raises(NotComparable, match=r"User\.email is encrypted"):
        query()


STATEMENTS: list[Any] = [
    lambda session: session.execute(sa.update(User).values({User.email: SECRET})),
    lambda session: session.execute(sa.update(User).values(email=SECRET)),
    lambda session: session.execute(sa.insert(User).values(email=SECRET)),
    lambda session: session.execute(sa.insert(User), [{"email": SECRET}]),
    lambda session: session.execute(sa.update(User), [{"id": uuid.uuid4(), "email": SECRET}]),
]


@pytest.mark.parametrize("act", STATEMENTS)
def test_statements_that_go_past_the_objects_are_refused(session: Session, act: Any) -> None:
    with pytest.raises((NotComparable, NoRow)):
        act(session)


@pytest.mark.parametrize(
    ("identity", "context"),
    [
        ((42,), "t.c:42"),
        ((-1,), "t.c:-1"),
        (("a:b",), "t.c:a:b"),
        ((UUID("0190A000-0000-7000-8000-00000000000A"),), "t.c:0190a000-0000-7000-8000-00000000000a"),
        (("a", 7), "t.c:a:7"),
    ],
)
def test_how_a_key_is_written(identity: tuple[Any, ...], context: str) -> None:
    assert row_context("t.c", identity) == context


@pytest.mark.parametrize("identity", [(None,), (True,), (1.0,), (b"a",), ("a:b", "c"), ("a", None)])
def test_keys_that_would_be_ambiguous_are_refused(identity: tuple[Any, ...]) -> None:
    with pytest.raises(NoRow):
        row_context("t.c", identity)
