"""Encrypted columns over real PostgreSQL: what is stored, what is refused, and what no log shows."""

import json
import logging
import operator
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Annotated, Any, ClassVar

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata, produce_migrations, render_python_code
from alembic.migration import MigrationContext
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from byok.core.wire import OVERHEAD_BYTES
from byok.embedded.stack import Stack
from byok.errors import (
    CannotDecrypt,
    InvalidInput,
    KmsAccessRevoked,
    NoRow,
    NotComparable,
    NoTenant,
)
from byok.integrations.sqlalchemy import EncryptedBytes, EncryptedJSON, EncryptedString, render_item
from byok.services.vault import Vault
from tests.world import World, kms_key_arn

SECRET = "ada@example.com"

current_tenant: ContextVar[str] = ContextVar("current_tenant")
vault: ContextVar[Vault] = ContextVar("vault")

Email = Annotated[str, "email"]


def text() -> EncryptedString:
    return EncryptedString("pii", tenant=current_tenant.get, vault=vault.get)


def binary() -> EncryptedBytes:
    return EncryptedBytes("pii", tenant=current_tenant.get, vault=vault.get)


def anything() -> EncryptedJSON:
    return EncryptedJSON("pii", tenant=current_tenant.get, vault=vault.get)


class Base(DeclarativeBase):
    metadata = sa.MetaData(schema="integrations")
    type_annotation_map: ClassVar = {Email: text()}


class User(Base):
    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str | None] = mapped_column(text())
    backup: Mapped[Email | None]
    work: Mapped[Email | None]
    photo: Mapped[bytes | None] = mapped_column(
        EncryptedBytes("pii", tenant=current_tenant.get, vault=vault.get)
    )
    extra: Mapped[dict[str, Any] | None] = mapped_column(MutableDict.as_mutable(anything()))


users = Base.metadata.tables["integrations.users"]
# The same table, as somebody without byok sees it.
raw = sa.Table(
    "users",
    sa.MetaData(schema="integrations"),
    *(sa.Column(name, sa.LargeBinary) for name in ("email", "backup", "work", "photo", "extra")),
    sa.Column("id", sa.Integer),
)


@pytest.fixture(scope="module")
def tables(stack: Stack) -> Iterator[sa.Engine]:
    engine = sa.create_engine(stack.environment["BYOK_DATABASE_URL"])  # which hides no parameters
    with engine.begin() as connection:
        connection.execute(sa.schema.CreateSchema("integrations"))
    Base.metadata.create_all(engine)
    yield engine
    with engine.begin() as connection:
        connection.execute(sa.schema.DropSchema("integrations", cascade=True))
    engine.dispose()


@pytest.fixture
def session(tables: sa.Engine, world: World) -> Iterator[Session]:
    """A session within acme's request."""
    for name in ("acme", "globex"):
        world.add_tenant(name)
        world.add_key(name)
    tokens = current_tenant.set("acme"), vault.set(world.services.vault)
    with Session(tables) as session:
        session.execute(sa.delete(User))
        session.commit()
        yield session
        session.rollback()
    current_tenant.reset(tokens[0])
    vault.reset(tokens[1])


def stored(session: Session, column: str) -> Any:
    session.flush()
    return session.execute(sa.select(raw.c[column])).scalar_one()


# --- what is stored -------------------------------------------------------------------------------------


def test_values_of_each_type_come_back(session: Session) -> None:
    session.add(User(id=1, email=SECRET, photo=b"\x00\xff", extra={"b": [1, None], "a": "ü"}))
    session.commit()
    user = session.scalars(sa.select(User)).one()
    assert (user.email, user.photo, user.extra) == (SECRET, b"\x00\xff", {"a": "ü", "b": [1, None]})
    assert (user.backup, user.work) == (None, None)


def test_core_binds_many_rows_at_once(session: Session) -> None:
    session.execute(sa.insert(users), [{"id": n, "email": f"{n}"} for n in range(50)])
    rows = session.execute(sa.select(users.c.email).order_by(users.c.id)).scalars().all()
    assert rows == [f"{n}" for n in range(50)]
    tokens = session.execute(sa.select(raw.c.email)).scalars().all()
    assert len({token[5:29] for token in tokens}) == 50


