"""One embedded stack for each pytest process: real PostgreSQL, real Valkeys, the KMS simulator."""

import logging
import os
from collections.abc import Iterator, Mapping

import pytest
import sqlalchemy as sa

from byok.embedded.stack import Stack
from byok.settings import Settings, load_settings, use_environment
from byok.simulator.control import SimulatorControl
from byok.store import migrate, schema
from byok.store.postgres import PostgresStore, create_engine
from byok.wiring import Runtime, build
from tests import ports
from tests.world import World

# What the machine has set must not decide what a test sees.
for name in [name for name in os.environ if name.startswith(("BYOK_", "AWS_", "FLOWER_"))]:
    del os.environ[name]


@pytest.fixture(autouse=True)
def root_logger_as_it_was() -> Iterator[None]:
    """Undo what the command line sets up for logging."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.setLevel(level)
    for added in [one for one in root.handlers if one not in handlers]:
        root.removeHandler(added)
    for name in ("byok", "workers"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    logging.captureWarnings(False)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The servers, migrated."""
    with Stack(tmp_path_factory.mktemp("stack") / "home", durable=False) as running:
        engine = create_engine(running.environment["BYOK_DATABASE_URL"], 1)
        migrate.upgrade(engine)
        engine.dispose()
        yield running


@pytest.fixture(scope="session")
def engine(stack: Stack) -> Iterator[sa.Engine]:
    engine = create_engine(stack.environment["BYOK_DATABASE_URL"], 10)
    yield engine
    engine.dispose()


def empty(engine: sa.Engine) -> None:
    """Empty all tables."""
    with engine.begin() as connection:
        names = ", ".join(table.name for table in schema.metadata.sorted_tables)
        connection.execute(sa.text(f"TRUNCATE {names}"))


@pytest.fixture
def store(engine: sa.Engine) -> PostgresStore:
    """The store over empty tables."""
    empty(engine)
    return PostgresStore(engine)


@pytest.fixture
def world(store: PostgresStore) -> World:
    return World(store)


@pytest.fixture
def environment(stack: Stack) -> Iterator[Mapping[str, str]]:
    """This process under the stack's settings, for the length of a test."""
    before = dict(os.environ)
    use_environment(stack.environment)
    yield stack.environment
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def settings(environment: Mapping[str, str]) -> Settings:
    return load_settings()


@pytest.fixture
def runtime(settings: Settings, engine: sa.Engine) -> Iterator[Runtime]:
    """Services over the real adapters, on empty tables."""
    empty(engine)
    SimulatorControl(settings.kms_endpoint_url or "").set_clock_right()
    runtime = build(settings)
    yield runtime
    runtime.close()


@pytest.fixture
def unused_port() -> int:
    """A port on 127.0.0.1 that nobody listens on."""
    return ports.unused_port()


@pytest.fixture
def simulator(stack: Stack) -> Iterator[SimulatorControl]:
    """The simulator's control plane, without faults before and after."""
    control = SimulatorControl(stack.simulator.url)
    control.clear_faults()
    control.forget_calls()
    yield control
    control.clear_faults()
