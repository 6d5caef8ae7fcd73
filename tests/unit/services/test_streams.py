"""Streams in small segments: whatever is done to the bytes, nothing wrong or missing passes for whole."""

import contextlib
import gc
import io
import itertools
import os
import tempfile
import tracemalloc

import pytest

from byok.core import segments
from byok.core.segments import StreamHeader
from byok.crypto.hazmat import SecretBytes
from byok.crypto.streaming import seal_segment
from byok.errors import CannotDecrypt, OutOfBounds, TenantNotActive
from byok.services.streams import OpeningReader, copy, copy_opened, sealing_writer
from tests.streams import HEADER, SMALL_SEGMENT_BYTES, open_whole, parts_of, seal

SECRET, CONTEXT = bytes(range(32)), b"exports/2026-11.csv"
FIRST, OTHERS = SMALL_SEGMENT_BYTES - 56, SMALL_SEGMENT_BYTES - 16
PLAINTEXT = os.urandom(FIRST + 3 * OTHERS + 20)  # five segments


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "SEGMENT_BYTES", SMALL_SEGMENT_BYTES)


@pytest.fixture
def stream(small_segments: None) -> bytes:
    return seal(SECRET, PLAINTEXT, CONTEXT)


def assert_refused(stream: bytes, context: bytes = CONTEXT, secret: bytes = SECRET) -> None:
    """It does not open, and what came before is the true beginning."""
    sink = io.BytesIO()
    reader = OpeningReader(lambda number: SecretBytes(secret), context, io.BytesIO(stream))
    with pytest.raises(CannotDecrypt) as refusal:
        copy_opened(reader, sink)
    assert PLAINTEXT.startswith(sink.getvalue())
    assert (refusal.value.__cause__, refusal.value.__suppress_context__) == (None, True)
    with pytest.raises(CannotDecrypt):  # and never an empty read, which would mean the end
        reader.read(1)


def test_a_stream_opens_to_what_was_written(stream: bytes) -> None:
    assert len(parts_of(stream)) == 6
    assert open_whole(SECRET, stream, CONTEXT) == PLAINTEXT


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("length", [0, 1, FIRST - 1, FIRST, FIRST + 1, FIRST + OTHERS, FIRST + OTHERS + 1])
def test_the_length_may_be_any(length: int) -> None:
    stream = seal(SECRET, PLAINTEXT[:length], CONTEXT)
    assert open_whole(SECRET, stream, CONTEXT) == PLAINTEXT[:length]


def test_a_stream_cut_anywhere_is_refused(stream: bytes) -> None:
    for length in range(len(stream)):
        assert_refused(stream[:length])


def test_a_stream_with_anything_behind_it_is_refused(stream: bytes) -> None:
    for more in (b"\x00", bytes(16), bytes(SMALL_SEGMENT_BYTES), parts_of(stream)[-1], stream):
        assert_refused(stream + more)


