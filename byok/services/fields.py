"""Encrypting and decrypting fields: the data plane."""

from collections.abc import Sequence

from byok.core.wire import MalformedToken, format_token, parse_token
from byok.crypto.hazmat import XAES_NONCE_BYTES, NotAuthentic
from byok.errors import CannotDecrypt, EmptyContext, UnknownVersion
from byok.ports import Random
from byok.services.leases import LeaseDesk


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
            # from None: one flat answer, so that nobody learns which check it was
            raise CannotDecrypt(
                "the ciphertext does not open",
                remedy="check tenant, key and context; the data may be damaged",
            ) from None

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


def _require_context(context: bytes) -> None:
    if not context:
        raise EmptyContext(
            "the context is empty", remedy='say where the value lives, such as context=b"users.email:42"'
        )
