"""Logging: structured events through the standard library's loggers.

The services write through `get_logger`, so inside somebody else's application its logging set-up
decides. Workers and the command line call `configure_logging`: JSON in production, readable lines in
development, for what libraries log as well.
"""

import logging
import sys
from typing import Literal

import structlog

_FOR_EVERY_RECORD = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.ExtraAdder(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger whose events become records of the standard logger ``name``: keywords become ``extra``."""
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(name),
        wrapper_class=structlog.stdlib.BoundLogger,
        processors=[structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs],
        context_class=dict,
    )
    return logger


def configure_logging(log_format: Literal["json", "console"], level: int = logging.INFO) -> None:
    """Send all logging of this process to standard error in one format."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_FOR_EVERY_RECORD,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
