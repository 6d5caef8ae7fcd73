"""Files that give and take a little at a time, or nothing at present."""

import io
import os
import threading
import time

import pytest

from byok.services.files import read_fully, write_fully


class Dribble(io.RawIOBase):
    """Gives and takes three bytes at a time."""

    def __init__(self, data: bytes = b"") -> None:
        self.rest, self.taken = data, bytearray()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        given, self.rest = self.rest[: min(3, size)], self.rest[min(3, size) :]
        return given

    def write(self, data: object, /) -> int:
        assert isinstance(data, bytes | memoryview)
        self.taken += data[:3]
        return min(3, len(data))


class NothingYet(io.RawIOBase):
    def read(self, size: int = -1, /) -> None:
        return None

    def write(self, data: object, /) -> None:
        return None


def test_what_comes_in_pieces_is_read_whole() -> None:
    source = Dribble(bytes(range(100)))
    assert [len(read_fully(source, 40)) for _ in range(4)] == [40, 40, 20, 0]


def test_what_is_taken_in_pieces_is_written_whole() -> None:
    sink = Dribble()
    write_fully(sink, bytes(range(100)))
    assert sink.taken == bytes(range(100))


def test_a_file_that_has_nothing_and_cannot_be_waited_for_says_so() -> None:
    with pytest.raises(BlockingIOError):
        read_fully(NothingYet(), 1)
    with pytest.raises(BlockingIOError):
        write_fully(NothingYet(), b"x")


def test_a_non_blocking_pipe_is_waited_for_on_both_ends() -> None:
    data = os.urandom(500_000)  # more than a pipe holds
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    with (
        open(reading, "rb", buffering=0) as source,  # noqa: PTH123  # a descriptor
        open(writing, "wb", buffering=0) as sink,  # noqa: PTH123  # a descriptor
    ):

        def write_late() -> None:
            time.sleep(0.05)
            write_fully(sink, data)
            sink.close()

        late = threading.Thread(target=write_late)
        late.start()
        assert read_fully(source, len(data) + 1) == data
        late.join()
