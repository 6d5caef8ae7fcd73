"""Encrypting and decrypting fields: the data plane."""

from collections.abc import Sequence
from typing import NamedTuple

from byok.core.wire import OVERHEAD_BYTES, MalformedToken, format_token, parse_token
from byok.crypto.hazmat import XAES_NONCE_BYTES, NotAuthentic
from byok.errors import CannotDecrypt, EmptyContext, UnknownVersion
from byok.ports import Random
from byok.services.leases import LeaseDesk


class TokenInfo(NamedTuple):
    """What a token tells to whoever has no key."""

    version_number: int
    plaintext_bytes: int


class Cipher:
    """Encrypts and decrypts the fields of one tenant under one of its keys. Thread-safe.

    ``context`` is associated data and required: say where the value lives, such as
    ``b"users.email:42"``. A token opens under the same context only.
    """

    def __init__(self, desk: LeaseDesk, random: Random, tenant: str, key: str) -> None:
        self._desk = desk
        self._random = random
        self._tenant = tenant
        self._key = key

    def encrypt(self, plaintext: bytes, *, context: bytes) -> bytes:
        """Encrypt one value; the token is 45 bytes longer (``docs/spec/ciphertext.md``).

        Raises:
            EmptyContext, UnknownTenant, UnknownKey, NotReady, AccessStopped, Unavailable.
        """
        _require_context(context)
        lease = self._desk.encrypting(self._tenant, self._key)
        nonce = self._random.bytes(XAES_NONCE_BYTES)
        return format_token(lease.version_number, nonce, lease.cipher.encrypt(nonce, plaintext, context))

    def decrypt(self, token: bytes, *, context: bytes) -> bytes:
        """Open a token.

        Raises:
            CannotDecrypt: malformed, tampered with, of another tenant or key, or under another
                context. Which of these is not told.
            EmptyContext, UnknownTenant, UnknownKey, AccessStopped, Unavailable.
        """
        _require_context(context)
        try:
            parsed = parse_token(token)
            lease = self._desk.decrypting(self._tenant, self._key, parsed.version_number)
            return lease.cipher.decrypt(parsed.nonce, parsed.body, context)
        except (MalformedToken, UnknownVersion, NotAuthentic):
            raise _cannot_decrypt() from None

    def encrypt_many(self, items: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        """Encrypt many values, each given as (plaintext, context), all under the same version."""
        for _, context in items:
            _require_context(context)
        lease = self._desk.encrypting(self._tenant, self._key)
        nonces = self._random.bytes(XAES_NONCE_BYTES * len(items))
        tokens = []
        for index, (plaintext, context) in enumerate(items):
            nonce = nonces[index * XAES_NONCE_BYTES : (index + 1) * XAES_NONCE_BYTES]
            body = lease.cipher.encrypt(nonce, plaintext, context)
            tokens.append(format_token(lease.version_number, nonce, body))
        return tokens

    def rewrap(self, token: bytes, *, context: bytes) -> bytes:
        """The same value under the active version; the token itself where it is under that already.

        Raises:
            As `decrypt` and `encrypt`.
        """
        plaintext = self.decrypt(token, context=context)
        return self.encrypt(plaintext, context=context) if self.needs_rewrap(token) else token

    def needs_rewrap(self, token: bytes) -> bool:
        """Whether a token is under another version than the active one. Opens nothing.

        Raises:
            CannotDecrypt: it is no token; and as `encrypt`.
        """
        active = self._desk.encrypting(self._tenant, self._key)
        return token_info(token).version_number != active.version_number


def token_info(token: bytes) -> TokenInfo:
    """What a token tells without any key. Nobody vouches for it: only decryption does.

    Raises:
        CannotDecrypt: it is no token.
    """
    try:
        parsed = parse_token(token)
    except MalformedToken:
        raise _cannot_decrypt() from None
    return TokenInfo(parsed.version_number, len(token) - OVERHEAD_BYTES)


def _cannot_decrypt() -> CannotDecrypt:
    """One flat answer, so that nobody learns which check it was."""
    return CannotDecrypt(
        "the ciphertext does not open",
        remedy="check tenant, key and context; the data may be damaged",
    )


def _require_context(context: bytes) -> None:
    if not context:
        raise EmptyContext(
            "the context is empty", remedy='say where the value lives, such as context=b"users.email:42"'
        )
