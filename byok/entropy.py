"""Implements `byok.ports.Random` on the operating system's random source."""

import os
import random
import secrets
import time
from uuid import UUID


class SystemRandom:
    """The operating system's random source."""

    def bytes(self, count: int) -> bytes:
        return os.urandom(count)

    def fraction(self) -> float:
        return random.SystemRandom().random()

    def uuid(self) -> UUID:
        """A version 7 UUID (RFC 9562): milliseconds since the epoch, then 74 random bits."""
        value = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
        value = value & ~(0xF << 76) | 7 << 76
        return UUID(int=value & ~(0b11 << 62) | 0b10 << 62)
