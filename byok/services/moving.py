"""Moves to another KMS key: their batches, the change-over, and the rotations after it.

A batch is a second's work. It may run twice, late, or die between any two lines: what it keeps is fenced by
the move's latest batch, and until the change-over nothing that anybody uses is touched. No transaction is
open across a KMS call.
"""

from collections.abc import Sequence
from datetime import UTC, timedelta
from uuid import UUID

from byok.core.lifecycle import retry_delay
from byok.core.model import (
    KeyVersion,
    OpenWork,
    RequestOutcome,
    RotationReason,
    Tenant,
    TenantState,
)
from byok.core.move_rights import command, provisions
from byok.core.moves import (
    KmsKeyMove,
    MoveEvent,
    MoveState,
    SecondWrapping,
    Wait,
    WaitCause,
)
from byok.errors import (
    ByokError,
    KmsAccessRevoked,
    LostRace,
    StoreBusy,
    StoreUnavailable,
    TenantNotActive,
    failure_text,
)
from byok.failpoints import FailPoint, reached
from byok.logs import bind, get_logger
from byok.ports import Clock, Random, Store, Transaction
from byok.services.move_steps import steer
from byok.services.moves import MoveRequests
from byok.services.releases import require_no_older_release
from byok.services.requests import RotationRequests
from byok.services.rewrapping import Rewrapper, SourceRefused
from byok.services.suspension import Suspensions, require_active

log = get_logger(__name__)

_ACTOR = "move"
_BATCH_SECONDS = 1.0
_PAGE = 100  # versions, read at once
_KEPT = 10  # are stored at once: as many are wrapped anew, at most, where a worker dies
_ROTATIONS_AT_ONCE = 100  # of one tenant, a sweeper period
# Somebody works on what is in the way, and wants to see it go on.
_LONGEST_WAIT = timedelta(minutes=1)


