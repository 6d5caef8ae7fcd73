"""What the services need of time, chance, the lease cache, the queue and the metrics."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from byok.core.model import Rotation, RotationReason, RotationState, SealedBox


class Clock(Protocol):
    """The wall clock, in UTC."""

    def now(self) -> datetime:
        """The time now, timezone-aware."""


class Random(Protocol):
    """A cryptographically secure source."""

    def bytes(self, count: int) -> bytes:
        """``count`` random bytes."""

    def fraction(self) -> float:
        """A number in [0, 1), for jitter."""

    def uuid(self) -> UUID:
        """A fresh id; later ids sort behind earlier ones."""


@dataclass(frozen=True, slots=True)
class LeaseId:
    """What a cached lease is filed under. An entry of an older tenant generation is never found."""

    tenant_id: UUID
    generation: int
    key_id: UUID
    version_number: int


@dataclass(frozen=True, slots=True)
class SealedLease:
    """A version secret sealed under the master key, with the time of the KMS Decrypt behind it."""

    box: SealedBox
    decrypted_at: datetime


class LeaseCache(Protocol):
    """The shared cache of sealed leases. It may forget anything at any time.

    Every method raises CacheUnavailable.
    """

    def get(self, lease_id: LeaseId) -> SealedLease | None:
        """The cached lease, or None."""

    def put(self, lease_id: LeaseId, lease: SealedLease, ttl: timedelta) -> None:
        """Keep a lease for ``ttl`` at most."""

    def purge(self, tenant_id: UUID) -> int:
        """Drop all leases of a tenant; return how many there were."""

    def ping(self) -> None:
        """Answer if the cache is there."""


class TaskQueue(Protocol):
    """Where work for the workers is published, after the commit that made it.

    Every method raises QueueUnavailable.
    """

    def rotate(self, tenant: str, key: str, rotation: Rotation) -> None:
        """Publish a rotation; the reason decides the queue."""

    def backlog(self) -> int:
        """How many rotations wait to be taken by a worker."""

    def validate(self, tenant: str, key: str) -> None:
        """Publish a validation of a key's active version."""

    def probe(self, tenant: str) -> None:
        """Publish a liveness probe of a tenant's access."""

    def sync_rotation(self, tenant: str) -> None:
        """Publish a look at what the tenant's KMS key says of rotation."""

    def ping(self) -> None:
        """Answer if the broker is there."""


class Metrics(Protocol):
    """What is counted for operators. Never fails, and never says who a tenant is."""

    def rotation_ended(self, reason: RotationReason, state: RotationState) -> None:
        """A rotation is done, or failed for good."""

    def rotation_tried_again(self, code: str) -> None:
        """An attempt failed with this error code, and another will follow."""

    def sweeper_found(self, finding: str, count: int) -> None:
        """The sweeper had something to mend: ``republished`` or ``orphan-rejected``."""
