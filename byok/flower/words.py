"""How Flower's pages word a task: what it was about and how it ended, without Python's punctuation."""

import ast
from typing import Any


def worded(task: Any) -> Any:  # noqa: ANN401  # Celery's task of events, a copy of which Flower gives
    """A task as pages show it; searches go by what the worker told. Flower's option ``format_task``."""
    task.kwargs = _words(task.kwargs)
    # The reason is in a row of its own; a table has room for its code.
    task.result = task.exception.partition(":")[0] if task.exception else _words(task.result)
    return task


def _words(text: str | None) -> str:
    try:
        value = ast.literal_eval(text or "''")
    except (ValueError, SyntaxError):  # cut off, or of a task that is not byok's
        return str(text)
    values = value.values() if isinstance(value, dict) else [value]
    return " ".join(" ".join(map(str, one)) if isinstance(one, list) else str(one) for one in values)
