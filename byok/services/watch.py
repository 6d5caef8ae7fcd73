"""How a stop reaches a process: by push, and by looking.

Each process that takes leases is a member of the fleet. One thread hears notices and drops what they are
about; it never waits for anything but Redis. Another looks at PostgreSQL every ``recheck`` period for
stops that this member still owes an acknowledgement for, drops what no notice told it, and writes the
acknowledgements. So a lost push costs a period, and what was dropped when is on record.
"""

import atexit
import os
import socket
import threading
import weakref
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from byok.core.rings import list_lacking
from byok.core.stops import HEARTBEAT, Member, Stop, alive_since
from byok.errors import CacheUnavailable, StoreUnavailable, Unavailable
from byok.logs import get_logger
from byok.ports import Clock, Metrics, Notice, NoticeBoard, Random, Store, Transaction
from byok.services.held import Held
from byok.services.request_log import RequestMover
from byok.services.threads import Spawn, spawn
from byok.services.usage import UsageLedger

log = get_logger(__name__)

_LISTEN_SECONDS = 1.0  # how soon the thread notices that the process ends
_MAX_UNWRITTEN = 1000
_GOODBYE_SECONDS = 2.0
_NAMED = 5  # of the processes that lack a master key


class Watch:
    """The membership of one process."""

    def __init__(
        self,
        *,
        store: Store,
        board: NoticeBoard,
        held: Held,
        metrics: Metrics,
        clock: Clock,
        random: Random,
        recheck: timedelta,
        kind: str,
        usage: UsageLedger,
        master_key_ids: tuple[str, ...],
        request_mover: RequestMover,
        spawn: Spawn = spawn,
    ) -> None:
        self._store = store
        self._board = board
        self._held = held
        self._metrics = metrics
        self._clock = clock
        self._random = random
        self._recheck = recheck
        self._kind = kind
        self._usage = usage
        self._master_key_ids = master_key_ids
        self._request_mover = request_mover
        self._spawn = spawn
        self.forget()

    def forget(self) -> None:
        """Be no member any more: neither threads nor the membership cross a fork."""
        self.member: Member | None = None
        self._joining = threading.Lock()
        self._looking = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self._look_now = threading.Event()
        self._ended = threading.Event()
        self._left = threading.Event()
        self._listening = threading.Event()
        self._has_threads = False
        self._dropped: dict[UUID, tuple[datetime, int]] = {}
        self._seen_ticks: float | None = None

    def join(self) -> bool:
        """Become a member before the first lease is taken; False if this process is one already.

        Without PostgreSQL it is enrolled as soon as that is back.
        """
        if self.member is not None:
            return False
        with self._joining:
            if self.member is not None:
                return False
            self._begin()
            self.member = Member(
                self._random.uuid(), self._kind, socket.gethostname(), os.getpid(), self._master_key_ids
            )
            try:
                self.look()
                self._compare_rings()
            except StoreUnavailable as error:
                log.warning("fleet_not_joined", error=error.message)
            atexit.register(_close, weakref.ref(self))
            try:
                self._spawn("byok-listen", partial(self._listen, self._ended))
                self._spawn("byok-look", partial(self._look_for_ever, self._ended))
            except RuntimeError as error:  # no thread to be had: the next fetch tries again
                self._ended.set()
                self.member = None
                log.warning("fleet_not_joined", error=str(error))
            return True

    def close(self) -> None:
        """Leave the fleet. A PostgreSQL that hangs is not waited for."""
        self._usage.collect()
        self._held.drop_all()
        self._metrics.leases_held(0)
        self._ended.set()
        self._look_now.set()
        if self._has_threads:
            self._left.wait(_GOODBYE_SECONDS)
        else:
            self._leave()
        self.member = None

    def _leave(self) -> None:
        member = self.member
        if member is None:
            return
        try:
            self.look()  # whoever ends owes nothing
            self._usage.try_to_flush(member.id)
            with self._looking, self._store.transaction() as tx:
                self.member = None
                tx.members.leave(member.id)
        except Unavailable as error:
            log.info("member_not_removed", error=error.message)  # it is taken for dead soon

    # --- push -------------------------------------------------------------------------------------

    def _listen(self, ended: threading.Event) -> None:
        while not ended.is_set():
            try:
                with self._board.listen() as subscription:
                    self._look_now.set()  # for what was said before we listened
                    self._listening.set()
                    while not ended.is_set():
                        notice = subscription.next(_LISTEN_SECONDS)
                        if notice is not None:
                            self.hear(notice)
            except CacheUnavailable as error:
                if not ended.is_set():
                    log.warning("notices_not_heard", error=error.message)
            except Exception:
                # Were the thread to end here, this process would hear of nothing any more. Connections
                # that are closed under it at the end of the process are none of its business.
                if not ended.is_set():
                    log.exception("notices_not_heard")
            self._listening.clear()
            ended.wait(_LISTEN_SECONDS)

    def is_listening(self, timeout_seconds: float) -> bool:
        """Whether pushes reach this process, or do within ``timeout_seconds``."""
        return self._listening.wait(timeout_seconds)

    def hear(self, notice: Notice) -> None:
        """Drop what a notice is about."""
        if notice.stop_id is None:
            self._held.drop_views(notice.tenant_id)
            return
        leases = self._held.drop(notice.tenant_id)
        if len(self._dropped) < _MAX_UNWRITTEN:
            self._dropped.setdefault(notice.stop_id, (self._clock.now(), leases))
        self._look_now.set()

    # --- looking ----------------------------------------------------------------------------------

    def _look_for_ever(self, ended: threading.Event) -> None:
        self._has_threads = True
        period_seconds = min(self._recheck, HEARTBEAT).total_seconds()
        left = self._left
        while not ended.is_set():
            self._look_now.wait(period_seconds)
            self._look_now.clear()
            if ended.is_set():
                break
            try:
                self._held.prune()  # first: deadlines don't wait for PostgreSQL
                self._metrics.leases_held(len(self._held.leases))
                self.look()
                if self.member is not None:
                    self._usage.flush_if_due(self.member.id)
                self._request_mover.move_if_due()
            except StoreUnavailable as error:
                log.warning("stops_not_looked_for", error=error.message)
            except Exception:
                # Were the thread to end here, this process would find no stop that was not pushed.
                log.exception("stops_not_looked_for")
        try:
            self._leave()
        finally:
            left.set()

    def look(self) -> int:
        """Drop and acknowledge what this member owes; return how many stops there were.

        Raises:
            StoreUnavailable.
        """
        with self._looking:
            member = self.member
            if member is None:
                return 0
            with self._store.transaction() as tx:
                self._show_life(tx, member)
                owed = tx.stops.list_owed(member.id)
                for stop in owed:
                    dropped_at, leases = self._dropped.get(stop.id) or self._drop(stop)
                    tx.stops.acknowledge(stop.id, member.id, dropped_at, leases)
            for stop in owed:
                dropped_at, leases = self._dropped.pop(stop.id)
                self._metrics.stop_reached(dropped_at - stop.noticed_at)
                log.info("stopped", tenant_id=str(stop.tenant_id), leases=leases, kind=stop.kind.value)
            self._forget_unowed()
            return len(owed)

    def _compare_rings(self) -> None:
        """What this process seals from now on, some other may not be able to open."""
        with self._store.transaction() as tx:
            members = tx.members.list_seen(alive_since(self._clock.now()))
        first = self._master_key_ids[0]
        if lacking := list_lacking(members, first):
            log.error("others_lack_master_key", master_key=first, processes=lacking[:_NAMED])

    def _show_life(self, tx: Transaction, member: Member) -> None:
        ticks = self._clock.ticks()
        if self._seen_ticks is None or ticks - self._seen_ticks >= HEARTBEAT.total_seconds():
            tx.members.enrol(member, self._clock.now())
            self._seen_ticks = ticks

    def _forget_unowed(self) -> None:
        """A notice of a stop that was recorded before this process joined is owed nothing."""
        long_ago = self._clock.now() - timedelta(minutes=1)
        for stop_id, (dropped_at, _) in list(self._dropped.items()):
            if dropped_at < long_ago:
                del self._dropped[stop_id]

    def _drop(self, stop: Stop) -> tuple[datetime, int]:
        leases = self._held.drop(stop.tenant_id)
        # A caller's own look may have dropped them before.
        earlier = None if leases else self._held.last_drop(stop.tenant_id, since=stop.noticed_at)
        self._dropped[stop.id] = earlier or (self._clock.now(), leases)
        return self._dropped[stop.id]


def _close(reference: "weakref.ref[Watch]") -> None:
    """At the end of the process; in a forked child there is nothing to leave unless it joined itself."""
    if (watch := reference()) is not None:
        watch.close()