def test_every_flipped_bit_is_refused(stream: bytes) -> None:
    for bit in range(len(stream) * 8):
        broken = bytearray(stream)
        broken[bit // 8] ^= 1 << bit % 8
        if not 1 <= bit // 8 < 5:  # here every version has the same secret
            assert_refused(bytes(broken))


def test_segments_in_another_order_are_refused(stream: bytes) -> None:
    header, *parts = parts_of(stream)
    for order in itertools.permutations(range(5)):
        if order != tuple(range(5)):
            assert_refused(header + b"".join(parts[place] for place in order))


def test_segments_that_are_left_out_or_doubled_are_refused(stream: bytes) -> None:
    header, *parts = parts_of(stream)
    for place in range(5):
        assert_refused(header + b"".join(parts[:place] + parts[place + 1 :]))
        assert_refused(header + b"".join(parts[: place + 1] + parts[place:]))


def test_a_segment_that_does_not_open_is_not_skipped(stream: bytes) -> None:
    header, *parts = parts_of(stream)
    junk = os.urandom(SMALL_SEGMENT_BYTES)
    for place in range(1, 5):
        assert_refused(b"".join([header, *parts[:place], junk, *parts[place:]]))


def test_segments_of_another_stream_are_refused(stream: bytes) -> None:
    for header in (
        StreamHeader(7, os.urandom(32), HEADER.nonce_prefix),
        HEADER._replace(nonce_prefix=b"another"),
    ):
        theirs, ours = parts_of(seal(SECRET, PLAINTEXT, CONTEXT, header)), parts_of(stream)
        for place in range(6):
            assert_refused(b"".join([*ours[:place], theirs[place], *ours[place + 1 :]]))


def test_another_context_or_key_is_refused(stream: bytes) -> None:
    assert_refused(stream, context=b"exports/2026-12.csv")
    assert_refused(stream, secret=SECRET[::-1])


def test_an_empty_last_segment_is_one_too_many(small_segments: None) -> None:
    stream = segments.format_header(HEADER)
    for number, plaintext in enumerate((PLAINTEXT[:FIRST], b"")):
        stream += seal_segment(SecretBytes(SECRET), HEADER, CONTEXT, number, plaintext, is_last=number == 1)
    assert_refused(stream)


# --- readers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 100, 1000])
def test_a_reader_is_a_file(stream: bytes, size: int) -> None:
    reader = OpeningReader(lambda number: SecretBytes(SECRET), CONTEXT, io.BytesIO(stream))
    assert reader.readable()
    assert reader.read(0) == b""
    assert b"".join(iter(lambda: reader.read(size) or b"", b"")) == PLAINTEXT
    assert reader.read(size) == b""
    reader.close()
    with pytest.raises(ValueError, match="closed"):
        reader.read(1)


def test_a_reader_can_be_buffered_and_leaves_its_source_open(small_segments: None) -> None:
    source = io.BytesIO(seal(SECRET, "línea\n".encode() * 100, CONTEXT))
    reader = OpeningReader(lambda number: SecretBytes(SECRET), CONTEXT, source)
    with io.TextIOWrapper(io.BufferedReader(reader), encoding="utf-8") as text:
        assert list(text) == ["línea\n"] * 100
    assert not source.closed


def test_a_reader_that_is_stopped_goes_on_where_it_was(stream: bytes) -> None:
    answers = iter([True, False, True, False, False, True, True, True])

    def secret_of(number: int) -> SecretBytes:
        if not next(answers):
            raise TenantNotActive("suspended")
        return SecretBytes(SECRET)

    reader, plaintext, stops = OpeningReader(secret_of, CONTEXT, io.BytesIO(stream)), b"", 0
    while True:
        try:
            read = reader.read(1000)
        except TenantNotActive:
            stops += 1
            continue
        if not read:
            break
        plaintext += read
    assert (plaintext, stops) == (PLAINTEXT, 3)


class Failing(io.BytesIO):
    """Fails once, in the middle of a segment."""

    has_failed = False

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() >= 300 and not self.has_failed:
            self.has_failed = True
            raise OSError("the disk is gone")
        return super().read(min(size or 0, 50))


def test_a_reader_whose_source_failed_never_ends_well(stream: bytes) -> None:
    reader = OpeningReader(lambda number: SecretBytes(SECRET), CONTEXT, Failing(stream))
    with pytest.raises(OSError, match="disk"):
        copy_opened(reader, io.BytesIO())
    with pytest.raises(CannotDecrypt):
        reader.read(1)


# --- writers --------------------------------------------------------------------------------------


def test_a_writer_is_a_file(small_segments: None) -> None:
    sink = io.BytesIO()
    with (
        sealing_writer(lambda number: SecretBytes(SECRET), HEADER, CONTEXT, sink) as writer,
        io.TextIOWrapper(writer, encoding="utf-8") as text,  # type: ignore[type-var]  # a raw file takes all here
    ):
        assert writer.writable()
        text.write("línea\n" * 100)
    assert open_whole(SECRET, sink.getvalue(), CONTEXT).decode() == "línea\n" * 100


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("size", [1, 7, FIRST, 1000])
def test_how_it_is_written_makes_no_difference(stream: bytes, size: int) -> None:
    sink = io.BytesIO()
    with sealing_writer(lambda number: SecretBytes(SECRET), HEADER, CONTEXT, sink) as writer:
        for begin in range(0, len(PLAINTEXT), size):
            assert writer.write(PLAINTEXT[begin : begin + size]) == len(PLAINTEXT[begin : begin + size])
    assert sink.getvalue() == stream


def test_what_an_exception_broke_off_does_not_look_whole(small_segments: None) -> None:
    sink = io.BytesIO()

    def broken_off() -> None:
        with sealing_writer(lambda number: SecretBytes(SECRET), HEADER, CONTEXT, sink) as writer:
            writer.write(PLAINTEXT)
            writer.close()  # as whatever is wrapped around it does
            raise RuntimeError("the database is gone")

    with pytest.raises(RuntimeError):
        broken_off()
    gc.collect()
    assert_refused(sink.getvalue())


def test_a_closed_writer_takes_nothing(small_segments: None) -> None:
    with sealing_writer(lambda number: SecretBytes(SECRET), HEADER, CONTEXT, io.BytesIO()) as writer:
        writer.close()
        with pytest.raises(ValueError, match="closed"):
            writer.write(b"x")


class Full(io.BytesIO):
    """Takes two segments."""

    def write(self, data: object, /) -> int:
        if self.tell() > 300:
            raise OSError("no space left")
        assert isinstance(data, bytes)
        return super().write(data)


def test_a_stream_with_a_hole_is_never_finished(small_segments: None) -> None:
    with (
        pytest.raises(ValueError, match="earlier write"),
        sealing_writer(lambda number: SecretBytes(SECRET), HEADER, CONTEXT, Full()) as writer,
        contextlib.suppress(OSError),
    ):
        writer.write(PLAINTEXT)


def test_a_stream_that_is_too_long_is_not_written(
    small_segments: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "MAX_SEGMENTS", 5)
    assert open_whole(SECRET, seal(SECRET, PLAINTEXT, CONTEXT), CONTEXT) == PLAINTEXT
    monkeypatch.setattr(segments, "MAX_SEGMENTS", 4)
    with pytest.raises(OutOfBounds):
        seal(SECRET, PLAINTEXT, CONTEXT)


# --- memory ---------------------------------------------------------------------------------------


class Zeros(io.RawIOBase):
    """64 MiB that are nowhere."""

    left = 2**26

    def read(self, size: int = -1, /) -> bytes:
        size = min(size, self.left)
        self.left -= size
        return bytes(size)


class Nowhere:
    """Takes what is written, and keeps nothing."""

    def write(self, data: bytes, /) -> int:
        return len(data)


def test_memory_is_bounded_however_long_the_stream() -> None:
    with tempfile.TemporaryFile() as file:
        tracemalloc.start()
        try:
            with sealing_writer(lambda number: SecretBytes(SECRET), HEADER, CONTEXT, file) as writer:
                copy(Zeros(), writer)
            file.seek(0)
            copy_opened(OpeningReader(lambda number: SecretBytes(SECRET), CONTEXT, file), Nowhere())
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak_bytes < 4 * 2**20
