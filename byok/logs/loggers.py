"""Loggers of byok's own events."""

import logging

import structlog

from byok.logs.context import current


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger whose events become records of the standard logger ``name``: keywords, and what the scope
    names, become ``extra``."""
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(name),
        wrapper_class=structlog.stdlib.BoundLogger,
        processors=[
            structlog.stdlib.filter_by_level,
            _add_context,
            structlog.stdlib.render_to_log_kwargs,
        ],
        context_class=dict,
    )
    return logger


def _add_context(
    _logger: structlog.typing.WrappedLogger, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    return {**current(), **event}
