"""What re-encryption needs of byok's own database: its targets and campaigns."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from byok.core.reencryption import Campaign, CampaignEvent, CampaignWork, PauseCause, Target


class Targets(Protocol):
    """The table reencryption_targets."""

    def add(self, target: Target) -> None:
        """Raises DuplicateTarget: the key has this table already."""

    def get(self, target_id: UUID) -> Target:
        """Raises UnknownTarget: there is none, or it is registered no more."""

    def list(self, key_id: UUID) -> Sequence[Target]:
        """The registered targets of a key, by table."""

    def unregister(self, target: Target, at: datetime) -> None:
        """Raises CampaignOpen: a campaign is under way."""

    def lock_owed(self, limit: int) -> Sequence[tuple[Target, int]]:
        """Targets that no campaign ever brought to the version which replaced a compromised one, each with
        that version's number."""


class Campaigns(Protocol):
    """The table reencryption_campaigns."""

    def start(self, campaign: Campaign, wake_at: datetime) -> tuple[Campaign, bool]:
        """Insert a campaign, unless its target has an open one; the open one, and whether it is this."""

    def get(self, campaign_id: UUID) -> CampaignWork:
        """Raises UnknownCampaign."""

    def lock(self, campaign_id: UUID) -> Campaign:
        """The campaign's row, locked until the transaction ends. Raises UnknownCampaign."""

    def list_latest(self, limit: int) -> Sequence[CampaignWork]:
        """The latest campaigns, newest first."""

    def find_proven(self, target_id: UUID) -> int | None:
        """The version below which the last clean campaign counted nothing any more; None: none came to that,
        or a later one did count something below."""

    def claim(
        self, campaign_id: UUID, batch: int | None, now: datetime, duration: timedelta
    ) -> Campaign | None:
        """Claim a running campaign for one worker and count the batch up; None if it is not to be had, or
        is not at ``batch`` any more."""

    def advance(self, campaign: Campaign, until: datetime) -> Campaign:
        """Write where the claimed campaign is now, and hold on to the claim.

        Raises:
            LostRace: another worker has it by now, or it has ended.
        """

    def release(self, campaign: Campaign, wake_at: datetime, failure: str | None) -> Campaign:
        """Give a claim back; the sweeper publishes the campaign again at ``wake_at``. ``failure``: why the
        batch came to nothing, counted until one goes well. Raises LostRace."""

    def transition(
        self,
        campaign: Campaign,
        event: CampaignEvent,
        at: datetime,
        *,
        failure: str | None = None,
        pause_cause: PauseCause | None = None,
    ) -> Campaign:
        """Compare and swap state and batch. Raises IllegalTransition, LostRace."""

    def lock_waking(
        self, now: datetime, limit: int, next_wake_at: datetime, latest_wake_at: datetime
    ) -> Sequence[Campaign]:
        """Running campaigns that nobody works on any more; see `Rotations.lock_waking`."""

    def lock_stopped(self, limit: int) -> Sequence[tuple[UUID, Campaign]]:
        """Lock campaigns that paused because their tenant was stopped and whose tenant goes on by now, each
        with the tenant's id, in the order of those."""
