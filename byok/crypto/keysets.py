"""Tink keysets: the only module that imports Tink, an optional extra (``byok[tink]``).

Tink's own writer of encrypted keysets decrypts at once what it encrypted, with a right that we don't have;
its messages are all that is used here (ADR 35).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from byok.crypto.hazmat import XAES_SALT_BYTES, SecretBytes
from byok.errors import ConfigurationError, InvariantBroken

_TYPE_URL = "type.googleapis.com/google.crypto.tink.XAesGcmKey"


@dataclass(frozen=True, slots=True)
class KeysetInfo:
    """What an encrypted keyset says of itself in clear: its key ids, and which of them encrypts."""

    key_ids: frozenset[int]
    primary_id: int


def require_tink() -> None:
    """Let pass where Tink is installed.

    Raises:
        ConfigurationError.
    """
    try:
        import tink.proto.x_aes_gcm_pb2  # noqa: F401  # whether it can be imported
    except ImportError:
        raise ConfigurationError(
            "Tink is not installed, which writes keysets", remedy="pip install 'byok[tink]'"
        ) from None


def serialize_keyset(secrets: Mapping[int, SecretBytes], primary_id: int) -> SecretBytes:
    """A keyset in clear, as protobuf: an XAES-256-GCM key of each secret, by key id.

    Best effort: the message is cleared, but Tink's messages and the bytes that they gave stay in memory until
    Python and protobuf use it for something else.
    """
    from tink.proto import tink_pb2

    keyset = tink_pb2.Keyset(primary_key_id=primary_id)
    for key_id, secret in sorted(secrets.items()):
        keyset.key.add(
            key_id=key_id,
            status=tink_pb2.ENABLED,
            output_prefix_type=tink_pb2.TINK,
            key_data=tink_pb2.KeyData(
                type_url=_TYPE_URL,
                value=_serialize_key(secret),
                key_material_type=tink_pb2.KeyData.SYMMETRIC,
            ),
        )
    try:
        return SecretBytes(keyset.SerializeToString())
    finally:
        keyset.Clear()


def _serialize_key(secret: SecretBytes) -> bytes:
    from tink.proto import x_aes_gcm_pb2

    with secret.borrow() as raw:
        key = x_aes_gcm_pb2.XAesGcmKey(
            params=x_aes_gcm_pb2.XAesGcmParams(salt_size=XAES_SALT_BYTES), key_value=bytes(raw)
        )
    serialized: bytes = key.SerializeToString()
    return serialized


def encrypted_keyset_json(encrypted: bytes, key_ids: Collection[int], primary_id: int) -> str:
    """Tink's EncryptedKeyset as JSON: what KMS made of a keyset, and in clear what is in it."""
    from google.protobuf import json_format
    from tink.proto import tink_pb2

    info = tink_pb2.KeysetInfo(primary_key_id=primary_id)
    for key_id in sorted(key_ids):
        info.key_info.add(
            type_url=_TYPE_URL,
            status=tink_pb2.ENABLED,
            key_id=key_id,
            output_prefix_type=tink_pb2.TINK,
        )
    document: str = json_format.MessageToJson(
        tink_pb2.EncryptedKeyset(encrypted_keyset=encrypted, keyset_info=info)
    )
    return document


def read_keyset_info(document: str) -> KeysetInfo:
    """Read an encrypted keyset back as Tink does, but for its keys.

    Raises:
        InvariantBroken: Tink does not read it, or it holds nothing encrypted.
    """
    import tink

    try:
        read = tink.JsonKeysetReader(document).read_encrypted()
    except tink.TinkError as error:
        raise InvariantBroken("Tink does not read the keyset that was written") from error
    if not read.encrypted_keyset:
        raise InvariantBroken("the keyset that was written is empty")
    return KeysetInfo(
        frozenset(key.key_id for key in read.keyset_info.key_info), read.keyset_info.primary_key_id
    )
