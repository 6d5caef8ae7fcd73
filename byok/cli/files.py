"""Where commands read from and write to: ``byok encrypt``, ``decrypt``, and ``key export``."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from byok.cli.output import error_console
from byok.errors import InvalidInput

_COLUMNS = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(True), TimeRemainingColumn())


class Peekable:
    """A binary file whose first byte was looked at, and is still to be read."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self.first = source.read(1)

    def read(self, size: int = -1, /) -> bytes:
        """As the file itself would."""
        first, self.first = self.first, b""
        return first + self._source.read(size - len(first) if size >= 0 else -1)


@contextmanager
def reading(file: Path | None) -> Iterator[BinaryIO]:
    """A file, with a progress bar where standard error is a terminal; or standard input.

    Raises:
        InvalidInput: it can't be read.
    """
    if file is None:
        yield sys.stdin.buffer
        return
    try:
        opened = file.open("rb")
    except OSError as error:
        raise InvalidInput(f"{file} can't be read: {error.strerror}") from error
    is_shown = error_console.is_terminal
    with opened, Progress(*_COLUMNS, console=error_console, transient=True, disable=not is_shown) as progress:
        size_bytes = os.fstat(opened.fileno()).st_size
        yield progress.wrap_file(opened, total=size_bytes, description=file.name)


@contextmanager
def writing(file: Path | None) -> Iterator[BinaryIO]:
    """A file that is whole or isn't there, readable by its owner alone; or standard output.

    What is written goes to a file beside it, which takes its place if the block ends well.

    Raises:
        InvalidInput: it can't be written.
    """
    if file is None:
        yield sys.stdout.buffer
        return
    target = file.resolve()
    if target.exists() and not target.is_file():
        raise InvalidInput(f"{file} is no regular file", remedy="leave --output out, and redirect")
    try:
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        raise InvalidInput(f"{file} can't be written: {error.strerror}") from error
    unfinished = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as sink:
            yield sink
            sink.flush()
            os.fsync(sink.fileno())
        unfinished.replace(target)
    except OSError as error:
        raise InvalidInput(f"{file} can't be written: {error.strerror}") from error
    finally:
        unfinished.unlink(missing_ok=True)


def create_private(file: Path, content: bytes) -> None:
    """Write a new file, readable by its owner alone; one that is there, or a link, is never written to.

    Raises:
        InvalidInput: it is there already, or can't be written whole; it isn't there then.
    """
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise InvalidInput(f"{file} can't be written: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "wb") as sink:
            sink.write(content)
            sink.flush()
            os.fsync(sink.fileno())
    except OSError as error:
        file.unlink(missing_ok=True)
        raise InvalidInput(f"{file} can't be written: {error.strerror}") from error
