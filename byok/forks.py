"""What a forked child must forget before anything of it runs.

Python runs such hooks in the order in which they were registered. So there is one for all, from the moment
in which byok is imported: hooks of others that encrypt in the child come after it.
"""

import os
from collections.abc import Callable, Sequence
from weakref import WeakMethod

_forgetting: list[WeakMethod[Callable[[], None]]] = []


def forget_after_fork(methods: Sequence[Callable[[], None]]) -> None:
    """Have bound methods called in every forked child, in this order, for as long as their objects live."""
    _forgetting[:] = [reference for reference in _forgetting if reference() is not None]
    _forgetting.extend(WeakMethod(method) for method in methods)


def _in_child() -> None:
    failures = []
    for reference in _forgetting:
        if (forget := reference()) is not None:
            try:
                forget()
            except Exception as failure:  # noqa: BLE001  # the others must forget all the same
                failures.append(failure)
    if failures:
        raise ExceptionGroup("a forked child could not forget all that is its parent's", failures)


os.register_at_fork(after_in_child=_in_child)
