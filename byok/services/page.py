"""Rewrapping many values with one lease a version, as long as a page of them takes."""

from byok.core.wire import HEADER_BYTES, MalformedToken, parse_token
from byok.crypto.hazmat import XAES_SALT_BYTES, MessageKey, NotAuthentic
from byok.errors import UnknownVersion
from byok.services.in_hand import Desk
from byok.services.lease import Lease

_PREFIX_BYTES = HEADER_BYTES + XAES_SALT_BYTES


class Page:
    """A page of values that go over to the version that is active now. For one thread, and not to be kept."""

    def __init__(self, desk: Desk, tenant: str, key: str) -> None:
        self._desk = desk
        self._tenant = tenant
        self._key = key
        self._ivs = desk.ivs
        active = desk.encrypting(tenant, key)
        self._sealing = active.epoch(desk.ivs.random)
        self._leases: dict[int, Lease | None] = {active.version_number: active}
        self._keys: dict[bytes, MessageKey] = {}  # by header and salt

    def rewrap(self, token: bytes, context: bytes) -> bytes | None:
        """The value under the active version; None if the token does not open."""
        try:
            number, nonce, body = parse_token(token)
            prefix = bytes(token[:_PREFIX_BYTES])
            key = self._keys.get(prefix)
            if key is None:
                lease = self._lease(number)
                if lease is None:
                    return None
                key = self._keys[prefix] = lease.cipher.message_key(nonce[:XAES_SALT_BYTES])
            plaintext = key.decrypt(nonce[XAES_SALT_BYTES:], body, context)
        except (MalformedToken, NotAuthentic):
            return None
        if number == self._sealing.lease.version_number:
            return token
        iv = self._ivs.iv()
        return self._sealing.prefix + iv + self._sealing.encrypt(iv, plaintext, context)

    def _lease(self, number: int) -> Lease | None:
        if number not in self._leases:
            try:
                self._leases[number] = self._desk.decrypting(self._tenant, self._key, number)
            except UnknownVersion:
                self._leases[number] = None
        return self._leases[number]
