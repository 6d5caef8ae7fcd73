"""Rotations: generate, validate, promote, so that each request makes one version and no more.

Many at a time: KMS is asked for each alone, and what came of it is written for all in one transaction. Each
step commits before the next begins, and none holds a transaction open across a KMS call. A worker that dies
leaves each rotation's row in the state it reached; whoever claims it next goes on from there. Retries live
in the rows, too: an attempt that failed is due again at the row's ``wake_at``.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from uuid import UUID

from byok import tracing
from byok.core.encryption_context import version_context
from byok.core.model import (
    KeyVersion,
    Rotation,
    RotationReason,
    RotationState,
    VersionState,
)
from byok.errors import ByokError, GaveUp, KmsBackingOff, LostRace, StoreBusy, StoreUnavailable
from byok.failpoints import FailPoint, reached
from byok.logs import get_logger
from byok.ports import Clock, Kms, Metrics, Random, Store, Transaction
from byok.services.campaigns import CampaignRequests
from byok.services.claims import Claims
from byok.services.leases import LeaseDesk
from byok.services.records import Records, require_connection
from byok.services.ring import RingReview
from byok.services.rotation_steps import Steps, is_unmoved, made_by
from byok.services.setbacks import MAX_ATTEMPTS, Setbacks
from byok.services.suspension import Suspensions, require_active
from byok.services.validation import Validator
from byok.services.work import Work

log = get_logger(__name__)

# A step that asks KMS for many goes no further after a call that took this long (a healthy one takes 5 to 50
# ms, with a new session 200), or after so long in all: one customer's slow KMS is not to hold up those behind
# it. They are put off, and found by the next sweep.
_SLOW_SECONDS = 2.0
_PATIENCE_SECONDS = 30.0

# byok starts these by itself, for all tenants. Their gate makes one KMS call; see `Validator`.
_ROUTINE = frozenset({RotationReason.SCHEDULED, RotationReason.KMS_KEY_ROTATED})

# What is done with a rotation in this state, as metrics and traces call it.
_STEPS = {RotationState.REQUESTED: "generate", RotationState.GENERATED: "validate"}


class Rotations:
    """Runs rotations."""

    def __init__(
        self,
        *,
        store: Store,
        kms: Kms,
        records: Records,
        validator: Validator,
        desk: LeaseDesk,
        suspensions: Suspensions,
        claims: Claims,
        campaigns: CampaignRequests,
        setbacks: Setbacks,
        metrics: Metrics,
        clock: Clock,
        random: Random,
    ) -> None:
        self._store = store
        self._kms = kms
        self._records = records
        self._ring = RingReview(store, records.master_keys)
        self._validator = validator
        self._desk = desk
        self._suspensions = suspensions
        self._claims = claims
        self._campaigns = campaigns
        self._setbacks = setbacks
        self._metrics = metrics
        self._clock = clock
        self._steps = Steps(clock, random)

    def run(self, rotation_id: UUID) -> Rotation | None:
        """Bring a rotation to its end, or give it back to be tried again; None if it is not to be had.

        Raises:
            ByokError: why this attempt failed, after that was recorded.
        """
        works = self._run([rotation_id])
        if not works:
            return None
        (work,) = works
        work.lines.keep()
        if work.error is not None:
            raise work.error
        return work.rotation

    def run_many(self, rotation_ids: Sequence[UUID]) -> Sequence[Work]:
        """Bring rotations to their ends, or give them back to be tried again; those that were to be had.

        Each fares by itself: what fails for one is recorded, and is in its `Work.error`.

        Raises:
            StoreUnavailable.
        """
        works = self._run(rotation_ids)
        for work in works:
            if work.error is not None and not isinstance(work.error, ByokError):  # nobody sees it else
                with work.lines:
                    log.error("rotation_broke", exc_info=work.error)
        return works

    def _run(self, rotation_ids: Sequence[UUID]) -> Sequence[Work]:
        claimed = self._claims.take(rotation_ids)
        if not claimed:
            return []
        reached(FailPoint.CLAIMED)
        with self._claims.kept(claimed):
            works = self._load(claimed)
            try:
                self._advance(works)
            finally:
                for work in works:
                    if work.validated is not None:
                        work.validated.secret.wipe()
        return works

    def _load(self, claimed: Sequence[Rotation]) -> list[Work]:
        with self._store.transaction() as tx:
            keys = tx.keys.get_all({rotation.key_id for rotation in claimed})
            tenants = tx.tenants.get_all({key.tenant_id for key in keys.values()})
        works = [
            Work(tenants[keys[rotation.key_id].tenant_id], keys[rotation.key_id], rotation)
            for rotation in claimed
        ]
        return sorted(works, key=lambda work: work.tenant.id)  # tenants' audit chains are locked in one order

    # --- the steps --------------------------------------------------------------------------------

    def _advance(self, works: Sequence[Work]) -> None:
        for work in works:
            with self._settled(work):
                _require_runnable(work)
        if self._step(works, RotationState.REQUESTED, self._generate, self._steps.generated):
            reached(FailPoint.GENERATED)
        if self._step(works, RotationState.GENERATED, self._validate, self._steps.validated):
            reached(FailPoint.VALIDATED)
        at_hand = [work for work in works if work.is_going_on]
        with self._timed("promote", at_hand):
            promoted = self._write(at_hand, self._steps.promoted)
        if promoted:
            reached(FailPoint.PROMOTED)
        self._announce([work for work in works if work.is_going_on])
        self._look_again([work for work in works if work.is_lost])

    def _step(
        self,
        works: Sequence[Work],
        state: RotationState,
        ask: Callable[[Work], None],
        write: Callable[[Transaction, Sequence[Work]], Sequence[Rotation]],
    ) -> Sequence[Work]:
        """Ask KMS for each that is in ``state`` and write what it brought; those that came through."""
        at_hand = [work for work in works if work.is_going_on and work.rotation.state is state]
        with self._timed(_STEPS[state], at_hand):
            asked = self._ask_for_each(self._read_versions(at_hand), ask, _STEPS[state])
            return self._write(asked, write)

    @contextmanager
    def _timed(self, step: str, works: Sequence[Work]) -> Iterator[None]:
        began_ticks = self._clock.ticks()
        with tracing.span(f"rotations {step}", rotations=len(works)) if works else nullcontext():
            yield
        if works:
            self._metrics.rotation_step_took(step, self._clock.ticks() - began_ticks)

    def _read_versions(self, works: Sequence[Work]) -> Sequence[Work]:
        def read(tx: Transaction, works: Sequence[Work]) -> Sequence[Rotation]:
            found = tx.versions.list_since_active([work.key.id for work in works])
            for work in works:
                work.versions = found[work.key.id]
            # After the versions: those of a tenant that moved to another KMS key in between don't fit it.
            tenants = tx.tenants.get_all({work.tenant.id for work in works})
            return [work.rotation for work in works if is_unmoved(work, tenants)]

        return self._write(works, read)

    def _ask_for_each(self, works: Sequence[Work], ask: Callable[[Work], None], step: str) -> Sequence[Work]:
        began_ticks = self._clock.ticks()
        for place, work in enumerate(works, 1):
            asked_ticks = self._clock.ticks()
            with self._settled(work), tracing.span(f"rotation {step}", **work.names):
                ask(work)
            now_ticks = self._clock.ticks()
            if now_ticks - asked_ticks > _SLOW_SECONDS or now_ticks - began_ticks > _PATIENCE_SECONDS:
                self._put_off(works[place:])
                break
        return [work for work in works if work.is_going_on]

    def _put_off(self, works: Sequence[Work]) -> None:
        if not works:
            return
        why = KmsBackingOff("it waited behind a slow KMS", retry_after_seconds=0.0)
        self._setbacks.put_off(works, why)
        for work in works:
            work.error = why

    def _write(
        self, works: Sequence[Work], write: Callable[[Transaction, Sequence[Work]], Sequence[Rotation]]
    ) -> Sequence[Work]:
        """Run a transaction for all, or where it fails for each alone; those that came through.

        ``write`` returns the rotations as they are then, without those that another worker is ahead with.
        """
        if not works:
            return []
        try:
            with self._store.transaction() as tx:
                rotations = {rotation.id: rotation for rotation in write(tx, works)}
        except StoreUnavailable as error:
            if isinstance(error, StoreBusy) and len(works) > 1:  # one of them may be all that is in the way
                return [one for work in works for one in self._write([work], write)]
            self._setbacks.give_back(works, error)
            for work in works:
                work.error = error
            return []
        except Exception as error:
            if len(works) > 1:  # one of them is at fault, and the others need not suffer for it
                return [one for work in works for one in self._write([work], write)]
            with self._settled(works[0]):
                raise error
            return []
        for work in works:
            work.is_lost = work.rotation.id not in rotations
            work.rotation = rotations.get(work.rotation.id, work.rotation)
        return [work for work in works if work.is_going_on]

    @contextmanager
    def _settled(self, work: Work) -> Iterator[None]:
        """Keep what goes wrong with one rotation, after writing down what comes next."""
        with work.lines:
            try:
                yield
            except LostRace:
                work.is_lost = True
            except Exception as error:  # noqa: BLE001  # whatever it is, it is one rotation's alone
                work.error = error
                self._record_setback(work, error)

    def _record_setback(self, work: Work, error: Exception) -> None:
        """The others go on even where this can't be written down: then the claim lapses."""
        try:
            self._setbacks.record(work, error)
        except LostRace:
            work.is_lost = True
        except StoreUnavailable as why:
            log.warning("setback_not_recorded", error=why.message)

    def _generate(self, work: Work) -> None:
        tenant, key, rotation = work.tenant, work.key, work.rotation
        if work.versions and work.versions[0].state is VersionState.ACTIVE:
            # With a master key that does not open what is there, nothing new may be sealed: what is then
            # encrypted under it would be lost with it.
            self._records.wrapped_key(tenant, work.versions[0])
        elif not work.versions:
            self._ring.require_familiar()
        number = work.versions[-1].number + 1 if work.versions else 1
        connection = require_connection(tenant)
        wrapped = self._kms.generate_data_key(connection, version_context(tenant.id, key.id, number))
        reached(FailPoint.KMS_GENERATED)
        work.pending = KeyVersion(
            key_id=key.id,
            number=number,
            state=VersionState.PENDING,
            sealed_wrapped_key=self._records.seal(tenant, key, number, wrapped.ciphertext),
            kms_key_arn=connection.kms_key_arn,
            kms_request_id=wrapped.request_id,
            kms_key_material_id=wrapped.key_material_id,
            rotation_id=rotation.id,
            reason=rotation.reason,
            requested_by=rotation.requested_by,
            requested_at=rotation.requested_at,
            generated_at=self._clock.now(),
        )

    def _validate(self, work: Work) -> None:
        pending = made_by(work.rotation, work.versions)
        routine = work.rotation.reason in _ROUTINE and work.versions[0].state is VersionState.ACTIVE
        validated = self._validator.validate(work.tenant, work.key, pending, work.versions, routine=routine)
        reached(FailPoint.GATE_PASSED)
        work.validated = validated
        work.pending = replace(
            pending, checks=validated.checks, fingerprint=validated.fingerprint, canary=validated.canary
        )

    # --- what comes after -------------------------------------------------------------------------

    def _look_again(self, lost: Sequence[Work]) -> None:
        if lost:
            with self._store.transaction() as tx:
                for work in lost:
                    work.rotation = tx.rotations.get(work.rotation.id)

    def _announce(self, done: Sequence[Work]) -> None:
        for tenant in {work.tenant.id: work.tenant for work in done}.values():
            self._suspensions.changed(tenant)  # every process encrypts under the new version at once
        if any(work.rotation.reason is RotationReason.COMPROMISE for work in done):
            self._start_campaigns()
        for work in done:
            with work.lines:
                self._announce_one(work)

    def _announce_one(self, work: Work) -> None:
        rotation, number = work.rotation, work.rotation.version_number
        if work.validated is not None:
            assert number is not None
            found = work.validated
            self._desk.put(work.tenant, work.key, number, found.secret, found.decrypted_at)
        self._metrics.rotation_ended(rotation)
        log.info("rotation_done", version=number, reason=rotation.reason.value)

    def _start_campaigns(self) -> None:
        """Begin at once with what the sweeper would come upon."""
        try:
            self._campaigns.start_owed()
        except StoreUnavailable as error:
            log.warning("campaigns_left_to_the_sweeper", error=error.message)


def _require_runnable(work: Work) -> None:
    rotation = work.rotation
    if rotation.tries > MAX_ATTEMPTS:
        last = f"; the last: {rotation.failure}" if rotation.failure else ""
        raise GaveUp(f"{MAX_ATTEMPTS} attempts came to no end{last}")
    require_active(work.tenant)
