"""The text of a master key ring: one entry a line, or between commas.

    ID:BASE64                the 32 bytes themselves
    ID:kms:BASE64            wrapped by a KMS key of the vendor's, which the settings name
    ID:kms:ARN:BASE64        wrapped by this KMS key

Both kinds may stand in one ring, so that a rotation leads from one to the other.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass

from byok.core.arns import KmsKeyArn
from byok.crypto.hazmat import KEY_BYTES, SecretBytes
from byok.errors import InvalidArn, InvalidMasterKey

_KEY_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_KMS = "kms:"
_MAX_WRAPPED_BYTES = 6144  # CiphertextBlob of the KMS API reference
_REMEDY = "each reads ID:BASE64 of 32 random bytes, or ID:kms:BASE64; byok master-key generate prints one"


@dataclass(frozen=True, slots=True)
class PlainEntry:
    """A master key as it is."""

    key_id: str
    secret: SecretBytes


@dataclass(frozen=True, slots=True)
class WrappedEntry:
    """A master key that a KMS key wraps: ``kms_key_arn``, or the one that the settings name."""

    key_id: str
    kms_key_arn: KmsKeyArn | None
    wrapped_key: bytes


def parse_entries(text: str) -> Sequence[PlainEntry | WrappedEntry]:
    """Parse a ring's text; newlines may stand for commas.

    Raises:
        InvalidMasterKey: naming the entry by its place, never by its content.
    """
    entries = [entry.strip() for entry in text.replace("\n", ",").split(",") if entry.strip()]
    parsed = [_parse_entry(place, entry) for place, entry in enumerate(entries, start=1)]
    if len({entry.key_id for entry in parsed}) != len(parsed):
        raise InvalidMasterKey("two master keys have the same id", remedy="give each its own id")
    return parsed


def _parse_entry(place: int, entry: str) -> PlainEntry | WrappedEntry:
    key_id, colon, rest = entry.partition(":")
    if not colon or not is_key_id(key_id):
        raise InvalidMasterKey(f"master key {place} does not read ID:BASE64", remedy=_REMEDY)
    if rest.startswith(_KMS):
        arn, _, encoded = rest.removeprefix(_KMS).rpartition(":")
        wrapped_key = _decode(place, encoded)
        if not 0 < len(wrapped_key) <= _MAX_WRAPPED_BYTES:
            raise InvalidMasterKey(f"master key {place} is no CiphertextBlob of KMS", remedy=_REMEDY)
        return WrappedEntry(key_id, _parse_arn(place, arn) if arn else None, wrapped_key)
    raw = _decode(place, rest)
    if len(raw) != KEY_BYTES:
        raise InvalidMasterKey(f"master key {place} has {len(raw)} bytes, not {KEY_BYTES}", remedy=_REMEDY)
    return PlainEntry(key_id, SecretBytes(raw))


def is_key_id(text: str) -> bool:
    """Whether a master key may be named so: lower case letters, digits, hyphens."""
    return _KEY_ID.fullmatch(text) is not None


def _decode(place: int, encoded: str) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except binascii.Error:
        # from None: the cause would carry nothing secret today, but it was made from key bytes
        raise InvalidMasterKey(f"master key {place} is not base64", remedy=_REMEDY) from None


def _parse_arn(place: int, text: str) -> KmsKeyArn:
    try:
        return KmsKeyArn.parse(text)
    except InvalidArn:
        # from None: whatever stands there may be a key in the wrong place
        raise InvalidMasterKey(
            f"master key {place}: what follows 'kms:' is not the ARN of a KMS key", remedy=_REMEDY
        ) from None


def format_entry(key_id: str, raw: bytes) -> str:
    """The entry of a master key as it is."""
    return f"{key_id}:{base64.b64encode(raw).decode()}"


def format_wrapped_entry(key_id: str, kms_key_arn: KmsKeyArn, wrapped_key: bytes) -> str:
    """The entry of a master key that a KMS key wraps."""
    return f"{key_id}:{_KMS}{kms_key_arn}:{base64.b64encode(wrapped_key).decode()}"
