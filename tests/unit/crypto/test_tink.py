"""A stock Tink reads our tokens and we read Tink's."""

import os

import pytest

from byok.core.wire import format_token, parse_token
from byok.crypto.hazmat import SecretBytes, XaesKey

tink = pytest.importorskip("tink")
from tink import aead, cleartext_keyset_handle  # noqa: E402  # after the check that it is there
from tink.proto import tink_pb2, x_aes_gcm_pb2  # noqa: E402

VERSION = 7


def tink_aead(secret: bytes) -> "aead.Aead":
    """Tink's primitive for a keyset whose one key has the version number as its id."""
    aead.register()
    key = x_aes_gcm_pb2.XAesGcmKey(
        version=0, params=x_aes_gcm_pb2.XAesGcmParams(salt_size=12), key_value=secret
    )
    keyset = tink_pb2.Keyset(
        primary_key_id=VERSION,
        key=[
            tink_pb2.Keyset.Key(
                key_data=tink_pb2.KeyData(
                    type_url="type.googleapis.com/google.crypto.tink.XAesGcmKey",
                    value=key.SerializeToString(),
                    key_material_type=tink_pb2.KeyData.SYMMETRIC,
                ),
                status=tink_pb2.ENABLED,
                key_id=VERSION,
                output_prefix_type=tink_pb2.TINK,
            )
        ],
    )
    handle = cleartext_keyset_handle.read(tink.BinaryKeysetReader(keyset.SerializeToString()))
    return handle.primitive(aead.Aead)


def test_tink_and_byok_read_each_other() -> None:
    secret = os.urandom(32)
    ours, theirs = XaesKey(SecretBytes(secret)), tink_aead(secret)
    for length in range(100):
        message, context, nonce = os.urandom(length), os.urandom(length % 40 + 1), os.urandom(24)
        token = format_token(VERSION, nonce, ours.encrypt(nonce, message, context))
        assert theirs.decrypt(token, context) == message
        parsed = parse_token(theirs.encrypt(message, context))
        assert parsed.version_number == VERSION
        assert ours.decrypt(parsed.nonce, parsed.body, context) == message
