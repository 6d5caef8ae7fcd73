"""A lease in memory, and the lane on which a cipher uses it without asking anybody.

Encrypting a short value takes a microsecond; looking up tenant, key and lease takes several. So the desk,
having looked, *arms* the lease: until a moment that it names, whoever has it on his lane may use it at
once. The moment is the earliest at which anything may change by itself (the next look at PostgreSQL, the
renewal, the deadline); what changes otherwise, such as a stop, disarms the lease first.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import repeat
from typing import Final, TypeAlias
from weakref import WeakSet

from byok.core.wire import HEADER_BYTES, format_header
from byok.crypto.hazmat import GCM_IV_BYTES, XAES_SALT_BYTES, SecretBytes, XaesKey, derive_key
from byok.ports import Random

# Uses of one lease; then it is fetched again, as if there were none. As many messages can share a salt:
# `docs/spec/ciphertext.md`, C-6.
MAX_LEASE_USES: Final = 1_000_000
# What the tokens of an epoch begin with: header and salt, 17 bytes. The IV follows, to 29, and the body:
# `Cipher.decrypt` has these as numbers, which are quicker.
PREFIX_BYTES: Final = HEADER_BYTES + XAES_SALT_BYTES
# Derived keys that a lane keeps for decryption. One serves all messages of an epoch.
MAX_LANE_OPENINGS: Final = 1024
_DRAWN_AT_ONCE = 256  # 20 µs of work, and 15 KB of memory

_GcmCall: TypeAlias = Callable[[bytes, bytes, bytes], bytes]
_NONE_LEFT = object()
_split_ivs = struct.Struct(f"{GCM_IV_BYTES}s" * _DRAWN_AT_ONCE).unpack


@dataclass(slots=True)
class Lease:
    """A version's secret, usable until the KMS Decrypt behind it is older than the key's TTL.

    ``began_ticks`` is when that Decrypt was sent, on a clock that nobody can set: a time zero of the
    lease that no cache on the way and no step of any wall clock moves forward.
    """

    version_number: int
    cipher: XaesKey
    secret: SecretBytes
    decrypted_at: datetime
    began_ticks: float
    refresh_ticks: float
    ends_ticks: float
    uses_left: "repeat[None]" = field(default_factory=lambda: repeat(None, MAX_LEASE_USES))
    decrypts_until_ticks: float = 0.0
    encrypts_until_ticks: float = 0.0
    lanes: "WeakSet[Lane]" = field(default_factory=WeakSet)
    _derived: dict[bytes, SecretBytes] = field(default_factory=dict)
    _epoch: "Sealing | None" = None

    def use(self) -> bool:
        """Count a use; False if there is none left."""
        return next(self.uses_left, _NONE_LEFT) is not _NONE_LEFT

    def derived(self, purpose: bytes) -> SecretBytes:
        """A 32-byte key of its own for another ``purpose`` than fields: HKDF-SHA256, kept with the lease."""
        key = self._derived.get(purpose)
        if key is None:
            key = self._derived[purpose] = derive_key(self.secret, purpose)
        return key

    def epoch(self, random: Random) -> "Sealing":
        """The salt of all messages under this lease, and the key derived from it."""
        epoch = self._epoch
        if epoch is None:
            salt = random.bytes(XAES_SALT_BYTES)
            prefix, key = format_header(self.version_number) + salt, self.cipher.message_key(salt)
            epoch = self._epoch = Sealing(prefix, key.encrypt, self)
        return epoch

    def disarm(self) -> None:
        """Let nobody use it who has not asked the desk."""
        self.decrypts_until_ticks = self.encrypts_until_ticks = 0.0

    def let_go(self) -> None:
        """Take it from all lanes: it has ended, was dropped, or another has its place."""
        self.disarm()
        self._epoch = None
        for lane in list(self.lanes):
            lane.clear()


@dataclass(slots=True)  # read at each use: its attributes cost less than unpacking a tuple
class Sealing:
    """An epoch: messages that share a salt, and the AES key derived from it. Its lease's end is its own."""

    prefix: bytes  # of each token: header and salt
    encrypt: _GcmCall
    lease: Lease


@dataclass(slots=True)
class Opening:
    """A derived key, kept to decrypt further messages of the same epoch."""

    decrypt: _GcmCall
    lease: Lease


class Lane:
    """What one cipher may use at once, while its leases are armed. It is reread at each use."""

    __slots__ = ("__weakref__", "openings", "sealing")

    def __init__(self) -> None:
        self.sealing: Sealing | None = None
        self.openings: dict[bytes, Opening] = {}  # by the header and salt of a token

    def clear(self) -> None:
        """Forget all keys."""
        self.sealing = None
        self.openings.clear()

    def keep_opening(self, prefix: bytes, opening: Opening) -> None:
        """Keep a derived key; all make room for one too many."""
        if len(self.openings) >= MAX_LANE_OPENINGS:
            self.openings.clear()
        self.openings[prefix] = opening


class IvPool:
    """Random IVs, drawn many at a time: a system call for each costs more than AES does.

    `take_iv` removes an IV as it hands it out, in one step of the interpreter: no two callers get the same.
    """

    def __init__(self, random: Random) -> None:
        self.random = random
        self._ivs: list[bytes] = []
        self.take_iv: Callable[[], bytes] = self._ivs.pop  # raises IndexError when there is none left

    def iv(self) -> bytes:
        """An IV; fills the pool when it is empty."""
        try:
            return self.take_iv()
        except IndexError:
            fresh = list(_split_ivs(self.random.bytes(GCM_IV_BYTES * _DRAWN_AT_ONCE)))
            taken: bytes = fresh.pop()
            self._ivs.extend(fresh)
            return taken

    def forget(self) -> None:
        """Throw away all: in a forked child they are the parent's."""
        self._ivs.clear()
