"""Fixtures of the tests over a real PostgreSQL."""

from collections.abc import Iterator

import pytest

from byok.failpoints import disarm
from tests.world import World


@pytest.fixture
def key(world: World) -> None:
    world.add_tenant()
    world.add_key()


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    disarm()
