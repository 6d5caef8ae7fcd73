"""What the services need of the rotations in PostgreSQL."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from byok.core.dispatch import InFlight
from byok.core.model import OpenWork, RequestOutcome, Rotation, RotationEvent, RotationReason


class Rotations(Protocol):
    """The tables rotations and rotation_requests."""

    def schedule(self, rotations: Sequence[Rotation], wake_at: datetime) -> Sequence[Rotation]:
        """Record rotations of keys that are due and locked; those that their keys needed, and had no other
        open one. The due time, which every rotation moves, does what an idempotency key does elsewhere."""

    def request(
        self, rotation: Rotation, idempotency_key: str, wake_at: datetime
    ) -> tuple[Rotation, RequestOutcome]:
        """Record a request; the constraints decide between those who ask at once.

        Returns the rotation that serves it: the one of an earlier request with this idempotency key, or
        the key's open one, or ``rotation``, inserted. Raises LostRace.
        """

    def get(self, rotation_id: UUID) -> Rotation:
        """Raises UnknownRotation."""

    def get_work(self, rotation_id: UUID) -> OpenWork:
        """A rotation with its tenant's and its key's name. Raises UnknownRotation."""

    def list(self, key_id: UUID, limit: int) -> Sequence[Rotation]:
        """The latest rotations of a key, newest first."""

    def list_latest(self, limit: int) -> Sequence[OpenWork]:
        """The latest rotations of all keys, newest first."""

    def list_failed(self, limit: int) -> Sequence[OpenWork]:
        """Rotations that failed and after which their key was not rotated again, of tenants that have not
        left, newest first."""

    def list_stuck(self, requested_before: datetime, limit: int) -> Sequence[OpenWork]:
        """Open rotations that were requested before then, oldest first. Of many thousands some may be left
        out."""

    def lock_open(self, key_id: UUID) -> Rotation | None:
        """A key's open rotation, locked until the transaction ends."""

    def set_reason(self, rotation: Rotation, reason: RotationReason) -> Rotation:
        """Give an open rotation a graver reason. Raises LostRace: it has ended."""

    def claim(self, rotation_ids: Sequence[UUID], now: datetime, duration: timedelta) -> Sequence[Rotation]:
        """Claim open rotations for one worker and count the attempt; those that are to be had."""

    def renew(self, rotations: Sequence[Rotation], until: datetime) -> None:
        """Hold on to claims, except those that another worker has by now."""

    def release(self, rotation: Rotation, wake_at: datetime, failure: str, *, deferred: bool = False) -> None:
        """Give a claim back, unless another worker has it by now; the sweeper publishes it again at
        ``wake_at``. A ``deferred`` attempt does not count against the rotation."""

    def transition(
        self, rotations: Sequence[Rotation], event: RotationEvent, at: datetime, *, failure: str | None = None
    ) -> Sequence[Rotation]:
        """Compare and swap, together with the version number that each carries: as they are afterwards,
        those that were in the state they are said to be in. Raises IllegalTransition."""

    def lock_waking(
        self,
        now: datetime,
        limit: int,
        next_wake_at: datetime,
        latest_wake_at: datetime,
        *,
        begun_only: bool = False,
    ) -> Sequence[OpenWork]:
        """Open rotations that nobody works on any more; their next time to wake is moved on, so that two
        sweepers don't publish the same one. ``latest_wake_at``: a later one was set by a wrong clock.
        ``begun_only``: those that some worker had."""

    def count_in_flight(self) -> Mapping[UUID, InFlight]:
        """How many open rotations each tenant has, of those that have any."""
