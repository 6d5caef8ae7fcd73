"""What a round of rotations took: time, CPU of each process, memory, requests."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil


@dataclass(frozen=True)
class Usage:
    """CPU seconds since each process's start."""

    worker: float
    postgres: float
    valkey: float
    kms: float

    def __sub__(self, other: "Usage") -> "Usage":
        return Usage(*(getattr(self, name) - getattr(other, name) for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Round:
    """All keys rotated once. ``seconds`` is from the dispatch to the last end that PostgreSQL has."""

    rotations: int
    seconds: float
    used: Usage
    kms_requests: Mapping[str, int]
    deferrals: int

    @property
    def per_second(self) -> float:
        return self.rotations / self.seconds

    def cpu_ms(self, process: str) -> float:
        """CPU of a process, milliseconds per rotation."""
        return float(getattr(self.used, process)) * 1000 / self.rotations

    def to_json(self) -> dict[str, Any]:
        return {
            "rotations": self.rotations,
            "seconds": self.seconds,
            "per_second": self.per_second,
            "cpu_ms": {name: self.cpu_ms(name) for name in Usage.__dataclass_fields__},
            "kms_requests": dict(self.kms_requests),
            "deferrals": self.deferrals,
        }


@dataclass(frozen=True)
class Memory:
    """Of all processes of a worker. Pages that prefork's children share count once in ``pss_mib``."""

    rss_mib: float
    pss_mib: float


def family(pid: int) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and all its descendants, of those that have ended, too."""
    total = 0.0
    for one in family(pid):
        with suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total
