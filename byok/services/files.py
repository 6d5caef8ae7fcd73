"""Whole reads and whole writes over binary files that give or take less than they are asked to."""

import io
import selectors
from typing import Protocol


class Source(Protocol):
    """What can be read: a binary file, a pipe, a socket's file."""

    def read(self, size: int, /) -> bytes | None:
        """Up to ``size`` bytes; none at the end; None if there are none yet."""


class Sink(Protocol):
    """What can be written to."""

    def write(self, data: bytes, /) -> int | None:
        """Take bytes; a raw file may take fewer, and says how many."""


def read_fully(source: Source, count: int) -> bytes:
    """Exactly ``count`` bytes, however they arrive; fewer at the end only.

    Raises:
        BlockingIOError: the source has nothing yet, and is nothing that can be waited for.
    """
    chunks, missing = [], count
    while missing:
        chunk = source.read(missing)
        if chunk is None:
            _wait_for(source, to_read=True)
            continue
        if not chunk:
            break
        chunks.append(chunk)
        missing -= len(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def write_fully(sink: Sink, data: bytes) -> None:
    """Write all of it.

    Raises:
        BlockingIOError: the sink takes nothing now, and is nothing that can be waited for.
    """
    if not isinstance(sink, io.RawIOBase):
        sink.write(data)  # all of it, or an error
        return
    written = 0
    while written < len(data):
        count = sink.write(memoryview(data)[written:])
        if count is None:
            _wait_for(sink, to_read=False)
        else:
            written += count


def _wait_for(file: Source | Sink, *, to_read: bool) -> None:
    try:
        descriptor = file.fileno()  # type: ignore[union-attr]  # what has none is told so below
    except (AttributeError, io.UnsupportedOperation):
        raise BlockingIOError("a non-blocking file without a descriptor can't be waited for") from None
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ if to_read else selectors.EVENT_WRITE)
        selector.select()
