"""What resealing needs of the database: the sealed records of each kind, and the reseals."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from byok.core.model import SealedBox
from byok.core.resealing import RecordPage, RecordPlace, Reseal, ResealState, SealedRecord


class SealedRecords(Protocol):
    """The sealed records of one kind."""

    def page(self, after: RecordPlace | None, limit: int, *, not_under: str | None = None) -> RecordPage:
        """The sealed ones of the next ``limit`` rows behind ``after``; with ``not_under`` only those that
        another master key sealed."""

    def sample(self, limit: int, *, master_key_id: str | None = None) -> Sequence[SealedRecord]:
        """Some records that this or any master key sealed."""

    def replace_seals(self, seals: Sequence[tuple[SealedRecord, SealedBox]]) -> int:
        """Compare and swap: a record gets its new seal where it has the one that was read. One that somebody
        holds just now is left out. Return how many were replaced."""

    def count_not_under(self, master_key_id: str) -> int:
        """How many records other master keys sealed."""

    def count_by_master_key(self) -> Mapping[str, int]:
        """How many records each master key sealed; for an operator who asks. Raises StoreBusy: that took
        longer than a minute."""


class Reseals(Protocol):
    """The reseals table."""

    def start(self, reseal: Reseal, wake_at: datetime) -> tuple[Reseal, bool]:
        """Insert a reseal; or the running one to the same master key, and False. One to another key is
        superseded."""

    def get(self, reseal_id: UUID) -> Reseal:
        """Raises NotFound."""

    def find_latest(self) -> Reseal | None:
        """The one that was asked for last."""

    def find_done(self, master_key_id: str) -> Reseal | None:
        """The last one that ended with nothing left under other keys than this."""

    def claim(self, reseal_id: UUID, batch: int | None, now: datetime, duration: timedelta) -> Reseal | None:
        """Claim a running reseal for one worker and count the batch up; None if it is not to be had, or is
        not at ``batch`` any more."""

    def advance(self, reseal: Reseal, until: datetime) -> Reseal:
        """Write where the claimed reseal is now, and hold on to the claim.

        Raises:
            LostRace: another worker has it by now, or it has ended.
        """

    def release(self, reseal: Reseal, wake_at: datetime, failure: str | None) -> Reseal:
        """Give a claim back; the sweeper publishes the reseal again at ``wake_at``. ``failure``: why the
        batch came to nothing, counted until one goes well. Raises LostRace."""

    def end(self, reseal: Reseal, state: ResealState, at: datetime, failure: str | None) -> Reseal:
        """End a claimed reseal. Raises LostRace."""

    def lock_waking(
        self, now: datetime, limit: int, next_wake_at: datetime, latest_wake_at: datetime
    ) -> Sequence[Reseal]:
        """Running reseals that nobody works on any more; see `Rotations.lock_waking`."""
