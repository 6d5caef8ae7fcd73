"""Renewals in the background: each once, by few threads, whatever they raise."""

import threading
from collections.abc import Callable

from byok.errors import KmsUnavailable
from byok.services.refreshing import Refresher


class Threads:
    """Threads that run when told to."""

    def __init__(self) -> None:
        self.targets: list[Callable[[], None]] = []
        self.has_none = False

    def __call__(self, name: str, target: Callable[[], None]) -> None:
        if self.has_none:
            raise RuntimeError("can't start new thread")
        self.targets.append(target)


def test_renewals_survive_each_other() -> None:
    threads, ran = Threads(), []
    refresher = Refresher(threads)

    def failing() -> None:
        ran.append("failing")
        raise KmsUnavailable("no")

    def broken() -> None:
        ran.append("broken")
        raise ZeroDivisionError

    for renewal in (failing, broken, lambda: ran.append("good")):
        refresher.submit(renewal, renewal)
    threads.targets[0]()
    assert ran == ["failing", "broken", "good"]


def test_a_thread_that_ended_is_followed_by_another() -> None:
    refresher = Refresher()
    for number in range(3):
        done = threading.Event()
        refresher.submit(number, done.set)
        assert done.wait(5)


def test_what_waits_or_runs_is_not_added_again() -> None:
    threads, ran = Threads(), []
    refresher = Refresher(threads)

    def renew() -> None:
        ran.append("lease")
        refresher.submit("lease", renew)  # a caller, meanwhile

    for _ in range(100):
        refresher.submit("lease", renew)
    assert len(threads.targets) == 1
    threads.targets[0]()
    assert ran == ["lease"]
    refresher.submit("lease", renew)
    assert len(threads.targets) == 2


def test_few_threads_whatever_waits() -> None:
    threads = Threads()
    refresher = Refresher(threads)
    for number in range(50):
        refresher.submit(number, lambda: None)
    assert len(threads.targets) == 4


def test_without_a_thread_to_be_had_the_caller_goes_on_and_a_later_one_tries_again() -> None:
    threads, ran = Threads(), []
    refresher = Refresher(threads)
    threads.has_none = True
    refresher.submit("one", lambda: ran.append("one"))
    threads.has_none = False
    refresher.submit("two", lambda: ran.append("two"))
    threads.targets[0]()
    assert ran == ["one", "two"]
