"""Resealing: the batches of a reseal.

A batch is a second's work. It may run twice, late, or die between any two lines: a page's new seals and the
cursor behind it are one commit, and only of the worker that holds the reseal's latest batch. Records that
somebody wrote meanwhile keep what he wrote. What is opened is the wrapped key, which the customer's KMS alone
unwraps: no secret is in sight, and no KMS is asked.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from byok.core.lifecycle import retry_delay
from byok.core.model import SealedBox
from byok.core.resealing import (
    KINDS,
    RecordKind,
    Reseal,
    ResealState,
    SealedRecord,
    Tally,
    UnreadableRecord,
    Verdict,
    judge,
    list_unreadable,
    next_kind,
    next_pass,
)
from byok.core.rings import list_sealing_elsewhere
from byok.core.stops import alive_since
from byok.crypto.keyring import MasterKeyRing
from byok.errors import LostRace, SealBroken, StoreUnavailable, UnknownMasterKey, failure_text
from byok.failpoints import FailPoint, reached
from byok.logs import bind, get_logger
from byok.ports import Clock, Metrics, Random, Store, Transaction
from byok.services.records import reseal as seal_anew
from byok.services.reseals import ResealRequests

log = get_logger(__name__)

# Records in one transaction. They are locked while its UPDATE runs, and a rotation may wait for one of them.
PAGE_RECORDS = 500
_BATCH_SECONDS = 1.0
_LOOK_AGAIN = timedelta(seconds=5)  # whether other processes seal under the first key by now
_NO_PAUSE = timedelta(0)
_NAMED = 3


class Resealing:
    """Runs reseals."""

    def __init__(
        self,
        *,
        store: Store,
        master_keys: MasterKeyRing,
        requests: ResealRequests,
        metrics: Metrics,
        clock: Clock,
        random: Random,
        sweep_period: timedelta,
    ) -> None:
        self._store = store
        self._master_keys = master_keys
        self._requests = requests
        self._metrics = metrics
        self._clock = clock
        self._random = random
        self._sweep_period = sweep_period
        self._claim_period = 2 * sweep_period

    def run(self, reseal_id: UUID, batch: int | None = None) -> Reseal | None:
        """Run a reseal's next batch, if that is ``batch``, and publish the one after it; None if it is not
        to be had, or not for a process with this ring.

        Raises:
            ByokError: why this batch came to nothing, after that was recorded.
        """
        bind(reseal_id=str(reseal_id))
        with self._store.transaction() as tx:
            wanted = tx.reseals.get(reseal_id).master_key_id
            if wanted != self._master_keys.primary_id:
                # The sweeper publishes it again, until a worker takes it that seals under that key.
                log.warning(
                    "reseal_left_to_others", master_key=wanted, seals_with=self._master_keys.primary_id
                )
                return None
            reseal = tx.reseals.claim(reseal_id, batch, self._clock.now(), self._claim_period)
        if reseal is None:
            return None
        reached(FailPoint.CLAIMED)
        try:
            return self._run_batch(reseal)
        except LostRace:
            return self._requests.get(reseal_id)  # superseded, or another worker has it
        except Exception as error:
            self._give_back(reseal, error)
            raise

    def _run_batch(self, reseal: Reseal) -> Reseal:
        pause, end_ticks = _NO_PAUSE, self._clock.ticks() + _BATCH_SECONDS
        while not pause and self._clock.ticks() < end_ticks:
            if reseal.kind is None:
                reseal, pause = self._conclude(reseal)
            else:
                reseal = self._walk(reseal, reseal.kind)
            if not reseal.is_running:
                return reseal
            reached(FailPoint.CURSOR_MOVED)
        with self._store.transaction() as tx:
            reseal = tx.reseals.release(reseal, self._clock.now() + pause + self._sweep_period, None)
        reached(FailPoint.BATCH_ENDED)
        self._requests.publish(reseal, pause)
        return reseal

    def _walk(self, reseal: Reseal, kind: RecordKind) -> Reseal:
        """One page of a kind."""
        with self._store.transaction() as tx:
            page = tx.sealed[kind].page(reseal.cursor, PAGE_RECORDS, not_under=reseal.master_key_id)
        seals, unreadable = self._seal_anew(kind, page.records)
        with self._store.transaction() as tx:
            replaced = tx.sealed[kind].replace_seals(seals) if seals else 0
            done = Tally(replaced, len(seals) - replaced, len(unreadable))
            reseal = tx.reseals.advance(
                replace(
                    reseal,
                    kind=next_kind(kind) if page.last is None else kind,
                    cursor=page.last,
                    tally=reseal.tally + done,
                    this_pass=reseal.this_pass + done,
                    unreadable_records=list_unreadable(reseal.unreadable_records, unreadable),
                ),
                self._clock.now() + self._claim_period,
            )
            reached(FailPoint.RECORDS_RESEALED)
        if reseal.pass_number == 1:  # a later pass finds the same again
            for one in unreadable:
                self._raise_alarm(one)
        return reseal

    def _seal_anew(
        self, kind: RecordKind, records: Sequence[SealedRecord]
    ) -> tuple[list[tuple[SealedRecord, SealedBox]], list[UnreadableRecord]]:
        seals, unreadable = [], []
        for record in records:
            try:
                seals.append((record, seal_anew(self._master_keys, kind, record)))
            except (SealBroken, UnknownMasterKey) as error:
                unreadable.append(UnreadableRecord(kind, record.place, error.code))
        return seals, unreadable

    def _raise_alarm(self, one: UnreadableRecord) -> None:
        self._metrics.integrity_alarm()
        log.error("record_does_not_open", kind=one.kind.value, place=str(one.place), why=one.why)

    def _conclude(self, reseal: Reseal) -> tuple[Reseal, timedelta]:
        """Count what is left at the end of a pass; and how long to pause then."""
        now = self._clock.now()
        claimed_until = now + self._claim_period
        with self._store.transaction() as tx:
            remaining = sum(tx.sealed[kind].count_not_under(reseal.master_key_id) for kind in KINDS)
            elsewhere = list_sealing_elsewhere(tx.members.list_seen(alive_since(now)), reseal.master_key_id)
            verdict = judge(reseal, remaining, elsewhere)
            if verdict is Verdict.AGAIN:
                return tx.reseals.advance(next_pass(reseal), claimed_until), _NO_PAUSE
            if verdict is Verdict.WAIT:
                waiting = replace(reseal, waits_for=_reason_to_wait(remaining, elsewhere))
                return tx.reseals.advance(waiting, claimed_until), _LOOK_AGAIN
            ended = self._end(tx, reseal, remaining)
        log.info("reseal_ended", state=ended.state.value, resealed=ended.tally.resealed)
        return ended, _NO_PAUSE

    def _end(self, tx: Transaction, reseal: Reseal, remaining: int) -> Reseal:
        state, failure = ResealState.DONE, None
        if remaining:
            state, failure = ResealState.FAILED, f"records that don't open, and stay as they are: {remaining}"
        ended = tx.reseals.end(reseal, state, self._clock.now(), failure)
        reached(FailPoint.FINISHING)
        return ended

    def _give_back(self, reseal: Reseal, error: Exception) -> None:
        """Leave a reseal to the sweeper. Trouble may last: it never fails a reseal."""
        delay = retry_delay(reseal.failures + 1, self._random.fraction())
        try:
            with self._store.transaction() as tx:
                tx.reseals.release(reseal, self._clock.now() + delay, failure_text(error))
        except (LostRace, StoreUnavailable) as why:
            log.warning("claim_lapses", error=why.message)


def _reason_to_wait(remaining: int, elsewhere: Sequence[str]) -> str:
    if elsewhere:
        more = f" and {len(elsewhere) - _NAMED} more" if len(elsewhere) > _NAMED else ""
        return f"{', '.join(elsewhere[:_NAMED])}{more}: seals under another master key, restart it"
    return f"records that others hold: {remaining}"
