"""Moving the log of requests: each round gets on, however slow PostgreSQL is."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from byok.core.request_log import LoggedRequest
from byok.entropy import SystemRandom
from byok.errors import StoreUnavailable
from byok.ports import Store
from byok.services.request_log import RequestMover
from byok.spool import FileSpool
from tests.fakes import FakeClock
from tests.unit.test_spool import begin


class SlowStore:
    """Takes a second for each transaction; fails where told to."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.fails = False
        self.added: list[LoggedRequest] = []

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        if self.fails:
            raise StoreUnavailable("down")
        yield SimpleNamespace(request_log=self)
        self._clock.advance(seconds=1)

    def add(self, requests: Sequence[LoggedRequest]) -> None:
        self.added += requests


@pytest.fixture
def slow(tmp_path: Path) -> tuple[FileSpool, SlowStore, RequestMover]:
    clock = FakeClock()
    spool, store = FileSpool(tmp_path, clock, SystemRandom()), SlowStore(clock)
    return spool, store, RequestMover(cast(Store, store), spool, clock, timedelta(days=90))


def test_a_postgresql_that_is_slower_than_a_round_gets_each_file_once(
    slow: tuple[FileSpool, SlowStore, RequestMover],
) -> None:
    spool, store, mover = slow
    ids = []
    for _ in range(3):
        ids.append(begin(spool).id)
        spool.seal()
    for _ in range(4):
        mover.move()
    assert sorted(one.id for one in store.added) == sorted(ids)
    assert spool.backlog_bytes() == 0


def test_all_is_moved_in_the_end(slow: tuple[FileSpool, SlowStore, RequestMover]) -> None:
    spool, store, mover = slow
    begin(spool)
    mover.move_all()
    assert len(store.added) == 1


def test_what_a_postgresql_that_is_down_does_not_take_stays(
    slow: tuple[FileSpool, SlowStore, RequestMover],
) -> None:
    spool, store, mover = slow
    begin(spool)
    store.fails = True
    mover.try_to_move()
    assert spool.backlog_bytes() > 0
    store.fails = False
    mover.try_to_move()
    assert len(store.added) == 1
