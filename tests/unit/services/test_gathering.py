"""Sources that fail, hang or come back: the page shows what the others say, in time, and nothing old."""

import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from byok.core.metric_list import KEYS, QUEUE_DEPTH, REACHABLE, STOP_BOUND_SECONDS, Sample
from byok.errors import StoreUnavailable
from byok.services import gathering
from byok.services.gathering import FRESH_SECONDS, Gathering
from tests.fakes import FakeClock

FIXED = Sample(STOP_BOUND_SECONDS, 6)
DEPTH = Sample(QUEUE_DEPTH, 2, ("validate",))


class Database:
    """A source that does as it is told."""

    def __init__(self) -> None:
        self.keys = 1
        self.asked = 0
        self.error: Exception | None = None
        self.goes_on = threading.Event()
        self.goes_on.set()

    def read(self) -> Sequence[Sample]:
        self.asked += 1
        self.goes_on.wait()
        if self.error is not None:
            raise self.error
        return [Sample(KEYS, self.keys)]


@pytest.fixture
def database() -> Iterator[Database]:
    made = Database()
    yield made
    made.goes_on.set()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def gatherer(database: Database, clock: FakeClock) -> Gathering:
    return Gathering({"postgresql": database.read, "broker": lambda: [DEPTH]}, [FIXED], clock)


def reachable(server: str, *, yes: bool) -> Sample:
    return Sample(REACHABLE, float(yes), (server,))


def test_all_that_is_there_is_told(gatherer: Gathering) -> None:
    assert gatherer.samples() == [
        FIXED, reachable("postgresql", yes=True), Sample(KEYS, 1), reachable("broker", yes=True), DEPTH,
    ]  # fmt: skip


def test_however_many_ask_a_source_is_read_once_in_a_while(
    gatherer: Gathering, database: Database, clock: FakeClock
) -> None:
    askers = [threading.Thread(target=gatherer.samples) for _ in range(5)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert database.asked == 1
    database.keys = 2
    clock.advance(seconds=FRESH_SECONDS - 0.1)
    assert Sample(KEYS, 1) in gatherer.samples()
    clock.advance(seconds=0.1)
    assert Sample(KEYS, 2) in gatherer.samples()


@pytest.mark.parametrize("error", [StoreUnavailable("away"), ZeroDivisionError("a bug")])
def test_what_cannot_be_read_is_missing_and_the_others_are_there(
    gatherer: Gathering, database: Database, clock: FakeClock, error: Exception
) -> None:
    gatherer.samples()
    clock.advance(seconds=FRESH_SECONDS)
    database.error = error
    assert gatherer.samples() == [
        FIXED, reachable("postgresql", yes=False), reachable("broker", yes=True), DEPTH
    ]  # fmt: skip
    clock.advance(seconds=FRESH_SECONDS)
    database.error = None
    assert Sample(KEYS, 1) in gatherer.samples()


def test_one_that_hangs_holds_the_page_up_once_and_gets_no_second_thread(
    gatherer: Gathering, database: Database, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "PATIENCE_SECONDS", 0.2)
    database.goes_on.clear()
    without = [FIXED, reachable("postgresql", yes=False), reachable("broker", yes=True), DEPTH]
    assert gatherer.samples() == without
    monkeypatch.setattr(gathering, "PATIENCE_SECONDS", 60)
    for _ in range(3):
        clock.advance(seconds=FRESH_SECONDS)
        assert gatherer.samples() == without
    assert database.asked == 1
    database.goes_on.set()
    deadline = time.monotonic() + 10
    while Sample(KEYS, 1) not in gatherer.samples():
        clock.advance(seconds=FRESH_SECONDS)
        assert time.monotonic() < deadline
    assert database.asked == 2, "what it said at last is too old to be shown"
