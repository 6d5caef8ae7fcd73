"""Re-encryption: the batches of a campaign.

A batch is a second's work. It may run twice, late, or die between any two lines: a row is written only
where the token that was read still stands, and the cursor moves only for the worker that holds the
campaign's latest batch. No transaction is open, in either database, while leases are acquired.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from byok.core.lifecycle import retry_delay
from byok.core.reencryption import (
    Campaign,
    CampaignEvent,
    CampaignState,
    CampaignWork,
    PauseCause,
    Phase,
    Tally,
    UnreadableRow,
    Verdict,
    add_counts,
    judge,
    known_counts,
    list_unreadable,
)
from byok.errors import AccessStopped, ByokError, KmsBackingOff, LostRace, StoreUnavailable, failure_text
from byok.failpoints import FailPoint, reached
from byok.logs import bind, get_logger
from byok.ports import Clock, Metrics, Random, Replacement, Row, RowStore, Store, Transaction
from byok.services.campaigns import CampaignRequests, show_counts
from byok.services.fields import Cipher, token_info
from byok.services.leases import LeaseDesk

log = get_logger(__name__)

PAGE_ROWS = 500
_COUNTED_ROWS = 20_000
_BATCH_SECONDS = 1.0
_VIEW_PAUSE = timedelta(seconds=1)  # this process has not heard of the newest version yet
_NO_PAUSE = timedelta(0)


class Reencryption:
    """Runs campaigns.

    ``settle`` is how long after a rotation some process may still write under the version before it.
    """

    def __init__(
        self,
        *,
        store: Store,
        rows: RowStore,
        desk: LeaseDesk,
        campaigns: CampaignRequests,
        metrics: Metrics,
        clock: Clock,
        random: Random,
        settle: timedelta,
        sweep_period: timedelta,
    ) -> None:
        self._store = store
        self._rows = rows
        self._desk = desk
        self._campaigns = campaigns
        self._metrics = metrics
        self._clock = clock
        self._random = random
        self._settle = settle
        self._sweep_period = sweep_period
        self._claim_period = 2 * sweep_period

    def run(self, campaign_id: UUID, batch: int | None = None) -> Campaign | None:
        """Run a campaign's next batch, if that is ``batch``, and publish the one after it; None if it is not
        to be had.

        Raises:
            ByokError: why this batch came to nothing, after that was recorded.
        """
        with self._store.transaction() as tx:
            claimed = tx.campaigns.claim(campaign_id, batch, self._clock.now(), self._claim_period)
            if claimed is None:
                return None
            work = replace(tx.campaigns.get(campaign_id), campaign=claimed)
        bind(campaign_id=str(campaign_id), tenant=work.tenant, key=work.key)
        try:
            return self._run_batch(work)
        except LostRace:
            return self._campaigns.get(campaign_id).campaign  # paused, or another worker has it
        except AccessStopped as stop:
            return self._pause(work, stop)
        except ByokError as error:
            if not error.retryable:
                self._fail(work, error)
                raise
            self._give_back(work.campaign, error)
            raise
        except Exception as bug:
            self._give_back(work.campaign, bug)
            raise

    # --- a batch ----------------------------------------------------------------------------------

    def _run_batch(self, work: CampaignWork) -> Campaign:
        campaign, pause = work.campaign, _NO_PAUSE
        began_ticks, written = self._clock.ticks(), campaign.tally.rewritten
        while not pause and self._clock.ticks() < began_ticks + _BATCH_SECONDS:
            campaign, pause = self._step(replace(work, campaign=campaign))
            if not campaign.is_open:
                return campaign
            reached(FailPoint.CURSOR_MOVED)
            if campaign.rows_per_second is not None:
                spent = timedelta(seconds=self._clock.ticks() - began_ticks)
                due = timedelta(seconds=(campaign.tally.rewritten - written) / campaign.rows_per_second)
                pause = max(pause, due - spent)
        now = self._clock.now()
        with self._store.transaction() as tx:
            campaign = tx.campaigns.release(campaign, now + pause + self._sweep_period, None)
        reached(FailPoint.BATCH_ENDED)
        self._campaigns.publish(campaign, pause)
        return campaign

    def _step(self, work: CampaignWork) -> tuple[Campaign, timedelta]:
        """One page of the phase that the campaign is at; and how long it has to pause then."""
        if work.campaign.phase is Phase.COUNT_BEFORE:
            return self._count_before(work), _NO_PAUSE
        if work.campaign.phase is Phase.REWRITE:
            active = self._desk.encrypting(work.tenant, work.key)
            if active.version_number < work.campaign.to_version:
                return work.campaign, _VIEW_PAUSE
            return self._rewrite(work), _NO_PAUSE
        pause = self._until_settled(work)
        return (work.campaign, pause) if pause else (self._count_after(work), _NO_PAUSE)

    def _count_before(self, work: CampaignWork) -> Campaign:
        campaign = work.campaign
        page = self._rows.count(work.target.shape, campaign.cursor, _COUNTED_ROWS)
        with self._store.transaction() as tx:
            active_number = _active_number(tx, work)
            counts = add_counts(campaign.before, known_counts(page.counts, active_number))
            campaign = replace(campaign, before=counts, rows=campaign.rows + page.rows, cursor=page.last_id)
            if page.last_id is None:
                campaign = _next_pass(campaign, active_number)
            return tx.campaigns.advance(campaign, self._claimed_until())

    def _rewrite(self, work: CampaignWork) -> Campaign:
        campaign, shape = work.campaign, work.target.shape
        limit = min(PAGE_ROWS, campaign.rows_per_second or PAGE_ROWS)
        page = self._rows.page(shape, campaign.cursor, limit)
        replacements, unreadable = self._rewrap(work, page)
        replaced = self._rows.replace(shape, replacements) if replacements else 0
        reached(FailPoint.ROWS_REPLACED)
        done = Tally(len(page), replaced, len(replacements) - replaced, len(unreadable))
        campaign = replace(
            campaign,
            cursor=page[-1].id if page else campaign.cursor,
            tally=campaign.tally + done,
            this_pass=campaign.this_pass + done,
            unreadable_rows=list_unreadable(campaign.unreadable_rows, unreadable),
        )
        if len(page) < limit:
            campaign = replace(campaign, phase=Phase.COUNT_AFTER, cursor=None, after={})
        with self._store.transaction() as tx:
            campaign = tx.campaigns.advance(campaign, self._claimed_until())
        self._metrics.rows_rewritten(replaced)
        return campaign

    def _rewrap(
        self, work: CampaignWork, page: Sequence[Row]
    ) -> tuple[list[Replacement], list[UnreadableRow]]:
        """New tokens for those of a page that are not under the campaign's version."""
        columns = work.target.shape.columns
        old = [
            (row_place, place, token, columns[place].context(row.id))
            for row_place, row in enumerate(page)
            for place, token in enumerate(row.tokens)
            if token is not None and _number(token) != work.campaign.to_version
        ]
        cipher = Cipher(self._desk, work.tenant, work.key)
        fresh = cipher.rewrap_many([(token, context) for _, _, token, context in old])
        changed: dict[int, list[bytes | None]] = {}
        unreadable = []
        for (row_place, place, token, _), new in zip(old, fresh, strict=True):
            row = page[row_place]
            if new is None:
                unreadable.append(UnreadableRow(columns[place].name, row.id))
            elif new != token:
                changed.setdefault(row_place, list(row.tokens))[place] = new
        return [
            Replacement(page[place].id, page[place].tokens, tuple(new)) for place, new in changed.items()
        ], unreadable

    def _until_settled(self, work: CampaignWork) -> timedelta:
        """How long some process may still write under an older version, having heard of no other."""
        with self._store.transaction() as tx:
            version = tx.versions.get(work.target.key_id, work.campaign.to_version)
        assert version.activated_at is not None  # campaigns go to versions that are or were active
        return max(version.activated_at + self._settle - self._clock.now(), _NO_PAUSE)

    def _count_after(self, work: CampaignWork) -> Campaign:
        campaign = work.campaign
        page = self._rows.count(work.target.shape, campaign.cursor, _COUNTED_ROWS)
        with self._store.transaction() as tx:
            # Locked, so that no rotation comes between the verdict and its commit.
            tx.keys.lock(work.target.key_id)
            active_number = _active_number(tx, work)
            counts = add_counts(campaign.after, known_counts(page.counts, active_number))
            campaign = replace(campaign, after=counts, cursor=page.last_id)
            campaign = tx.campaigns.advance(campaign, self._claimed_until())
            if page.last_id is None:
                campaign = self._conclude(tx, replace(work, campaign=campaign), active_number)
        if not campaign.is_open:
            self._metrics.campaign_ended(campaign.state)
            log.info("campaign_ended", campaign_id=str(campaign.id), state=campaign.state.value)
        return campaign

    def _conclude(self, tx: Transaction, work: CampaignWork, active_number: int) -> Campaign:
        campaign, now = work.campaign, self._clock.now()
        verdict = judge(campaign, active_number)
        if verdict is Verdict.AGAIN:
            return tx.campaigns.advance(_next_pass(campaign, active_number), self._claimed_until())
        if verdict is Verdict.FINISH:
            return self._end(tx, work, CampaignEvent.FINISH, now)
        if verdict is Verdict.UNREADABLE:
            failure = f"{campaign.remaining} values don't open and stay under old versions"
        else:
            failure = f"after {campaign.pass_number} passes something still writes under old versions"
        return self._end(tx, work, CampaignEvent.FAIL, now, failure)

    # --- how it ends, or doesn't ------------------------------------------------------------------

    def _end(
        self,
        tx: Transaction,
        work: CampaignWork,
        event: CampaignEvent,
        now: datetime,
        failure: str | None = None,
    ) -> Campaign:
        """End a campaign, with its evidence in the same transaction."""
        ended = tx.campaigns.transition(work.campaign, event, now, failure=failure)
        action = "campaign.finished" if ended.state is CampaignState.DONE else "campaign.failed"
        tx.audit.append(
            tx.keys.get_by_id(work.target.key_id).tenant_id, now, "reencryption", action,
            key=work.key, campaign=str(ended.id), table=work.target.shape.name, to_version=ended.to_version,
            before=show_counts(ended.before), after=show_counts(ended.after),
            rows=ended.rows, passes=ended.pass_number, rewritten=ended.tally.rewritten,
            conflicts=ended.tally.conflicts, unreadable=ended.this_pass.unreadable, failure=failure,
        )  # fmt: skip
        reached(FailPoint.FINISHING)
        return ended

    def _pause(self, work: CampaignWork, stop: AccessStopped) -> Campaign:
        """The tenant is stopped: so is its campaign, until the sweeper sees that the tenant goes on."""
        now = self._clock.now()
        with self._store.transaction() as tx:
            paused = tx.campaigns.transition(
                work.campaign, CampaignEvent.PAUSE, now, failure=stop.message, pause_cause=PauseCause.STOP
            )
            tx.audit.append(
                tx.keys.get_by_id(work.target.key_id).tenant_id, now, "reencryption", "campaign.paused",
                key=work.key, campaign=str(paused.id), why=stop.code,
            )  # fmt: skip
        return paused

    def _fail(self, work: CampaignWork, error: ByokError) -> None:
        failure = failure_text(error)
        try:
            with self._store.transaction() as tx:
                latest = replace(work, campaign=tx.campaigns.get(work.campaign.id).campaign)
                if latest.campaign.batch == work.campaign.batch:
                    self._end(tx, latest, CampaignEvent.FAIL, self._clock.now(), failure)
        except LostRace:
            return
        self._metrics.campaign_ended(CampaignState.FAILED)

    def _give_back(self, campaign: Campaign, error: Exception) -> None:
        """Leave a campaign to the sweeper. An outage may last: it never fails a campaign."""
        delay = retry_delay(campaign.failures + 1, self._random.fraction())
        if isinstance(error, KmsBackingOff):
            delay = timedelta(seconds=error.retry_after_seconds)
        try:
            with self._store.transaction() as tx:
                tx.campaigns.release(campaign, self._clock.now() + delay, failure_text(error))
        except (LostRace, StoreUnavailable) as why:
            log.warning("claim_lapses", campaign_id=str(campaign.id), error=why.message)

    def _claimed_until(self) -> datetime:
        return self._clock.now() + self._claim_period


def _next_pass(campaign: Campaign, active_number: int) -> Campaign:
    """The next pass, to the version that is active now."""
    return replace(
        campaign,
        phase=Phase.REWRITE,
        cursor=None,
        pass_number=campaign.pass_number + 1,
        to_version=max(campaign.to_version, active_number),
        this_pass=Tally(),
        unreadable_rows=(),
    )


def _active_number(tx: Transaction, work: CampaignWork) -> int:
    active = tx.versions.find_active(work.target.key_id)
    return work.campaign.to_version if active is None else active.number


def _number(token: bytes) -> int | None:
    try:
        return token_info(token).version_number
    except ByokError:
        return None
