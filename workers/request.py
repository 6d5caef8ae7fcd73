"""What a worker tells others of a task: names, ids and an error's code, never more.

Events (Flower, `celery events`), `celery inspect` and Celery's own log lines hold what a request says of
itself. By default that is what the sender wrote, any argument under any name, and after a failure a traceback
with the texts of all its causes. Here it is chosen anew on the worker's side, whoever sent the message.
"""

from typing import Any, Final

from celery.worker.request import Request

from byok.errors import ByokError, InvalidInput, NotFound
from workers.arguments import HIDDEN, shown_arguments

_LONGEST_REASON: Final = 300
# Their messages quote what the caller wrote.
_QUOTING: Final = (InvalidInput, NotFound)


def shown_reason(error: BaseException) -> str:
    """Why a task failed: the error's stable code first; the rest is in the worker's log."""
    if not isinstance(error, ByokError):
        return f"{ByokError.code}: {type(error).__name__}, see the worker's log"
    if isinstance(error, _QUOTING):
        return f"{error.code}: see the worker's log"
    return f"{error.code}: {' '.join(error.message.split())}"[:_LONGEST_REASON]


class ByokRequest(Request):
    """A message that a worker took, as `Task.Request` wants it."""

    _reason = HIDDEN

    def __init__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401  # Celery's signature
        super().__init__(*arguments, **named)
        # A sender may give a task another name to be shown under.
        self.name = self.type

    @property
    def argsrepr(self) -> str:
        """Nothing: those by position are shown by their names."""
        return ""

    @property
    def kwargsrepr(self) -> str:
        """The names and ids among all arguments, as Flower can search them."""
        shown = shown_arguments(self.task.run, self.args, self.kwargs)
        return HIDDEN if shown is None else repr(shown)

    def info(self, safe: bool = False) -> dict[str, Any]:
        """What `celery inspect` is told."""
        told: dict[str, Any] = super().info(safe=safe)
        return told | {"args": self.argsrepr, "kwargs": self.kwargsrepr}

    def on_failure(self, exc_info: Any, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401  # Celery's signature
        """Keep the reason for the event that Celery is about to send."""
        error = exc_info.exception
        self._reason = shown_reason(getattr(error, "exc", error))
        return super().on_failure(exc_info, *arguments, **named)

    def send_event(self, type: str, **fields: Any) -> None:  # noqa: A002, ANN401  # Celery's signature
        """Send an event, with our reason in place of an exception and its traceback."""
        if "exception" in fields:
            fields |= {"exception": self._reason, "traceback": None}
        super().send_event(type, **fields)
