"""The segments of a stream: AES-256-GCM under a key that HKDF derives for each stream.

The context goes into that key, and a segment's place and whether it is the last into its nonce. So one
that was moved, doubled, dropped or taken from another stream doesn't open.
"""

from byok.core.segments import StreamHeader, segment_nonce
from byok.crypto.hazmat import SecretBytes, derive_key, gcm_decrypt, gcm_encrypt

_IN_THE_KEY = b""  # what GCM itself authenticates beside the plaintext: the context went into the key


def seal_segment(
    secret: SecretBytes,
    header: StreamHeader,
    context: bytes,
    number: int,
    plaintext: bytes | bytearray,
    *,
    is_last: bool,
) -> bytes:
    """Encrypt segment ``number``, from 0. Returns ciphertext and tag."""
    key = derive_key(secret, context, salt=header.salt)
    return gcm_encrypt(key, segment_nonce(header, number, is_last=is_last), plaintext, _IN_THE_KEY)


def open_segment(
    secret: SecretBytes, header: StreamHeader, context: bytes, number: int, body: bytes, *, is_last: bool
) -> bytes:
    """Open what `seal_segment` made.

    Raises:
        NotAuthentic: it was changed, or belongs elsewhere.
    """
    key = derive_key(secret, context, salt=header.salt)
    return gcm_decrypt(key, segment_nonce(header, number, is_last=is_last), body, _IN_THE_KEY)
