"""Renewals in the background: one after the other, in one thread, whatever they raise."""

import threading

from byok.errors import KmsUnavailable
from byok.services.refreshing import Refresher


def test_renewals_run_in_order_and_survive_each_other() -> None:
    refresher, done, ran = Refresher(), threading.Event(), []

    def failing() -> None:
        ran.append("failing")
        raise KmsUnavailable("no")

    def broken() -> None:
        ran.append("broken")
        raise ZeroDivisionError

    for renewal in (failing, broken, lambda: ran.append("good"), done.set):
        refresher.submit(renewal)
    assert done.wait(5)
    assert ran == ["failing", "broken", "good"]


def test_a_thread_that_ended_is_followed_by_another() -> None:
    refresher = Refresher()
    for _ in range(3):
        done = threading.Event()
        refresher.submit(done.set)
        assert done.wait(5)


def test_one_thread_at_a_time() -> None:
    started: list[str] = []
    refresher = Refresher(lambda name, _: started.append(name))
    refresher.submit(lambda: None)
    refresher.submit(lambda: None)
    assert started == ["byok-refresh"]
    refresher.run()
    refresher.submit(lambda: None)
    assert len(started) == 2
