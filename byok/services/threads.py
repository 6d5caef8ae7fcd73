"""Background threads of the services."""

import threading
from collections.abc import Callable
from contextvars import Context

Spawn = Callable[[str, Callable[[], None]], None]


def spawn(name: str, target: Callable[[], None]) -> None:
    """Run ``target`` in a thread that does not keep the process alive.

    In an empty context: a Python without the GIL passes on that of whoever happens to start the thread, whose
    log lines would be about that task for ever.
    """
    threading.Thread(target=Context().run, args=(target,), name=name, daemon=True).start()
