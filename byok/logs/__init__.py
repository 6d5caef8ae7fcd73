"""Logging: structured events through the standard library's loggers.

The services write through `get_logger`, so inside somebody else's application its logging set-up decides.
Workers and the command line call `configure_logging`. What lines carry: docs/logs.md.
"""

from byok.logs.context import LogScope, bind, note_kms_request
from byok.logs.loggers import get_logger
from byok.logs.output import LogFormat, configure_logging, log_uncaught

__all__ = [
    "LogFormat",
    "LogScope",
    "bind",
    "configure_logging",
    "get_logger",
    "log_uncaught",
    "note_kms_request",
]
