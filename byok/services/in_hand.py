"""Leases for an event loop, which must not wait: those that its process holds, and no others."""

from typing import TypeAlias, TypeVar

from byok.core.model import IndexVersions
from byok.services.lease import Lane, Lease, Opening, Sealing
from byok.services.leases import LeaseDesk

_Known = TypeVar("_Known")


class WouldAsk(Exception):  # no error, and never leaves byok
    """It is not in hand: somebody would have to be asked for it."""


class LeasesInHand:
    """A `LeaseDesk` without anything behind it: hands out what its process holds, else raises `WouldAsk`."""

    def __init__(self, desk: LeaseDesk) -> None:
        self._desk = desk
        self.ivs = desk.ivs
        self.ticks = desk.ticks

    def encrypting(self, tenant: str, key: str) -> Lease:
        """As `LeaseDesk.encrypting`, without a call to anybody."""
        return _required(self._desk.in_hand(tenant, key))

    def decrypting(self, tenant: str, key: str, number: int) -> Lease:
        """As `LeaseDesk.decrypting`, without a call to anybody."""
        return _required(self._desk.in_hand(tenant, key, number))

    def index_versions(self, tenant: str, key: str) -> IndexVersions:
        """As `LeaseDesk.index_versions`, without a call to anybody."""
        return _required(self._desk.index_versions_in_hand(tenant, key))

    def keep_sealing(self, lane: Lane, sealing: Sealing) -> None:
        """As `LeaseDesk.keep_sealing`."""
        self._desk.keep_sealing(lane, sealing)

    def keep_opening(self, lane: Lane, prefix: bytes, opening: Opening) -> None:
        """As `LeaseDesk.keep_opening`."""
        self._desk.keep_opening(lane, prefix, opening)


Desk: TypeAlias = LeaseDesk | LeasesInHand


def _required(known: _Known | None) -> _Known:
    if known is None:
        raise WouldAsk
    return known
