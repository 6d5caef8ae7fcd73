"""Reseals as people ask for them, and those that nobody works on.

The row is the reseal. A message only wakes a worker up, and names the batch that it is for: doubled or late,
it finds another batch and does nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from byok.core.lifecycle import latest_wake_time
from byok.core.resealing import KINDS, Reseal, ResealState
from byok.core.rings import list_lacking, list_sealing
from byok.core.stops import Member, alive_since
from byok.crypto.keyring import MasterKeyRing
from byok.errors import NotReady, QueueUnavailable
from byok.failpoints import FailPoint, reached
from byok.logs import get_logger
from byok.ports import Clock, Random, Store, TaskQueue

log = get_logger(__name__)

_AT_ONCE = timedelta(0)
_NAMED = 5
_WORKER = "worker"  # the kind of member that runs tasks


@dataclass(frozen=True, slots=True)
class Asked:
    """The reseal that serves a request, whether it was made for it, and how many living workers seal under
    its key: without one it waits."""

    reseal: Reseal
    is_new: bool
    workers: int


class ResealRequests:
    """Starts reseals, and sets those going again that nobody works on for ``sweep_period``."""

    def __init__(
        self,
        store: Store,
        queue: TaskQueue,
        master_keys: MasterKeyRing,
        clock: Clock,
        random: Random,
        sweep_period: timedelta,
    ) -> None:
        self._store = store
        self._queue = queue
        self._master_keys = master_keys
        self._clock = clock
        self._random = random
        self._sweep_period = sweep_period

    def start(self, *, requested_by: str) -> Asked:
        """Have all records sealed under the first key of this process's ring. A reseal that runs already
        serves the request, too.

        Raises:
            NotReady: a living process can't open what that key seals; naming some of them.
        """
        master_key_id, now = self._master_keys.primary_id, self._clock.now()
        with self._store.transaction() as tx:
            members = tx.members.list_seen(alive_since(now))
            _require_known(members, master_key_id)
            reseal = Reseal(
                id=self._random.uuid(),
                master_key_id=master_key_id,
                state=ResealState.RUNNING,
                requested_by=requested_by,
                requested_at=now,
                total=sum(tx.sealed[kind].count_not_under(master_key_id) for kind in KINDS),
            )
            reseal, is_new = tx.reseals.start(reseal, now + self._sweep_period)
        if is_new:
            reached(FailPoint.RESEAL_RECORDED)
            self.publish(reseal)
        workers = [member for member in members if member.kind == _WORKER]
        return Asked(reseal, is_new, len(list_sealing(workers, master_key_id)))

    def get(self, reseal_id: UUID) -> Reseal:
        """A reseal as it stands now.

        Raises:
            NotFound, StoreUnavailable.
        """
        with self._store.transaction() as tx:
            return tx.reseals.get(reseal_id)

    def sweep(self) -> int:
        """Publish a reseal again that nobody works on; return how many."""
        now = self._clock.now()
        with self._store.transaction() as tx:
            waking = tx.reseals.lock_waking(
                now, 1, now + self._sweep_period, latest_wake_time(now, self._sweep_period)
            )
        for reseal in waking:
            self.publish(reseal)
        return len(waking)

    def publish(self, reseal: Reseal, delay: timedelta = _AT_ONCE) -> None:
        """Publish the next batch; a broker that is down delays it to the next sweep."""
        try:
            self._queue.reseal(reseal, delay)
        except QueueUnavailable as error:
            log.warning("reseal_not_published", reseal_id=str(reseal.id), error=error.message)


def _require_known(members: Sequence[Member], master_key_id: str) -> None:
    lacking = list_lacking(members, master_key_id)
    if lacking:
        more = f" and {len(lacking) - _NAMED} more" if len(lacking) > _NAMED else ""
        raise NotReady(
            f"master key {master_key_id!r} is not in the ring of {', '.join(lacking[:_NAMED])}{more}",
            remedy="add it to BYOK_MASTER_KEYS there, behind the first, and restart: docs/master-keys.md",
        )
