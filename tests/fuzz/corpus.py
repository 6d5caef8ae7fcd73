"""What is fuzzed: ciphers over real leases, warm, and valid tokens and streams of theirs."""

import io
import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from byok.ports import Store
from byok.services.fields import Cipher
from tests.fakes import CountingRandom, FakeClock
from tests.world import World

CONTEXTS = (b"users.email:42", b"users.email:43", b"u", b"users.email:42" * 20)
_TOKEN_BYTES = (0, 1, 15, 16, 17, 100)
_STREAM_BYTES = (0, 1, 72, 73, 184, 500)  # around the ends of segments of 128 bytes
_KEYS = (("acme", "pii"), ("acme", "billing"), ("globex", "pii"))


class RealClock(FakeClock):
    """The time of this machine: leases are looked at and lapse as they would."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def ticks(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class SeededRandom(CountingRandom):
    """The same bytes for the same seed, so that a failing input is one the next time."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._random = random.Random(seed)

    def bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)


@dataclass(frozen=True)
class Made:
    """A valid token or stream: the only bytes, but for its twins, that may open."""

    cipher: int
    data: bytes
    context: bytes
    plaintext: bytes


class Corpus:
    """Three keys of two tenants, each with a retired and an active version."""

    def __init__(self, store: Store, seed: int) -> None:
        world = World(store, clock=RealClock(), random=SeededRandom(seed))
        world.kms.secrets = [world.random.bytes(32) for _ in range(2 * len(_KEYS))]
        for tenant in dict.fromkeys(tenant for tenant, _ in _KEYS):
            world.add_tenant(tenant)
        self.ciphers: list[Cipher] = []
        self.tokens: list[Made] = []
        self.streams: list[Made] = []
        for tenant, key in _KEYS:
            world.add_key(tenant, key)
            self.ciphers.append(world.services.vault.cipher(tenant, key))
        self._make(world.random)
        for tenant, key in _KEYS:
            world.services.vault.request_rotation(tenant, key)
        world.run_published()
        self.versions = {1, 2}  # of each key
        self._make(world.random)
        self.made = {(one.cipher, one.data): one for one in self.tokens + self.streams}
        self.by_header = {(one.cipher, one.data[:45]): one for one in self.streams}
        self.world = world

    def _make(self, random: CountingRandom) -> None:
        for index, cipher in enumerate(self.ciphers):
            for place, length in enumerate(_TOKEN_BYTES):
                context, plaintext = CONTEXTS[place % len(CONTEXTS)], random.bytes(length)
                token = cipher.encrypt(plaintext, context=context)
                self.tokens.append(Made(index, token, context, plaintext))
            for place, length in enumerate(_STREAM_BYTES):
                context, plaintext, sink = CONTEXTS[place % len(CONTEXTS)], random.bytes(length), io.BytesIO()
                cipher.encrypt_stream(io.BytesIO(plaintext), sink, context=context)
                self.streams.append(Made(index, sink.getvalue(), context, plaintext))
