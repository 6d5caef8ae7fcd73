"""How a stream is laid out: one header, then segments. Pure.

::

    0x02 | version number, u32 big-endian | 40 | salt, 32 bytes | nonce prefix, 7 bytes | segment | segment …

From the sixth byte on this is Google Tink's streaming format AES256-GCM-HKDF-1MB
(``docs/spec/stream.md``).
"""

import struct
from typing import NamedTuple

from byok.core.wire import TAG_BYTES

STREAM_PREFIX = 0x02
SALT_BYTES = 32
NONCE_PREFIX_BYTES = 7
SEGMENT_BYTES = 2**20  # of ciphertext and tag; the first has room for Tink's header in it
MAX_SEGMENTS = 2**32 - 1

_HEADER = struct.Struct(">BIB32s7s")
_NONCE_END = struct.Struct(">I?")
STREAM_HEADER_BYTES = _HEADER.size
_TINK_HEADER_BYTES = 1 + SALT_BYTES + NONCE_PREFIX_BYTES


class MalformedStream(ValueError):
    """Not a stream. Never leaves byok: who decrypts sees CannotDecrypt only."""


class StreamHeader(NamedTuple):
    """What a stream begins with."""

    version_number: int
    salt: bytes
    nonce_prefix: bytes


def format_header(header: StreamHeader) -> bytes:
    """The 45 bytes of a header."""
    return _HEADER.pack(
        STREAM_PREFIX, header.version_number, _TINK_HEADER_BYTES, header.salt, header.nonce_prefix
    )


def parse_header(raw: bytes) -> StreamHeader:
    """Read a header, rejecting in this order: length, prefix, version number 0, length of Tink's header.

    Raises:
        MalformedStream: naming the first thing that is wrong.
    """
    if len(raw) != STREAM_HEADER_BYTES:
        raise MalformedStream("shorter than a header")
    prefix, version_number, tink_header_bytes, salt, nonce_prefix = _HEADER.unpack(raw)
    if prefix != STREAM_PREFIX:
        raise MalformedStream("unknown prefix")
    if version_number == 0:
        raise MalformedStream("version number 0")
    if tink_header_bytes != _TINK_HEADER_BYTES:
        raise MalformedStream("unknown header length")
    return StreamHeader(version_number, salt, nonce_prefix)


def full_segment_bytes(number: int) -> int:
    """The length of segment ``number``, from 0, tag included, unless it is the last."""
    return SEGMENT_BYTES if number else SEGMENT_BYTES - _TINK_HEADER_BYTES


def full_plaintext_bytes(number: int) -> int:
    """How much plaintext segment ``number`` has room for."""
    return full_segment_bytes(number) - TAG_BYTES


def check_segment(number: int, length: int) -> None:
    """Check the length of a segment, tag included. An empty one is the only one of its stream.

    Raises:
        MalformedStream: there is too little of it, or it is one too many.
    """
    if length < TAG_BYTES + (number > 0):
        raise MalformedStream("shorter than a segment")
    if number >= MAX_SEGMENTS:
        raise MalformedStream("too many segments")


def segment_nonce(header: StreamHeader, number: int, *, is_last: bool) -> bytes:
    """The 12-byte nonce of a segment: it stands at one place of one stream, and ends it or doesn't."""
    return header.nonce_prefix + _NONCE_END.pack(number, is_last)
