"""Runs what blocks in threads, for event loops that must not."""

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from typing import TypeVar
from weakref import WeakKeyDictionary, WeakValueDictionary

from byok.services.threads import Spawn, spawn

_Result = TypeVar("_Result")

# Of one group: as many as call one customer's KMS at a time, so that one that hangs holds up no other.
_MAX_THREADS_A_GROUP = 2
_MAX_THREADS = 64


class Offloading:
    """Threads for any number of event loops, bounded in each. They don't keep the process alive.

    Each call has a thread of its own, so that nothing crosses a fork: calls are few where most is in hand.
    """

    def __init__(self, spawn: Spawn = spawn) -> None:
        self._spawn = spawn
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turns] = WeakKeyDictionary()

    async def run(
        self, group: str, work: Callable[[], _Result], unless: Callable[[], _Result | None] = lambda: None
    ) -> _Result:
        """What ``work`` returns or raises in a thread; or what ``unless`` returns on the event loop, if that
        is something once it is this call's turn.

        A call that is cancelled returns at once; its thread goes on, and has its turn until it is done.
        """
        turns = self._loops.setdefault(asyncio.get_running_loop(), _Turns())
        with ExitStack() as taken:
            await _take(turns.of(group), taken)
            if (result := unless()) is not None:
                return result
            await _take(turns.all, taken)
            done = self._start(work)
            held = taken.pop_all()

        def end(done: "asyncio.Future[_Result]") -> None:
            held.close()
            done.exception()  # nobody may be waiting for it any more

        done.add_done_callback(end)
        await asyncio.wait([done])  # unlike `await done`, lets it go on when this is cancelled
        return done.result()

    def _start(self, work: Callable[[], _Result]) -> "asyncio.Future[_Result]":
        context, future = contextvars.copy_context(), Future[_Result]()
        future.set_running_or_notify_cancel()

        def run() -> None:
            try:
                future.set_result(context.run(work))
            except BaseException as error:  # noqa: BLE001  # whoever awaits it gets it
                future.set_exception(error)

        self._spawn("byok-async", run)
        return asyncio.wrap_future(future)


class _Turns:
    """Whose turn it is, on one event loop."""

    def __init__(self) -> None:
        self.all = asyncio.Semaphore(_MAX_THREADS)
        self._groups: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    def of(self, group: str) -> asyncio.Semaphore:
        """The turns of a group; forgotten when nobody has or waits for one."""
        turn = self._groups.get(group)
        if turn is None:
            turn = self._groups[group] = asyncio.Semaphore(_MAX_THREADS_A_GROUP)
        return turn


async def _take(turn: asyncio.Semaphore, taken: ExitStack) -> None:
    await turn.acquire()
    taken.callback(turn.release)
