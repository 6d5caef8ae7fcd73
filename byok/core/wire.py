"""Bytes on the wire: the ciphertext token, and unambiguous associated data. Pure.

A token is Google Tink's format of XAES-256-GCM with a 192-bit nonce::

    0x01 | version number, u32 big-endian | nonce, 24 bytes | ciphertext | tag, 16 bytes

so a stock Tink reads it with a key set in which the version number is the key id
(``docs/spec/ciphertext.md``).
"""

import struct
from typing import NamedTuple

TINK_PREFIX = 0x01  # Tink's output prefix type TINK
NONCE_BYTES = 24
TAG_BYTES = 16
HEADER_BYTES = 5
OVERHEAD_BYTES = HEADER_BYTES + NONCE_BYTES + TAG_BYTES
MAX_VERSION_NUMBER = 2**32 - 1

_HEADER = struct.Struct(">BI")
_LENGTH = struct.Struct(">I")


class Token(NamedTuple):
    """A parsed token. ``body`` is ciphertext and tag."""

    version_number: int
    nonce: bytes
    body: bytes


class MalformedToken(ValueError):
    """Not a token. Never leaves byok: callers of decrypt see CannotDecrypt only."""


def format_header(version_number: int) -> bytes:
    """What a token begins with; nonce and body follow."""
    return _HEADER.pack(TINK_PREFIX, version_number)


def format_token(version_number: int, nonce: bytes, body: bytes) -> bytes:
    """Join the parts of a token."""
    return format_header(version_number) + nonce + body


def parse_token(token: bytes) -> Token:
    """Split a token, rejecting in this order: length, prefix, version number 0.

    Raises:
        MalformedToken: naming the first thing that is wrong.
    """
    if len(token) < OVERHEAD_BYTES:
        raise MalformedToken("shorter than an empty message's token")
    prefix, version_number = _HEADER.unpack_from(token)
    if prefix != TINK_PREFIX:
        raise MalformedToken("unknown prefix")
    if version_number == 0:
        raise MalformedToken("version number 0")
    return Token(
        version_number, token[HEADER_BYTES : HEADER_BYTES + NONCE_BYTES], token[HEADER_BYTES + NONCE_BYTES :]
    )


def associated_data(purpose: str, *parts: str | int) -> bytes:
    """Encode associated data so that no two lists of parts give the same bytes.

    Each part, the purpose first, goes in as UTF-8 behind its length as u32 big-endian.
    """
    encoded = bytearray()
    for part in (purpose, *parts):
        raw = str(part).encode()
        encoded += _LENGTH.pack(len(raw)) + raw
    return bytes(encoded)
