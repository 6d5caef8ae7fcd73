"""The only module that imports ``cryptography``.

It offers AES-256-GCM, XAES-256-GCM, HKDF-SHA256, HMAC-SHA256 and Ed25519, each with the one key size and
nonce size that byok uses. It refuses: associated data left out, other key sizes, truncated tags, and any
other algorithm. It draws no randomness: nonces are passed in, so that test vectors can be run.
"""

import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Never, Protocol, SupportsIndex

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES: Final = 32
GCM_IV_BYTES: Final = 12
XAES_SALT_BYTES: Final = 12
XAES_NONCE_BYTES: Final = XAES_SALT_BYTES + GCM_IV_BYTES
_BLOCK_BYTES = 16
_CMAC_POLYNOMIAL = 0x87  # NIST SP 800-38B, R_b for 128-bit blocks


# A tag does not fit: wrong key, nonce, associated data or ciphertext. Never leaves byok.
NotAuthentic = InvalidTag


class MessageKey(Protocol):
    """An AES-256-GCM key; both methods take IV (12 bytes), data and associated data."""

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes, /) -> bytes:
        """Returns ciphertext and tag."""

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes, /) -> bytes:
        """Opens ciphertext and tag; raises NotAuthentic."""


class SecretBytes:
    """Key bytes that can't be printed, pickled, copied, hashed or compared carelessly.

    ``==`` compares in constant time, and with other SecretBytes only. ``wipe`` is best effort:
    Python may have copied the bytes before, and OpenSSL's own key schedules are out of reach.
    """

    __slots__ = ("_raw",)
    __hash__ = None  # type: ignore[assignment]  # a secret must not become a dictionary key

    def __init__(self, raw: bytes | bytearray) -> None:
        self._raw = bytearray(raw)

    @contextmanager
    def borrow(self) -> Iterator[bytearray]:
        """Lend the bytes themselves, not a copy. Don't keep them."""
        yield self._raw

    def wipe(self) -> None:
        """Overwrite the bytes with zeros and forget them."""
        for index in range(len(self._raw)):
            self._raw[index] = 0
        self._raw.clear()

    def __len__(self) -> int:
        return len(self._raw)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SecretBytes):
            return NotImplemented
        return hmac.compare_digest(self._raw, other._raw)

    def __repr__(self) -> str:
        return "SecretBytes(...)"

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __bytes__(self) -> Never:
        raise TypeError("SecretBytes does not turn into bytes; use borrow()")

    def __reduce_ex__(self, protocol: SupportsIndex) -> Never:
        raise TypeError("SecretBytes can't be pickled or copied")


def _require_key(key: bytes | bytearray) -> None:
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(key)}")


def gcm_encrypt(key: SecretBytes, iv: bytes, plaintext: bytes | bytearray, associated_data: bytes) -> bytes:
    """AES-256-GCM with a 96-bit IV. Returns ciphertext and 16-byte tag."""
    with key.borrow() as raw:
        _require_key(raw)
        return AESGCM(raw).encrypt(iv, plaintext, associated_data)


def gcm_decrypt(key: SecretBytes, iv: bytes, body: bytes, associated_data: bytes) -> bytes:
    """Open what `gcm_encrypt` made.

    Raises:
        NotAuthentic: the tag does not fit.
    """
    with key.borrow() as raw:
        _require_key(raw)
        return AESGCM(raw).decrypt(iv, body, associated_data)


def derive_key(key: SecretBytes, info: bytes, *, salt: bytes | None = None) -> SecretBytes:
    """HKDF-SHA256 (RFC 5869), 32 bytes long, bound to ``info`` and, if there is one, to the salt."""
    with key.borrow() as raw:
        _require_key(raw)
        return SecretBytes(HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=info).derive(raw))


def fingerprint(secret: SecretBytes) -> bytes:
    """A 32-byte value that tells two secrets apart and reveals neither: HMAC-SHA256 keyed by the secret."""
    with secret.borrow() as raw:
        _require_key(raw)
        return hmac.digest(raw, b"byok/fingerprint/1", "sha256")