class Moving:
    """Runs moves."""

    def __init__(
        self,
        *,
        store: Store,
        rewrapper: Rewrapper,
        moves: MoveRequests,
        requests: RotationRequests,
        suspensions: Suspensions,
        clock: Clock,
        random: Random,
        sweep_period: timedelta,
    ) -> None:
        self._store = store
        self._rewrapper = rewrapper
        self._moves = moves
        self._requests = requests
        self._suspensions = suspensions
        self._clock = clock
        self._random = random
        self._sweep_period = sweep_period
        self._claim_period = 2 * sweep_period

    def run(self, move_id: UUID, batch: int | None = None) -> KmsKeyMove | None:
        """Run a move's next batch, if that is ``batch``, and publish the one after it; None if it is not to
        be had. What comes to nothing is tried again, until it goes well or somebody rolls the move back.

        Raises:
            StoreUnavailable: the claim lapses.
        """
        with self._store.transaction() as tx:
            move = tx.moves.claim(move_id, batch, self._clock.now(), self._claim_period)
            if move is None:
                return None
            tenant = tx.tenants.get_by_id(move.tenant_id)
        bind(move_id=str(move_id), tenant=tenant.name)
        try:
            return self._run(move, tenant)
        except LostRace:
            return self._moves.status(tenant.name).move  # steered, or another worker has it
        except SourceRefused as stop:
            self._suspensions.revoked(tenant, stop.refusal, _ACTOR)
            return self._give_back(move, Wait(WaitCause.STOP, failure_text(stop.refusal)))
        except StoreUnavailable as error:
            if not isinstance(error, StoreBusy):
                raise
            return self._give_back(move, _wait_for(move, error))
        except ByokError as error:
            return self._give_back(move, _wait_for(move, error))
        except Exception as bug:
            self._give_back(move, Wait(WaitCause.TROUBLE, failure_text(bug), "look at the worker's log"))
            raise

    def _run(self, move: KmsKeyMove, tenant: Tenant) -> KmsKeyMove:
        if tenant.state is TenantState.OFFBOARDED:
            return self._end(move)
        require_active(tenant)
        if move.state is MoveState.COMMITTED:
            return self._rotate(move, tenant)
        return self._wrap(move)

    # --- under the old KMS key --------------------------------------------------------------------

    def _wrap(self, move: KmsKeyMove) -> KmsKeyMove:
        give_up_ticks = self._clock.ticks() + _BATCH_SECONDS
        while self._clock.ticks() < give_up_ticks:
            with self._store.transaction() as tx:
                page = self._unwrapped(tx, move, _PAGE)
            if page:
                self._wrap_page(move, page, give_up_ticks)
            elif move.hold:
                return self._hold(move)
            elif committed := self._commit(move):
                return committed
        return self._release(move, self._sweep_period)

    def _unwrapped(self, tx: Transaction, move: KmsKeyMove, limit: int) -> Sequence[KeyVersion]:
        return tx.moves.list_unwrapped(move, self._rewrapper.master_key_id, limit)

    def _wrap_page(self, move: KmsKeyMove, page: Sequence[KeyVersion], give_up_ticks: float) -> None:
        for start in range(0, len(page), _KEPT):
            if self._clock.ticks() < give_up_ticks:
                self._wrap_some(move, page[start : start + _KEPT])

    def _wrap_some(self, move: KmsKeyMove, page: Sequence[KeyVersion]) -> None:
        """Wrap versions, and keep what was done even where one of them comes to nothing."""
        wrapped: list[SecondWrapping] = []
        try:
            for version in page:
                wrapped.append(self._rewrapper.rewrap(move, version))  # noqa: PERF401  # kept if the next fails
        finally:
            if wrapped:
                reached(FailPoint.MOVE_WRAPPING)
                with self._store.transaction() as tx:
                    # First: it locks the move against whoever rolls it back.
                    tx.moves.renew(move, self._clock.now() + self._claim_period)
                    tx.moves.put_wrappings(wrapped)
                reached(FailPoint.MOVE_WRAPPED)

    def _hold(self, move: KmsKeyMove) -> KmsKeyMove:
        with self._store.transaction() as tx:
            return steer(tx, move, MoveEvent.HOLD, _ACTOR, "held", self._clock.now())

    def _commit(self, move: KmsKeyMove) -> KmsKeyMove | None:
        """Change over to the new KMS key; None if there is a version again without a second wrapping.

        From this commit on everybody reads the new connection and the new records, or, with a generation
        that is over, neither.
        """
        with self._store.transaction() as tx:
            # Against whoever inserts a version that it made by the old connection.
            tenant = tx.tenants.lock(move.tenant_id)
            # Before its wrappings: who rolls the move back takes both in this order, too.
            tx.moves.renew(move, self._clock.now() + self._claim_period)
            # Before their versions, as rotations do, which take several at a time.
            tx.keys.lock_all([key.id for key in tx.keys.list(tenant.id)])
            require_active(tenant)
            if self._unwrapped(tx, move, 1):
                return None
            now = self._clock.now()
            require_no_older_release(tx, now)
            moved = tx.tenants.move(tenant, move.target, now, shared=move.shared)
            versions = tx.moves.swap(move)
            committed = steer(tx, move, MoveEvent.COMMIT, _ACTOR, "committed", now, versions=versions)
            reached(FailPoint.MOVE_COMMITTING)
        reached(FailPoint.MOVE_COMMITTED)
        log.warning("kms_key_moved", kms_key_arn=str(move.target.kms_key_arn), versions=versions)
        self._suspensions.changed(moved)
        self._moves.publish(committed)
        return committed

    # --- under the new KMS key --------------------------------------------------------------------

    def _rotate(self, move: KmsKeyMove, tenant: Tenant) -> KmsKeyMove:
        """Have keys rotated that still encrypt under a secret that the old KMS key wrapped: also those whose
        rotation was under way at the change-over, and made its version before."""
        if tenant.connection != move.target:  # it moved on, and that move sees to it
            return self._end(move)
        # One that failed for good is asked for again in an hour.
        hour = self._clock.now().astimezone(UTC).strftime("%Y-%m-%dT%H")
        works: list[OpenWork] = []
        with self._store.transaction() as tx:
            tx.moves.renew(move, self._clock.now() + self._claim_period)
            for key in tx.moves.lock_keys_to_rotate(move, _ROTATIONS_AT_ONCE):
                requested = self._requests.record_in(
                    tx, tenant, key, RotationReason.MIGRATION, _ACTOR, f"move:{move.id}:{hour}"
                )
                if requested.outcome is RequestOutcome.NEW:
                    works.append(OpenWork(tenant.name, key.name, requested.rotation))
            left = tx.moves.progress(move).keys_to_rotate
        if not left:
            return self._end(move)
        if works:
            reached(FailPoint.MOVE_ROTATING)
            self._requests.publish(*works)
        with self._store.transaction() as tx:  # rotations take a while: the sweeper comes back
            return tx.moves.release(move, self._clock.now() + self._sweep_period, None)

    def _end(self, move: KmsKeyMove) -> KmsKeyMove:
        event, action = MoveEvent.FINISH, "finished"
        if move.is_open:
            event, action = MoveEvent.ROLL_BACK, "rolled-back"
        with self._store.transaction() as tx:
            return steer(tx, move, event, _ACTOR, action, self._clock.now())

    # --- what comes next --------------------------------------------------------------------------

    def _release(self, move: KmsKeyMove, wake_in: timedelta) -> KmsKeyMove:
        with self._store.transaction() as tx:
            released = tx.moves.release(move, self._clock.now() + wake_in, None)
        reached(FailPoint.MOVE_BATCH_ENDED)
        self._moves.publish(released)
        return released

    def _give_back(self, move: KmsKeyMove, wait: Wait) -> KmsKeyMove:
        """Leave a move to the sweeper. Nothing fails it: it waits, or somebody rolls it back."""
        delay = min(retry_delay(move.failures + 1, self._random.fraction()), _LONGEST_WAIT)
        log.warning("move_waits", cause=wait.cause.value, why=wait.why)
        try:
            with self._store.transaction() as tx:
                return tx.moves.release(move, self._clock.now() + delay, wait)
        except LostRace:  # somebody steered it meanwhile: it has nothing to wait for
            return self._moves.status(move.source.tenant_name).move


def _wait_for(move: KmsKeyMove, error: ByokError) -> Wait:
    why, remedy = failure_text(error), error.remedy or ""
    if isinstance(error, TenantNotActive):
        return Wait(WaitCause.STOP, why, remedy)
    if isinstance(error, KmsAccessRevoked):
        return Wait(WaitCause.REFUSAL, why, _what_to_add(move))
    return Wait(WaitCause.OUTAGE if error.retryable else WaitCause.TROUBLE, why, remedy)


def _what_to_add(move: KmsKeyMove) -> str:
    wanted = "; ".join(
        f"{' and '.join(one.of_the_errand)} to {one.place}" for one in provisions(move, None)
    )  # fmt: skip
    return (
        f"the customer adds {wanted}, or lets us use its new KMS key again; {command(move)} --policy prints"
        " what it takes"
    )
