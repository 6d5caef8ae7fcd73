"""Rewrapping many values with one lease a version, as long as a page of them takes: milliseconds."""

from byok.core.wire import MalformedToken, parse_token
from byok.crypto.hazmat import XAES_SALT_BYTES, MessageKey, NotAuthentic
from byok.errors import UnknownVersion
from byok.services.in_hand import Desk
from byok.services.lease import PREFIX_BYTES, Lease, Sealing

MAX_PAGE_VALUES = 500  # whether the tenant may go on is looked at before each page


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
            prefix = bytes(token[:PREFIX_BYTES])
            key = self._keys.get(prefix)
            if key is None:
                lease = self._lease(number)
                if lease is None:
                    return None
                key = self._keys[prefix] = lease.cipher.message_key(nonce[:XAES_SALT_BYTES])
            plaintext = key.decrypt(nonce[XAES_SALT_BYTES:], body, context)
        except (MalformedToken, NotAuthentic):
            return None
        if number >= self._sealing.lease.version_number:  # newer, where others knew of a rotation first
            return token
        sealing, iv = self._spend(), self._ivs.iv()
        return sealing.prefix + iv + sealing.encrypt(iv, plaintext, context)

    def _spend(self) -> Sealing:
        """An epoch with a message left: each counts, so that none has more than its lease has uses."""
        if not self._sealing.lease.use():
            self._sealing = self._desk.encrypting(self._tenant, self._key).epoch(self._ivs.random)
        return self._sealing

    def _lease(self, number: int) -> Lease | None:
        if number not in self._leases:
            try:
                self._leases[number] = self._desk.decrypting(self._tenant, self._key, number)
            except UnknownVersion:
                self._leases[number] = None
        return self._leases[number]
