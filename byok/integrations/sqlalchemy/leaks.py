"""Keeps plaintext out of SQLAlchemy's exceptions.

Once a statement runs, its parameters are tokens. What goes wrong before that is a StatementError with the
parameters as they were given.
"""

import copy

from sqlalchemy import event
from sqlalchemy.engine import Engine, ExceptionContext

from byok.errors import ByokError


def hide_parameters() -> None:
    """For every engine of this process: an error of byok's comes out as itself, and one that happened before
    the parameters were encrypted does not show them. Does nothing the second time."""
    if not event.contains(Engine, "handle_error", _without_parameters):
        event.listen(Engine, "handle_error", _without_parameters)


def _without_parameters(failure: ExceptionContext) -> ByokError | None:
    error = failure.original_exception
    if isinstance(error, ByokError):
        return copy.copy(error)  # SQLAlchemy raises it from the original, which can't be its own cause
    if failure.execution_context is None and failure.sqlalchemy_exception is not None:
        failure.sqlalchemy_exception.hide_parameters = True
    return None
