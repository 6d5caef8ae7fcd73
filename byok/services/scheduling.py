"""What Beat sets off: due keys, requests that got lost, and the fan-outs."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

from byok.core.lifecycle import latest_wake_time
from byok.core.metric_list import SweeperFinding
from byok.core.model import (
    Job,
    OpenWork,
    VersionEvent,
)
from byok.core.stops import TAKEN_FOR_DEAD
from byok.errors import QueueUnavailable
from byok.failpoints import FailPoint, reached
from byok.logs import get_logger
from byok.ports import Clock, Metrics, Store, TaskQueue
from byok.services.campaigns import CampaignRequests
from byok.services.dispatching import Dispatcher
from byok.services.fanout import FanOut
from byok.services.periods import Periods
from byok.services.request_log import RequestMover
from byok.services.requests import RotationRequests
from byok.services.suspension import Suspensions
from byok.services.webhooks import WebhookDeliveries

log = get_logger(__name__)

_BATCH = 100
# The sweeper publishes while no more rotations than this wait: with a longer queue a request that nobody took
# yet is more likely waiting than lost, and publishing it again would only lengthen the queue.
_MAX_BACKLOG = 1000
_LONGEST_PAUSE = 20  # sweeps until a rotation is published once more, however long the queue
_FORGET_MEMBERS_AFTER = 10 * TAKEN_FOR_DEAD  # meanwhile `byok tenant show` can name them


class Scheduling:
    """Finds work by what the tables say; a tick that comes twice finds nothing the second time."""

    def __init__(
        self,
        store: Store,
        dispatcher: Dispatcher,
        requests: RotationRequests,
        suspensions: Suspensions,
        campaigns: CampaignRequests,
        fan_out: FanOut,
        queue: TaskQueue,
        metrics: Metrics,
        clock: Clock,
        periods: Periods,
        webhooks: WebhookDeliveries,
        request_mover: RequestMover,
    ) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._requests = requests
        self._suspensions = suspensions
        self._campaigns = campaigns
        self._request_mover = request_mover
        self._queue = queue
        self._metrics = metrics
        self._clock = clock
        self._periods = periods
        self._jobs: Mapping[Job, tuple[timedelta, Callable[[], int]]] = {
            Job.DISPATCH_DUE: (periods.dispatch_due, self.dispatch_due),
            Job.SWEEP: (periods.sweep, self.sweep),
            # Half a tick: one that comes late must not make the next one, which is in time, come too early.
            # What is found twice is published once, since each tenant and key has a time of its own.
            Job.PROBE: (periods.probe_tick / 2, fan_out.publish_probes),
            Job.VALIDATE: (periods.validate_tick / 2, fan_out.publish_validations),
            Job.SYNC_ROTATION: (periods.sync_tick / 2, fan_out.publish_syncs),
            Job.WATCH: (periods.watch_tick / 2, fan_out.publish_watches),
            Job.WEBHOOKS: (periods.webhooks / 2, webhooks.run),
        }

    def tick(self, job: Job) -> int | None:
        """Run a job if its period has passed since it last began; return what it did, None if it is not
        due or another Beat's tick was first. A run whose worker died is made up for after a minute.

        Raises:
            StoreUnavailable.
        """
        period, run = self._jobs[job]
        began_at = self._clock.now()
        with self._store.transaction() as tx:
            if not tx.ticks.begin(job, began_at, period):
                return None
        count = run()
        with self._store.transaction() as tx:
            tx.ticks.end(job, began_at, self._clock.now())
        return count

    def dispatch_due(self) -> int:
        """Request rotations of keys that are due; return how many. See `Dispatcher`."""
        return self._dispatcher.run()

    def sweep(self) -> int:
        """Find what got lost and set it going again; return how much there was.

        Open rotations that nobody works on: their message was lost, their worker died, or their retry is
        due. Pending versions that no open rotation will ever finish. And campaigns, likewise.
        """
        self._look_after_fleet()
        return self._republish() + self._reject_orphans() + self._look_after_campaigns()

    def _look_after_campaigns(self) -> int:
        if found := self._campaigns.sweep():
            self._metrics.sweeper_found(SweeperFinding.CAMPAIGN, found)
        return found

    def _look_after_fleet(self) -> None:
        """Purge what a stop could not, and forget dead members and old requests."""
        if made_up := self._suspensions.make_up_purges():
            self._metrics.sweeper_found(SweeperFinding.PURGED, made_up)
        with self._store.transaction() as tx:
            tx.members.remove_unseen(self._clock.now() - _FORGET_MEMBERS_AFTER)
        self._request_mover.remove_old()

    def _republish(self) -> int:
        total = 0
        try:
            backlog = self._queue.backlog()
        except QueueUnavailable as error:
            log.warning("sweep_waits_for_broker", error=error.message)
            return 0
        # In a long queue what nobody took yet is waiting. What somebody had is not, but in the end of it.
        begun_only = backlog >= _MAX_BACKLOG
        room = _MAX_BACKLOG if begun_only else _MAX_BACKLOG - backlog
        pause = self._periods.sweep * min(_LONGEST_PAUSE, 1 + backlog // _MAX_BACKLOG)
        while room > 0 and (waking := self._take_waking(min(room, _BATCH), pause, begun_only=begun_only)):
            reached(FailPoint.SWEEP_RECORDED)
            self._requests.publish(*waking)
            total += len(waking)
            room -= len(waking)
        if total:
            self._metrics.sweeper_found(SweeperFinding.REPUBLISHED, total)
            log.info("sweep_published", count=total)
        return total

    def _take_waking(self, limit: int, pause: timedelta, *, begun_only: bool) -> Sequence[OpenWork]:
        now = self._clock.now()
        latest = latest_wake_time(now, self._periods.sweep)
        with self._store.transaction() as tx:
            return tx.rotations.lock_waking(now, limit, now + pause, latest, begun_only=begun_only)

    def _reject_orphans(self) -> int:
        """Reject pending versions whose rotation has ended: nothing of ours leaves such, a hand might."""
        now = self._clock.now()
        with self._store.transaction() as tx:
            orphans = tx.versions.list_orphans(_BATCH)
            for version in orphans:
                key = tx.keys.get_by_id(version.key_id)
                tx.versions.transition([version], VersionEvent.REJECT, now)
                tx.audit.append(
                    key.tenant_id, now, "sweeper", "version.rejected",
                    key=key.name, version=version.number, rotation=str(version.rotation_id),
                    failure="its rotation had ended",
                )  # fmt: skip
        if orphans:
            self._metrics.sweeper_found(SweeperFinding.ORPHAN_REJECTED, len(orphans))
            log.warning("orphans_rejected", count=len(orphans))
        return len(orphans)
