"""The services of a command: built from the environment, closed at its end."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from byok.wiring import Runtime, Services


@contextmanager
def open_runtime() -> "Iterator[Runtime]":
    """Build services and adapters from ``BYOK_*``.

    Raises:
        ConfigurationError.
    """
    # Imported on use: boto3, SQLAlchemy and Celery would slow `--help` down.
    from byok.settings import load_settings
    from byok.wiring import build

    runtime = build(load_settings(), kind="command")
    try:
        yield runtime
    finally:
        runtime.close()


@contextmanager
def open_services() -> "Iterator[Services]":
    """The services of `open_runtime` alone."""
    with open_runtime() as runtime:
        yield runtime.services
