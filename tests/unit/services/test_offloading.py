"""Threads for event loops: bounded, and never waited for by what was cancelled."""

import asyncio
import contextvars
import threading
import time

import pytest

from byok.services.offloading import _MAX_THREADS, _MAX_THREADS_A_GROUP, Offloading

TENANT: contextvars.ContextVar[str] = contextvars.ContextVar("TENANT")


class Gate:
    """Work that blocks until it is opened, and counts how much of it there is at once."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.running = self.most = self.done = 0
        self._lock = threading.Lock()

    def work(self) -> str:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        assert self.opened.wait(10)
        with self._lock:
            self.running -= 1
            self.done += 1
        return threading.current_thread().name

    async def until(self, running: int) -> None:
        while self.running < running:
            await asyncio.sleep(0.001)


def test_what_blocks_runs_in_a_thread_under_the_callers_context() -> None:
    async def main() -> tuple[str, str]:
        TENANT.set("acme")
        return await Offloading().run("a", lambda: (threading.current_thread().name, TENANT.get()))

    assert asyncio.run(main()) == ("byok-async", "acme")


def test_what_it_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        asyncio.run(Offloading().run("a", lambda: 1 / 0))


def test_one_group_has_few_threads_and_holds_up_no_other() -> None:
    async def main() -> None:
        offloading, hanging = Offloading(), Gate()
        waiting = [asyncio.create_task(offloading.run("a", hanging.work)) for _ in range(50)]
        await hanging.until(_MAX_THREADS_A_GROUP)
        assert await asyncio.wait_for(offloading.run("b", lambda: "served"), 5) == "served"
        hanging.opened.set()
        await asyncio.gather(*waiting)
        assert (hanging.most, hanging.done) == (_MAX_THREADS_A_GROUP, 50)

    asyncio.run(main())


def test_all_groups_together_have_so_many_threads() -> None:
    async def main() -> None:
        offloading, hanging = Offloading(), Gate()
        waiting = [asyncio.create_task(offloading.run(f"{n}", hanging.work)) for n in range(2 * _MAX_THREADS)]
        await hanging.until(_MAX_THREADS)
        await asyncio.sleep(0.01)
        hanging.opened.set()
        await asyncio.gather(*waiting)
        assert hanging.most == _MAX_THREADS

    asyncio.run(main())


def test_who_waited_takes_what_came_meanwhile() -> None:
    async def main() -> None:
        offloading, hanging = Offloading(), Gate()
        came: list[str] = []
        first = [asyncio.create_task(offloading.run("a", hanging.work)) for _ in range(_MAX_THREADS_A_GROUP)]
        await hanging.until(_MAX_THREADS_A_GROUP)
        others = [
            asyncio.create_task(offloading.run("a", hanging.work, unless=lambda: next(iter(came), None)))
            for _ in range(100)
        ]
        await asyncio.sleep(0)
        came.append("it")
        hanging.opened.set()
        assert set(await asyncio.gather(*others)) == {"it"}
        await asyncio.gather(*first)
        assert hanging.done == _MAX_THREADS_A_GROUP

    asyncio.run(main())


def test_a_cancelled_call_returns_at_once_and_its_thread_keeps_its_turn() -> None:
    async def main() -> None:
        offloading, hanging = Offloading(), Gate()
        for _ in range(5):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(offloading.run("a", hanging.work), 0.05)
        assert hanging.most == _MAX_THREADS_A_GROUP
        hanging.opened.set()
        assert await asyncio.wait_for(offloading.run("a", lambda: "served"), 5) == "served"
        assert hanging.done == _MAX_THREADS_A_GROUP

    asyncio.run(main())


def test_nobody_is_bothered_with_the_error_of_a_cancelled_call() -> None:
    complaints: list[object] = []

    def fail() -> None:
        time.sleep(0.05)
        raise ZeroDivisionError

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, about: complaints.append(about))
        task = asyncio.create_task(Offloading().run("a", fail))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.sleep(0.2)

    asyncio.run(main())
    assert complaints == []


def test_a_thread_that_cant_be_had_costs_no_turn() -> None:
    def refuse(name: str, target: object) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        offloading = Offloading(refuse)
        for _ in range(3 * _MAX_THREADS):
            with pytest.raises(RuntimeError):
                await asyncio.wait_for(offloading.run("a", lambda: None), 5)

    asyncio.run(main())


def test_one_serves_loop_after_loop() -> None:
    offloading = Offloading()
    assert [asyncio.run(offloading.run("a", lambda: "served")) for _ in range(3)] == ["served"] * 3


def test_a_loop_may_end_before_its_threads() -> None:
    offloading, hanging = Offloading(), Gate()

    async def main() -> None:
        task = asyncio.create_task(offloading.run("a", hanging.work))
        await hanging.until(1)
        task.cancel()

    asyncio.run(main())
    hanging.opened.set()
    assert asyncio.run(offloading.run("a", lambda: "served")) == "served"
