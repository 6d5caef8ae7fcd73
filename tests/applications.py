"""An application with a database of its own, whose rows hold tokens."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import BYTEA

from byok.embedded.stack import Stack
from byok.services.fields import Cipher, token_info
from byok.store.postgres import create_engine

_users = sa.table(
    "users",
    sa.column("id", sa.BigInteger),
    sa.column("email", BYTEA),
    sa.column("note", BYTEA),
    sa.column("tenant", sa.Text),
)


def context(row_id: object, column: str = "email") -> bytes:
    """The context that the application uses."""
    return f"users.{column}:{row_id}".encode()


@dataclass
class Application:
    """A table of users: integer keys, two columns of tokens, rows of several tenants."""

    url: str
    engine: sa.Engine

    def create(self) -> None:
        """Begin with an empty table."""
        self.run("DROP SCHEMA IF EXISTS crm CASCADE")
        self.run("DROP TABLE IF EXISTS users")
        self.run(
            "CREATE TABLE users (id bigint PRIMARY KEY, email bytea, note bytea,"
            " tenant text NOT NULL DEFAULT 'acme')"
        )

    def run(self, statement: str) -> None:
        """Any statement."""
        with self.engine.begin() as connection:
            connection.execute(sa.text(statement))

    def insert(self, cipher: Cipher, values: Mapping[int, str], tenant: str = "acme") -> None:
        """Insert rows as a service would; every second one has a note, too."""
        emails = cipher.encrypt_many([(text.encode(), context(row_id)) for row_id, text in values.items()])
        notes = cipher.encrypt_many(
            [(text.encode(), context(row_id, "note")) for row_id, text in values.items()]
        )
        rows = [
            {"id": row_id, "email": email, "note": note if row_id % 2 else None, "tenant": tenant}
            for row_id, email, note in zip(values, emails, notes, strict=True)
        ]
        with self.engine.begin() as connection:
            connection.execute(_users.insert(), rows)

    def write(self, row_id: int, token: bytes) -> None:
        """Write one row's e-mail address."""
        with self.engine.begin() as connection:
            connection.execute(_users.update().where(_users.c.id == row_id).values(email=token))

    def tokens(self, column: str = "email") -> dict[int, bytes | None]:
        """Every row's token."""
        with self.engine.connect() as connection:
            return {row[0]: row[1] for row in connection.execute(sa.select(_users.c.id, _users.c[column]))}

    def values(self, cipher: Cipher, column: str = "email") -> dict[int, str]:
        """Every row's value, decrypted."""
        return {
            row_id: cipher.decrypt(token, context=context(row_id, column)).decode()
            for row_id, token in self.tokens(column).items()
            if token is not None
        }

    def versions(self, column: str = "email") -> set[int]:
        """The versions that the tokens are under."""
        tokens = self.tokens(column).values()
        return {token_info(token).version_number for token in tokens if token is not None}


@contextmanager
def application(stack: Stack, name: str = "application") -> Iterator[Application]:
    """A second database on the stack's server."""
    server = create_engine(stack.environment["BYOK_DATABASE_URL"], 1)
    with server.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    url = stack.environment["BYOK_DATABASE_URL"].removesuffix("/byok") + f"/{name}"
    engine = create_engine(url, 8)
    try:
        made = Application(url, engine)
        made.create()
        yield made
    finally:
        engine.dispose()
        with server.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
        server.dispose()
