"""What log lines are about: the ids of a task or a rotation, and of its last request to KMS.

Kept in a context variable, so of one thread or asyncio task alone. A thread of a pool keeps its context from
one job to the next: a scope puts back what was there, whatever was bound inside.
"""

from collections.abc import Mapping
from contextvars import ContextVar, Token
from types import TracebackType

_KMS_REQUEST_ID = "kms_request_id"
_Names = Mapping[str, str | None]

_about: ContextVar[_Names | None] = ContextVar("byok_log_context", default=None)


def current() -> _Names:
    """What lines carry here and now."""
    return _about.get() or {}


def bind(**names: str | None) -> None:
    """Have the lines that follow in this scope carry more. Outside of any scope it does nothing: who would
    take it away again?"""
    known = _about.get()
    if known is not None:
        _about.set({**known, **names})


def note_kms_request(request_id: str) -> None:
    """Have the lines that follow name this request to KMS; none where the last one had no reply."""
    bind(**{_KMS_REQUEST_ID: request_id or None})


class LogScope:
    """A block whose lines carry ``names`` besides those around it.

    May be entered again, inside itself or later: it remembers the last request to KMS that was made inside.
    For one thread at a time.
    """

    def __init__(self, **names: str | None) -> None:
        self._names: dict[str, str | None] = {**names, _KMS_REQUEST_ID: None}
        self._before: Token[_Names | None] | None = None
        self._depth = 0

    def __enter__(self) -> "LogScope":
        if not self._depth:
            self._before = _about.set({**current(), **self._names})
        self._depth += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._depth -= 1
        if not self._depth and self._before is not None:
            self._names[_KMS_REQUEST_ID] = current().get(_KMS_REQUEST_ID)
            _about.reset(self._before)

    def keep(self) -> None:
        """Have the lines after the block carry what those inside did, as far as the scope around it goes."""
        bind(**self._names)