def test_the_database_has_a_token_that_a_cipher_opens_by_hand(session: Session, world: World) -> None:
    session.add(User(id=1, email=SECRET, extra={"b": 1, "a": "ü"}))
    token = stored(session, "email")
    cipher = world.services.vault.cipher("acme", "pii")
    assert len(token) == OVERHEAD_BYTES + len(SECRET)
    assert cipher.decrypt(token, context=b"users.email") == SECRET.encode()
    assert cipher.decrypt(stored(session, "extra"), context=b"users.extra") == '{"a":"ü","b":1}'.encode()


def test_none_is_null_and_null_is_none(session: Session) -> None:
    session.add(User(id=1, email=None, extra=None))
    assert (stored(session, "email"), stored(session, "extra")) == (None, None)
    session.expire_all()
    user = session.scalars(sa.select(User).where(User.email.is_(None), User.work == None)).one()  # noqa: E711
    assert (user.email, user.extra) == (None, None)
    assert session.scalars(sa.select(User).where(User.email.is_not(None))).all() == []


def test_a_token_of_one_column_does_not_open_in_another(session: Session) -> None:
    session.add(User(id=1, backup=SECRET))
    session.flush()
    session.execute(sa.update(raw).values(work=raw.c.backup))
    assert session.execute(sa.select(users.c.backup)).scalar_one() == SECRET
    with pytest.raises(CannotDecrypt):
        session.execute(sa.select(users.c.work)).scalar_one()


def test_one_type_object_given_to_many_columns_makes_a_type_for_each() -> None:
    shared = text()
    table = sa.Table("t", sa.MetaData(), sa.Column("a", shared), sa.Column("b", shared))
    copied = table.to_metadata(sa.MetaData(), name="copy")
    assert [repr(one.type) for one in (table.c.a, table.c.b, copied.c.a)] == [
        "EncryptedString('pii', context='t.a')",
        "EncryptedString('pii', context='t.b')",
        "EncryptedString('pii', context='copy.a')",
    ]
    assert (users.c.backup.type.context, users.c.work.type.context) == ("users.backup", "users.work")  # type: ignore[attr-defined]  # Encrypted


def test_statements_are_cached_apart_where_anything_of_a_type_differs() -> None:
    def key(**options: Any) -> object:
        given: dict[str, Any] = {
            "key": "pii",
            "tenant": current_tenant.get,
            "vault": vault.get,
            "context": "a.b",
        } | options
        return EncryptedString(**given)._static_cache_key

    assert key() == key()
    others: list[dict[str, Any]] = [
        {"key": "k"},
        {"tenant": vault.get},
        {"vault": current_tenant.get},
        {"context": "a.c"},
    ]
    assert len({key(), *(key(**other) for other in others)}) == 5
    assert EncryptedBytes("pii", current_tenant.get, vault.get, "a.b")._static_cache_key != key()


def test_a_fixed_context_outlives_a_renaming(session: Session) -> None:
    session.add(User(id=1, email=SECRET))
    session.flush()
    fixed = EncryptedString("pii", tenant=current_tenant.get, vault=vault.get, context="users.email")
    session.execute(sa.text("CREATE VIEW integrations.people AS TABLE integrations.users"))
    people = sa.Table("people", sa.MetaData(schema="integrations"), sa.Column("email", fixed))
    assert session.execute(sa.select(people.c.email)).scalar_one() == SECRET


@pytest.mark.parametrize(("table", "column"), [("a.b", "c"), ("a", "b.c"), ("a:b", "c"), ("a", "b:c")])
def test_names_that_make_contexts_ambiguous_are_refused(table: str, column: str) -> None:
    with pytest.raises(InvalidInput, match="dot or colon"):
        sa.Table(table, sa.MetaData(), sa.Column(column, text()))
    fixed = EncryptedString("pii", tenant=current_tenant.get, context="c")
    sa.Table(table, sa.MetaData(), sa.Column(column, fixed))


