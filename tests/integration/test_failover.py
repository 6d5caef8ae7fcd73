"""A PostgreSQL that fails over, or is shut down, is unavailable: no raw error of the driver gets out."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from byok.embedded.stack import Stack
from byok.errors import StoreUnavailable
from byok.store.postgres import PostgresStore, create_engine
from tests.conftest import empty


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