def mac(key: SecretBytes, message: bytes) -> bytes:
    """HMAC-SHA256 (RFC 2104), 32 bytes."""
    with key.borrow() as raw:
        _require_key(raw)
        return hmac.digest(raw, message, "sha256")


def signing_public_key(seed: SecretBytes) -> bytes:
    """The Ed25519 (RFC 8032) public key, 32 bytes, of a 32-byte seed."""
    return _signing_key(seed).public_key().public_bytes_raw()


def sign(seed: SecretBytes, message: bytes) -> bytes:
    """The Ed25519 signature, 64 bytes, of a message."""
    return _signing_key(seed).sign(message)


def verify(public_key: bytes, signature: bytes, message: bytes) -> None:
    """Check an Ed25519 signature.

    Raises:
        NotAuthentic: the message or the signature was changed, or another key signed it.
    """
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise NotAuthentic from None


def _signing_key(seed: SecretBytes) -> Ed25519PrivateKey:
    with seed.borrow() as raw:
        _require_key(raw)
        return Ed25519PrivateKey.from_private_bytes(bytes(raw))


class XaesKey:
    """XAES-256-GCM (C2SP specification) under one 256-bit key.

    Each message's AES key is derived from the first half of its 192-bit nonce, so random nonces are
    safe far beyond the 2^32 messages at which plain AES-GCM must stop.
    """

    __slots__ = ("_ecb", "_subkey")

    def __init__(self, secret: SecretBytes) -> None:
        with secret.borrow() as raw:
            _require_key(raw)
            # It keeps what it is given, and the secret's own bytes may be wiped: hence a copy.
            self._ecb = Cipher(algorithms.AES256(bytes(raw)), modes.ECB())  # noqa: S305  # single blocks for a CMAC, no data
        self._subkey = _cmac_subkey(self._encrypt_blocks(bytes(_BLOCK_BYTES)))

    def __repr__(self) -> str:
        return "XaesKey(...)"

    def __reduce_ex__(self, protocol: SupportsIndex) -> Never:
        raise TypeError("XaesKey can't be pickled or copied")

    def encrypt(self, nonce: bytes, plaintext: bytes, associated_data: bytes) -> bytes:
        """Encrypt under a 24-byte nonce that must never be used twice. Returns ciphertext and tag."""
        return self._of(nonce).encrypt(nonce[XAES_SALT_BYTES:], plaintext, associated_data)

    def decrypt(self, nonce: bytes, body: bytes, associated_data: bytes) -> bytes:
        """Open what `encrypt` made.

        Raises:
            NotAuthentic: the tag does not fit.
        """
        return self._of(nonce).decrypt(nonce[XAES_SALT_BYTES:], body, associated_data)

    def message_key(self, salt: bytes) -> MessageKey:
        """The AES key of all messages whose nonce begins with this salt of 12 bytes."""
        if len(salt) != XAES_SALT_BYTES:
            raise ValueError(f"a salt has {XAES_SALT_BYTES} bytes, not {len(salt)}")
        blocks = b"\x00\x01X\x00" + salt + b"\x00\x02X\x00" + salt
        mixed = int.from_bytes(blocks) ^ self._subkey
        return AESGCM(self._encrypt_blocks(mixed.to_bytes(2 * _BLOCK_BYTES)))

    def _of(self, nonce: bytes) -> MessageKey:
        if len(nonce) != XAES_NONCE_BYTES:
            raise ValueError(f"a nonce has {XAES_NONCE_BYTES} bytes, not {len(nonce)}")
        return self.message_key(nonce[:XAES_SALT_BYTES])

    def _encrypt_blocks(self, blocks: bytes) -> bytes:
        encryptor = self._ecb.encryptor()
        return encryptor.update(blocks) + encryptor.finalize()


def _cmac_subkey(zero_block: bytes) -> int:
    """K1 of NIST SP 800-38B, twice side by side: the mask of both derivation blocks."""
    value = int.from_bytes(zero_block)
    doubled = (value << 1) & (2**128 - 1)
    if value >> 127:
        doubled ^= _CMAC_POLYNOMIAL
    return doubled << 128 | doubled
