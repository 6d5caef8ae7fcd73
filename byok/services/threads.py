"""Background threads of the services."""

import threading
from collections.abc import Callable

Spawn = Callable[[str, Callable[[], None]], None]


def spawn(name: str, target: Callable[[], None]) -> None:
    """Run ``target`` in a thread that does not keep the process alive."""
    threading.Thread(target=target, name=name, daemon=True).start()
