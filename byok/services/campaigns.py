"""Campaigns as people and other services ask for them: start, pause, go on, cancel; and those that are owed.

The row is the campaign. A message only wakes a worker up, and names the batch that it is for: doubled or
late, it finds another batch and does nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from byok.core.lifecycle import latest_wake_time
from byok.core.reencryption import (
    Campaign,
    CampaignEvent,
    CampaignState,
    CampaignWork,
    PauseCause,
    Target,
    VersionCounts,
)
from byok.errors import NotReady, OutOfBounds, QueueUnavailable, UnknownTarget
from byok.failpoints import FailPoint, reached
from byok.logs import get_logger
from byok.ports import Clock, Random, Store, TaskQueue, Transaction

log = get_logger(__name__)

_BATCH = 100
_AT_ONCE = timedelta(0)
_COMPROMISE = "compromise"  # who asks for a campaign that a compromise makes necessary


@dataclass(frozen=True, slots=True)
class Started:
    """A campaign that serves a request, and whether it was made for it."""

    work: CampaignWork
    is_new: bool


class CampaignRequests:
    """Starts and steers campaigns.

    ``sweep_period``: a campaign that nobody works on for so long is published again by the sweeper.
    """

    def __init__(
        self, store: Store, queue: TaskQueue, clock: Clock, random: Random, sweep_period: timedelta
    ) -> None:
        self._store = store
        self._queue = queue
        self._clock = clock
        self._random = random
        self._sweep_period = sweep_period

    def start(
        self,
        tenant_name: str,
        key_name: str,
        *,
        requested_by: str,
        target_id: UUID | None = None,
        rows_per_second: int | None = None,
        allow_unreadable: bool = False,
    ) -> Sequence[Started]:
        """Start a campaign over each target of a key, or over one of them. A campaign that is open already
        serves the request, too, as it was asked for first.

        Raises:
            UnknownTenant, UnknownKey, UnknownTarget; OutOfBounds; NotReady: the key has no active version.
        """
        if rows_per_second is not None and rows_per_second < 1:
            raise OutOfBounds(f"{rows_per_second} rows a second never end", remedy="choose 1 or more")
        with self._store.transaction() as tx:
            tenant = tx.tenants.get(tenant_name)
            key = tx.keys.get(tenant, key_name)
            targets = [one for one in tx.targets.list(key.id) if target_id in (None, one.id)]
            if not targets:
                raise _no_target(tenant_name, key_name, target_id)
            started = [
                self._record(tx, target, requested_by, rows_per_second, allow_unreadable)
                for target in targets
            ]
        self._publish_new(started)
        return started

    def _record(
        self,
        tx: Transaction,
        target: Target,
        requested_by: str,
        rows_per_second: int | None = None,
        allow_unreadable: bool = False,
    ) -> Started:
        key = tx.keys.get_by_id(target.key_id)
        active = tx.versions.find_active(key.id)
        if active is None:
            raise NotReady(f"key {key.name!r} has no active version: there is nothing to re-encrypt to")
        now = self._clock.now()
        new = Campaign(
            id=self._random.uuid(),
            target_id=target.id,
            state=CampaignState.RUNNING,
            to_version=active.number,
            requested_by=requested_by,
            requested_at=now,
            rows_per_second=rows_per_second,
            allow_unreadable=allow_unreadable,
        )
        campaign, is_new = tx.campaigns.start(new, now + self._sweep_period)
        if is_new:
            tx.audit.append(
                key.tenant_id, now, requested_by, "campaign.started",
                key=key.name, campaign=str(campaign.id), table=target.shape.name, to_version=active.number,
            )  # fmt: skip
        return Started(tx.campaigns.get(campaign.id), is_new)

    def start_owed(self) -> int:
        """Start a campaign over each target whose key had a compromised version replaced, unless there was
        one since; return how many. Whoever comes twice, or after a death, finds what is still owed."""
        with self._store.transaction() as tx:
            owed = tx.targets.lock_owed(_BATCH)
            # Audit heads are locked tenant by tenant: in one order, or two sweepers could deadlock.
            by_tenant = sorted(owed, key=lambda pair: tx.keys.get_by_id(pair[0].key_id).tenant_id)
            started = [self._record(tx, target, _COMPROMISE) for target, _ in by_tenant]
        self._publish_new(started)
        return sum(one.is_new for one in started)

    def _publish_new(self, started: Sequence[Started]) -> None:
        if started:
            reached(FailPoint.CAMPAIGN_RECORDED)
        for one in started:
            if one.is_new:
                self.publish(one.work.campaign)

    def pause(self, campaign_id: UUID, *, actor: str) -> CampaignWork:
        """Stop a campaign after the page it is at, until `resume`.

        Raises:
            UnknownCampaign, IllegalTransition.
        """
        return self._steer(campaign_id, CampaignEvent.PAUSE, actor, "campaign.paused", PauseCause.REQUEST)

    def resume(self, campaign_id: UUID, *, actor: str) -> CampaignWork:
        """Let a paused campaign go on where it was.

        Raises:
            UnknownCampaign, IllegalTransition.
        """
        work = self._steer(campaign_id, CampaignEvent.RESUME, actor, "campaign.resumed")
        self.publish(work.campaign)
        return work

    def cancel(self, campaign_id: UUID, *, actor: str) -> CampaignWork:
        """End a campaign where it is. What it has rewritten stays rewritten.

        Raises:
            UnknownCampaign, IllegalTransition.
        """
        return self._steer(campaign_id, CampaignEvent.CANCEL, actor, "campaign.cancelled")

    def _steer(
        self,
        campaign_id: UUID,
        event: CampaignEvent,
        actor: str,
        action: str,
        pause_cause: PauseCause | None = None,
    ) -> CampaignWork:
        now = self._clock.now()
        with self._store.transaction() as tx:
            campaign = tx.campaigns.lock(campaign_id)
            tx.campaigns.transition(campaign, event, now, pause_cause=pause_cause)
            work = tx.campaigns.get(campaign_id)
            key = tx.keys.get_by_id(work.target.key_id)
            tx.audit.append(
                key.tenant_id, now, actor, action,
                key=key.name, campaign=str(campaign_id), table=work.target.shape.name,
            )  # fmt: skip
        return work

    def get(self, campaign_id: UUID) -> CampaignWork:
        """A campaign as it stands now.

        Raises:
            UnknownCampaign, StoreUnavailable.
        """
        with self._store.transaction() as tx:
            return tx.campaigns.get(campaign_id)

    def proven_version(self, tenant_name: str, key_name: str) -> int:
        """The version below which no registered table of a key holds a value: what the versions before it
        protected is nowhere any more, as far as anybody registered it.

        Raises:
            UnknownTenant, UnknownKey; UnknownTarget: nothing is registered; NotReady: naming a table that
                no campaign has finished with, or not without values that don't open.
        """
        with self._store.transaction() as tx:
            key = tx.keys.get(tx.tenants.get(tenant_name), key_name)
            targets = tx.targets.list(key.id)
            proven = [(target, tx.campaigns.find_proven(target.id)) for target in targets]
        if not proven:
            raise _no_target(tenant_name, key_name)
        for target, number in proven:
            if number is None:
                raise NotReady(
                    f"no campaign has proven {target.shape.name} free of older versions",
                    remedy=f"byok reencrypt start {tenant_name} {key_name} --target {target.id} --wait",
                )
        return min(number for _, number in proven if number is not None)

    def latest(self, limit: int) -> Sequence[CampaignWork]:
        """The latest campaigns, newest first."""
        with self._store.transaction() as tx:
            return tx.campaigns.list_latest(limit)

    def sweep(self) -> int:
        """Set campaigns going again: those owed, those whose tenant goes on, those that nobody works on."""
        return self._republish() + self._resume_stopped() + self.start_owed()

    def _resume_stopped(self) -> int:
        now = self._clock.now()
        with self._store.transaction() as tx:
            resumed = [
                (tenant_id, tx.campaigns.transition(campaign, CampaignEvent.RESUME, now))
                for tenant_id, campaign in tx.campaigns.lock_stopped(_BATCH)
            ]
            for tenant_id, campaign in resumed:
                tx.audit.append(tenant_id, now, "sweep", "campaign.resumed", campaign=str(campaign.id))
        for _, campaign in resumed:
            self.publish(campaign)
        return len(resumed)

    def _republish(self) -> int:
        now = self._clock.now()
        with self._store.transaction() as tx:
            waking = tx.campaigns.lock_waking(
                now, _BATCH, now + self._sweep_period, latest_wake_time(now, self._sweep_period)
            )
        for campaign in waking:
            if not self.publish(campaign):
                break
        return len(waking)

    def publish(self, campaign: Campaign, delay: timedelta = _AT_ONCE) -> bool:
        """Publish the next batch; a broker that is down delays it to the next sweep. Whether it is up."""
        try:
            self._queue.reencrypt(campaign, delay)
        except QueueUnavailable as error:
            log.warning("campaign_not_published", campaign_id=str(campaign.id), error=error.message)
            return False
        return True


def _no_target(tenant_name: str, key_name: str, target_id: UUID | None = None) -> UnknownTarget:
    if target_id is None:
        return UnknownTarget(
            f"key {key_name!r} of tenant {tenant_name!r} has no table registered",
            remedy=f"byok reencrypt register {tenant_name} {key_name} --help",
        )
    return UnknownTarget(
        f"key {key_name!r} of tenant {tenant_name!r} has no target {target_id}",
        remedy=f"byok reencrypt targets {tenant_name} {key_name} shows them",
    )


def show_counts(counts: VersionCounts) -> str:
    """Counts by version in one line, for the audit log: ``v1 20, v2 4980``; what is no token is ``v0``."""
    return ", ".join(f"v{number} {count}" for number, count in sorted(counts.items())) or "none"
