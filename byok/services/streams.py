"""Large values: encrypted in segments of 1 MiB, each authenticated before any of it is handed out.

A stream holds no key. It asks for the lease again before each segment, and so ends where a tenant's
access ends, and goes on over a rotation under the version that it began with.
"""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from byok.core import segments
from byok.core.segments import MalformedStream, StreamHeader
from byok.crypto.hazmat import NotAuthentic, SecretBytes
from byok.crypto.streaming import open_segment, seal_segment
from byok.errors import OutOfBounds, UnknownVersion
from byok.ports import Random
from byok.services.files import Sink, Source, read_fully, write_fully
from byok.services.refusals import cannot_decrypt

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

PURPOSE = b"byok/stream/1"
_COPIED_BYTES = 2**16

SecretOf = Callable[[int], SecretBytes]
"""The secret that streams of a version are under, if its tenant may use it now."""


def new_header(version_number: int, random: Random) -> StreamHeader:
    """The header of a new stream."""
    drawn = random.bytes(segments.SALT_BYTES + segments.NONCE_PREFIX_BYTES)
    return StreamHeader(version_number, drawn[: segments.SALT_BYTES], drawn[segments.SALT_BYTES :])


class SealingWriter(io.RawIOBase):
    """Encrypts what is written to it. For one thread at a time.

    ``close`` does not end the stream: only `finish` does, so that what was broken off never looks whole.
    """

    def __init__(self, secret_of: SecretOf, header: StreamHeader, context: bytes, sink: Sink) -> None:
        self._secret_of = secret_of
        self._header = header
        self._context = context
        self._sink = sink
        self._plaintext = bytearray()
        self._number = 0
        self._is_broken = False
        write_fully(sink, segments.format_header(header))

    def writable(self) -> bool:
        """True."""
        return True

    def write(self, data: "ReadableBuffer", /) -> int:
        """Take all of ``data``; a segment goes out once there is more than fills it.

        Raises:
            AccessStopped, Unavailable, UnknownVersion: the stream is of no use from here on.
            OutOfBounds: longer than a stream can be.
        """
        if self.closed:
            raise ValueError("write to a closed stream")
        rest = memoryview(data).cast("B")
        length = len(rest)
        while rest:
            room = segments.full_plaintext_bytes(self._number) - len(self._plaintext)
            if not room:
                self._seal(is_last=False)
                continue
            self._plaintext += rest[:room]
            rest = rest[room:]
        return length

    def finish(self) -> None:
        """Write the last segment."""
        self._seal(is_last=True)

    def _seal(self, *, is_last: bool) -> None:
        if self._is_broken:
            raise ValueError("an earlier write to this stream failed; begin a new one")
        self._is_broken = True
        if self._number >= segments.MAX_SEGMENTS:
            raise OutOfBounds("the stream is longer than 4 PiB", remedy="split it")
        secret = self._secret_of(self._header.version_number)
        body = seal_segment(
            secret, self._header, self._context, self._number, self._plaintext, is_last=is_last
        )
        self._plaintext.clear()
        self._number += 1
        write_fully(self._sink, body)
        self._is_broken = False


@contextmanager
def sealing_writer(
    secret_of: SecretOf, header: StreamHeader, context: bytes, sink: Sink
) -> Iterator[SealingWriter]:
    """A writer whose stream ends with the block, unless an exception ends that."""
    writer = SealingWriter(secret_of, header, context, sink)
    yield writer
    writer.finish()
    writer.close()


class OpeningReader(io.RawIOBase):
    """Decrypts what it reads from ``source``, segment by segment. For one thread at a time.

    Whoever reads to the end, which an empty read is, has the whole stream. ``source`` stays open.
    """

    def __init__(self, secret_of: SecretOf, context: bytes, source: Source) -> None:
        self._secret_of = secret_of
        self._context = context
        self._source = source
        self._header: StreamHeader | None = None
        self._ahead = b""  # one byte of what follows: whether a segment is the last shows in it alone
        self._plaintext = memoryview(b"")
        self._number = 0
        self._is_whole = False
        self._is_broken = False

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Fill ``buffer`` with authenticated plaintext, from one segment at most.

        Raises:
            CannotDecrypt: as with fields; what was read before it is authentic, but not all there was.
            AccessStopped, Unavailable: nothing is lost, and the next read goes on from here.
        """
        if self.closed:
            raise ValueError("read from a closed stream")
        wanted = memoryview(buffer).cast("B")
        if wanted and not self._plaintext:
            self._plaintext = memoryview(self.next_segment())
        count = min(len(wanted), len(self._plaintext))
        wanted[:count] = self._plaintext[:count]
        self._plaintext = self._plaintext[count:]
        return count

    def next_segment(self) -> bytes:
        """The plaintext of the next segment; empty after the last.

        Raises:
            As `readinto`.
        """
        if self._is_whole:
            return b""
        if self._is_broken:
            raise cannot_decrypt()
        try:
            if self._header is None:
                self._header = self._read_header()
            # Before anything is read: a stream that is stopped here goes on here, once it may.
            secret = self._secret_of(self._header.version_number)
            return self._open(secret, self._header)
        except (MalformedStream, NotAuthentic, UnknownVersion):
            raise cannot_decrypt() from None

    def _read_header(self) -> StreamHeader:
        self._is_broken = True  # unless this goes well: nothing that follows a failure is the end
        header = segments.parse_header(read_fully(self._source, segments.STREAM_HEADER_BYTES))
        self._is_broken = False
        return header

    def _open(self, secret: SecretBytes, header: StreamHeader) -> bytes:
        self._is_broken = True
        wanted = segments.full_segment_bytes(self._number) - len(self._ahead)
        body = self._ahead + read_fully(self._source, wanted)
        segments.check_segment(self._number, len(body))
        self._ahead = read_fully(self._source, 1)
        is_last = not self._ahead
        plaintext = open_segment(secret, header, self._context, self._number, body, is_last=is_last)
        self._number += 1
        self._is_whole = is_last
        self._is_broken = False
        return plaintext


def copy(source: Source, sink: SealingWriter) -> None:
    """Encrypt all of ``source``."""
    while chunk := read_fully(source, _COPIED_BYTES):
        sink.write(chunk)


def copy_opened(source: OpeningReader, sink: Sink) -> None:
    """Decrypt all of ``source``."""
    while plaintext := source.next_segment():
        write_fully(sink, plaintext)
