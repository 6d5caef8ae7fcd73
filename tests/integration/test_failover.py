"""A PostgreSQL that fails over, or is shut down, is unavailable: no raw error of the driver gets out."""

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from byok.embedded.stack import Stack
from byok.errors import StoreUnavailable
from byok.store import migrate
from byok.store.postgres import PostgresStore, create_engine
from tests.conftest import empty
from tests.ports import unused_port
from tests.postgres_servers import Pair, primary_and_standby


@pytest.fixture
def one_connection(stack: Stack) -> Iterator[sa.Engine]:
    engine = create_engine(stack.environment["BYOK_DATABASE_URL"], 1)
    empty(engine)
    yield engine
    engine.dispose()


def test_a_connection_to_what_became_a_standby_is_unavailable_and_given_up(one_connection: sa.Engine) -> None:
    with one_connection.connect() as connection:
        connection.execute(sa.text("SET default_transaction_read_only TO on"))
        connection.commit()
    store = PostgresStore(one_connection)
    store.ping()
    with pytest.raises(StoreUnavailable, match="takes no writes"), store.transaction() as tx:
        tx.members.remove_unseen(store.now())
    with store.transaction() as tx:  # over a new connection, which is led to the new primary
        assert tx.members.remove_unseen(store.now()) == 0


@pytest.mark.parametrize("sqlstate", ["25006", "57P01", "57P02", "57P03"])
def test_a_server_that_takes_no_work_is_unavailable(one_connection: sa.Engine, sqlstate: str) -> None:
    store = PostgresStore(one_connection)
    raising = sa.text(f"DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{sqlstate}'; END $$")
    with pytest.raises(StoreUnavailable), store.transaction() as tx:
        tx.members._connection.execute(raising)
    store.ping()


def test_an_error_of_ours_is_not_taken_for_an_outage(one_connection: sa.Engine) -> None:
    raising = sa.text("DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'XX000'; END $$")
    with pytest.raises(sa.exc.InternalError), PostgresStore(one_connection).transaction() as tx:
        tx.members._connection.execute(raising)


@pytest.fixture
def pair(stack: Stack, tmp_path: Path) -> Iterator[Pair]:
    with primary_and_standby(stack, tmp_path / "pair") as pair:
        yield pair


@contextmanager
def store_at(url: str) -> Iterator[PostgresStore]:
    store = PostgresStore(create_engine(url, 2))
    yield store
    store.close()


def writes(store: PostgresStore) -> None:
    with store.transaction() as tx:
        tx.members.remove_unseen(store.now())


def test_a_list_of_servers_leads_to_the_primary_and_to_the_next_one(pair: Pair) -> None:
    dead = unused_port()
    with store_at(pair.url(dead, pair.standby_port, pair.primary_port)) as store:
        migrate.upgrade(store._engine)
        writes(store)
        before = store.now()
        pair.fail_over()
        deadline = time.monotonic() + 20.0
        while True:
            try:
                writes(store)
            except StoreUnavailable:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            else:
                break
        assert store.now() > before


def test_without_asking_for_the_primary_the_first_that_answers_is_taken(pair: Pair) -> None:
    url = pair.url(pair.standby_port, pair.primary_port, parameters="target_session_attrs=any")
    with store_at(url) as store, pytest.raises(StoreUnavailable, match="takes no writes"):
        migrate.upgrade(store._engine)


@pytest.mark.skipif(sys.platform != "linux", reason="the names of the options are Linux's")
def test_a_server_that_falls_silent_is_given_up_soon(one_connection: sa.Engine) -> None:
    with one_connection.connect() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        with socket.socket(fileno=os.dup(driver.fileno())) as open_socket:
            confirmed_ms = open_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            idle, between, probes = (
                open_socket.getsockopt(socket.IPPROTO_TCP, option)
                for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            )
    assert confirmed_ms == (idle + between * probes) * 1000 == 15_000