def test_what_does_not_change_is_not_written_again(session: Session) -> None:
    session.add(User(id=1, email=SECRET, extra={"a": 1}))
    before = stored(session, "email"), stored(session, "extra")
    user = session.get_one(User, 1)
    session.refresh(user)
    user.email = str(SECRET)
    user.extra = {"a": 1}
    assert (stored(session, "email"), stored(session, "extra")) == before
    user.email = "grace@example.com"
    assert stored(session, "email") != before[0]


def test_a_change_within_json_is_written_under_mutable_dict(session: Session) -> None:
    session.add(User(id=1, extra={"a": 1}))
    session.commit()
    user = session.get_one(User, 1)
    assert user.extra is not None
    user.extra["a"] = 2
    session.commit()
    session.expire_all()
    assert session.get_one(User, 1).extra == {"a": 2}


# --- whose it is ----------------------------------------------------------------------------------------


def test_the_tenant_is_asked_for_each_value(session: Session) -> None:
    session.add(User(id=1, email=SECRET))
    session.commit()
    reading = sa.select(users.c.email)
    assert session.execute(reading).scalar_one() == SECRET
    current_tenant.set("globex")
    with pytest.raises(CannotDecrypt):
        session.execute(reading).scalar_one()
    session.execute(sa.update(users).values(email=SECRET))
    assert session.execute(reading).scalar_one() == SECRET


@pytest.mark.parametrize("nobody", [lambda: None, lambda: "", ContextVar[str]("unset").get])
def test_without_a_tenant_nothing_is_written_or_read(
    session: Session, nobody: Callable[[], str | None]
) -> None:
    table = sa.Table(
        "users",
        sa.MetaData(schema="integrations"),
        sa.Column("id", sa.Integer),
        sa.Column("email", EncryptedString("pii", tenant=nobody, vault=vault.get)),
    )
    with pytest.raises(NoTenant):
        session.execute(sa.insert(table), {"id": 1, "email": SECRET})
    session.rollback()
    session.add(User(id=1, email=SECRET))
    session.flush()
    with pytest.raises(NoTenant):
        session.execute(sa.select(table.c.email)).all()


def test_errors_come_out_as_they_are(session: Session, world: World) -> None:
    session.add(User(id=1, email=SECRET))
    session.commit()
    world.cache.entries.clear()
    world.services.desk.forget()
    world.kms.disable(kms_key_arn())
    with pytest.raises(KmsAccessRevoked) as caught:
        session.execute(sa.update(users).values(email=SECRET))
    assert caught.value.aws_code == "DisabledException"


# --- what is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        lambda: User.email == SECRET,
        lambda: operator.eq(SECRET, User.email),
        lambda: User.email != SECRET,
        lambda: User.email.in_([SECRET]),
        lambda: User.email.like("ada%"),
        lambda: User.email.startswith("ada"),
        lambda: User.email < SECRET,
        lambda: User.email.between("a", "b"),
        lambda: User.email == User.work,
        lambda: User.email.is_distinct_from(SECRET),
        lambda: User.email + "x",
        lambda: "x" + User.email,
        lambda: User.email.desc(),
        lambda: User.email == sa.bindparam("x"),
        lambda: sa.select(User).filter_by(email=SECRET),
        lambda: users.c.email == SECRET,
        lambda: sa.alias(users).c.email == SECRET,
    ],
)
def test_the_database_is_not_asked_what_it_can_not_know(query: Callable[[], Any]) -> None:
    with pytest.raises(NotComparable, match=r"email(_1)? is encrypted") as caught:
        query()
    assert "blind index" in str(caught.value.remedy)


def test_no_value_is_written_into_sql_text() -> None:
    with pytest.raises(NotComparable) as caught:
        sa.insert(users).values(id=1, email=SECRET).compile(compile_kwargs={"literal_binds": True})
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_type_outside_of_a_column_encrypts_nothing(session: Session) -> None:
    with pytest.raises(NoRow):
        session.execute(sa.select(sa.literal(SECRET, text())))


def test_there_are_no_variants() -> None:
    with pytest.raises(InvalidInput):
        text().with_variant(sa.LargeBinary(), "sqlite")


