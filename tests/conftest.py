"""Servers for the suite: one PostgreSQL a run, one database for each pytest process."""

import os
from collections.abc import Iterator

import psycopg
import pytest
import sqlalchemy as sa

from byok.store import migrate, schema
from byok.store.postgres import PostgresStore, create_engine
from tests.world import World


@pytest.fixture(scope="session")
def database_url(worker_id: str) -> Iterator[str]:
    """A migrated database of this pytest process's own."""
    server = os.environ["BYOK_TEST_DATABASE_URL"]
    name = f"byok_{worker_id}"
    with psycopg.connect(server.replace("+psycopg", ""), autocommit=True) as admin:
        admin.execute(f'DROP DATABASE IF EXISTS "{name}"')
        admin.execute(f'CREATE DATABASE "{name}"')
    url = sa.make_url(server).set(database=name).render_as_string(hide_password=False)
    engine = create_engine(url, 1)
    migrate.upgrade(engine)
    engine.dispose()
    yield url


@pytest.fixture(scope="session")
def engine(database_url: str) -> Iterator[sa.Engine]:
    engine = create_engine(database_url, 10)
    yield engine
    engine.dispose()


@pytest.fixture
def store(engine: sa.Engine) -> Iterator[PostgresStore]:
    """The store over empty tables."""
    with engine.begin() as connection:
        names = ", ".join(table.name for table in schema.metadata.sorted_tables)
        connection.execute(sa.text(f"TRUNCATE {names}"))
    yield PostgresStore(engine)


@pytest.fixture
def world(store: PostgresStore) -> World:
    return World(store)
