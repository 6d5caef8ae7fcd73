"""Tokens as a stock Tink makes and opens them."""

from typing import Any


def tink_aead(secret: bytes, version: int) -> Any:
    """Tink's primitive for a keyset whose one key has the version number as its id."""
    import tink
    from tink import aead, cleartext_keyset_handle
    from tink.proto import tink_pb2, x_aes_gcm_pb2

    aead.register()
    key = x_aes_gcm_pb2.XAesGcmKey(
        version=0, params=x_aes_gcm_pb2.XAesGcmParams(salt_size=12), key_value=secret
    )
    keyset = tink_pb2.Keyset(
        primary_key_id=version,
        key=[
            tink_pb2.Keyset.Key(
                key_data=tink_pb2.KeyData(
                    type_url="type.googleapis.com/google.crypto.tink.XAesGcmKey",
                    value=key.SerializeToString(),
                    key_material_type=tink_pb2.KeyData.SYMMETRIC,
                ),
                status=tink_pb2.ENABLED,
                key_id=version,
                output_prefix_type=tink_pb2.TINK,
            )
        ],
    )
    handle = cleartext_keyset_handle.read(tink.BinaryKeysetReader(keyset.SerializeToString()))
    return handle.primitive(aead.Aead)