@pytest.mark.parametrize(
    "values",
    [
        {"email": 7},
        {"email": b"x"},
        {"email": "\ud800"},
        {"photo": "x"},
        {"extra": {"a": object()}},
        {"extra": float("nan")},
    ],
)
def test_values_of_another_kind_are_refused_and_not_shown(session: Session, values: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="can't be stored as") as caught:
        session.execute(sa.insert(users), {"id": 1, "backup": SECRET, **values})
    assert_silent("".join(traceback.format_exception(caught.value)))


# --- what nobody sees -----------------------------------------------------------------------------------


def assert_silent(text: str) -> None:
    assert SECRET not in text
    assert "ada@" not in text


@pytest.fixture
def echo(session: Session, caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], str]]:
    """What ``echo=True`` logs."""
    caplog.set_level(logging.INFO, logger="sqlalchemy.engine")
    engine = session.get_bind()
    assert isinstance(engine, sa.Engine)
    engine.echo = True
    yield lambda: caplog.text
    engine.echo = False


def test_echo_shows_tokens_only(session: Session, echo: Callable[[], str]) -> None:
    session.add_all([User(id=n, email=SECRET, extra={"email": SECRET}) for n in (1, 2, 3)])
    session.commit()
    session.execute(sa.insert(users), [{"id": 4, "email": SECRET}])
    session.execute(sa.update(users).values(email=SECRET))
    assert session.execute(sa.select(users.c.email)).scalars().all() == [SECRET] * 4
    assert "INSERT INTO integrations.users" in echo()
    assert_silent(echo())


ROW = {"id": 1, "email": SECRET}


def the_database_refuses(session: Session) -> None:
    session.execute(sa.insert(users), [ROW, ROW])


def a_flush_is_refused(session: Session) -> None:
    session.add_all([User(**ROW), User(**ROW)])
    session.flush()


def a_parameter_is_missing(session: Session) -> None:
    session.execute(sa.insert(users), [ROW, {"id": 2}])


def another_parameter_is_of_a_wrong_type(session: Session) -> None:
    session.execute(sa.insert(users), ROW | {"id": sa.Date()})


def another_encrypted_value_is_wrong(session: Session) -> None:
    session.execute(sa.insert(users), ROW | {"work": 7})


def there_is_no_tenant(session: Session) -> None:
    current_tenant.set("")
    session.execute(sa.insert(users), ROW)


def there_is_no_such_tenant(session: Session) -> None:
    current_tenant.set("nobody")
    session.add(User(**ROW))
    session.flush()


FAILURES = [
    the_database_refuses,
    a_flush_is_refused,
    a_parameter_is_missing,
    another_parameter_is_of_a_wrong_type,
    another_encrypted_value_is_wrong,
    there_is_no_tenant,
    there_is_no_such_tenant,
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda act: act.__name__)
def test_exceptions_show_no_plaintext(
    session: Session, failure: Callable[[Session], object], echo: Callable[[], str]
) -> None:
    with pytest.raises(Exception) as caught:  # of any kind
        failure(session)
    assert_silent(str(caught.value))
    error: BaseException | None = caught.value
    for _ in range(10):
        if error is not None:
            assert_silent(f"{error!r} {error}")
            error = error.__cause__ or error.__context__
    assert error is None
    assert_silent("log: " + echo())


# --- Alembic, imports -----------------------------------------------------------------------------------


def test_alembic_sees_binary_columns_and_no_difference(tables: sa.Engine) -> None:
    def ours(name: str | None, kind: str, parents: object) -> bool:
        return kind != "schema" or name == "integrations"

    with tables.connect() as connection:
        options = {
            "include_schemas": True,
            "include_name": ours,
            "compare_type": True,
            "render_item": render_item,
        }
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []
        more = sa.MetaData()
        sa.Table("more", more, sa.Column("email", text()))
        migrations = produce_migrations(context, more)
    assert migrations.upgrade_ops is not None
    rendered = render_python_code(migrations.upgrade_ops, render_item=render_item)
    assert "sa.Column('email', sa.LargeBinary(), nullable=True)" in rendered
    assert "byok" not in rendered


def test_importing_needs_no_more_than_connecting_does_later() -> None:
    script = (
        "import sys, byok.integrations.sqlalchemy;"
        "print([name for name in ('boto3', 'celery', 'redis') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(ended.stdout) == []
