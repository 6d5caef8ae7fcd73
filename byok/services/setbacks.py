"""What becomes of a rotation whose attempt came to nothing: tried again, put off, or failed for good."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from byok.core.lifecycle import retry_delay
from byok.core.model import RotationEvent, VersionEvent, VersionState
from byok.errors import (
    AccessStopped,
    ByokError,
    KmsAccessRevoked,
    KmsBackingOff,
    LostRace,
    StoreUnavailable,
    failure_text,
)
from byok.failpoints import FailPoint, reached
from byok.logs import get_logger
from byok.ports import Clock, Metrics, Random, Store
from byok.services.suspension import Suspensions, has_moved
from byok.services.validation import Rejected
from byok.services.work import Work

log = get_logger(__name__)

# Attempts until a rotation is failed for good: with `retry_delay` about 15 minutes of a KMS that fails.
MAX_ATTEMPTS = 8
# A scheduled rotation that failed for good is tried again after this long, or its period if shorter.
RETRY_FAILED_AFTER = timedelta(hours=1)


class Setbacks:
    """Writes down why an attempt came to nothing, and when there is to be another."""

    def __init__(
        self, store: Store, suspensions: Suspensions, metrics: Metrics, clock: Clock, random: Random
    ) -> None:
        self._store = store
        self._suspensions = suspensions
        self._metrics = metrics
        self._clock = clock
        self._random = random

    def record(self, work: Work, error: Exception) -> None:
        """Decide by the error what comes next.

        Raises:
            StoreUnavailable: a failure for good could not be written down; the claim lapses.
            LostRace: another worker is ahead.
        """
        if isinstance(error, KmsAccessRevoked) and self._has_moved(work):
            self.give_back([work], error)
        elif isinstance(error, KmsAccessRevoked):
            self._suspensions.revoked(work.tenant, error, actor="rotation")
            self._fail(work, error)
        elif isinstance(error, KmsBackingOff):
            self._defer(work, error)
        elif isinstance(error, ByokError) and not (error.retryable and work.rotation.tries < MAX_ATTEMPTS):
            self._fail(work, error)
        else:  # also a bug of ours: until it has had its attempts
            self.give_back([work], error)

    def _has_moved(self, work: Work) -> bool:
        with self._store.transaction() as tx:
            return has_moved(tx, work.tenant)

    def give_back(self, works: Sequence[Work], error: Exception) -> None:
        """Have rotations tried again, each after a while of its own."""
        now = self._clock.now()
        times = [now + retry_delay(work.rotation.tries, self._random.fraction()) for work in works]
        self._release(works, times, error)
        for _ in works:
            self._metrics.rotation_tried_again(getattr(error, "code", "unexpected"))

    def put_off(self, works: Sequence[Work], why: ByokError) -> None:
        """Have rotations tried again soon that nobody has begun with: that says nothing about them."""
        self._release(works, [self._clock.now()] * len(works), why, deferred=True)

    def _defer(self, work: Work, backing_off: KmsBackingOff) -> None:
        """Give back a rotation whose KMS was not asked: that says nothing about the rotation."""
        wait_seconds = backing_off.retry_after_seconds * (1 + self._random.fraction())
        wake_at = self._clock.now() + timedelta(seconds=wait_seconds)
        self._release([work], [wake_at], backing_off, deferred=True)
        self._metrics.rotation_tried_again(backing_off.code)

    def _release(
        self,
        works: Sequence[Work],
        wake_times: Sequence[datetime],
        error: Exception,
        *,
        deferred: bool = False,
    ) -> None:
        try:
            with self._store.transaction() as tx:
                for work, wake_at in zip(works, wake_times, strict=True):
                    tx.rotations.release(work.rotation, wake_at, failure_text(error), deferred=deferred)
        except StoreUnavailable as lapse:
            for work in works:
                with work.lines:
                    log.warning("claim_lapses", error=lapse.message, why=failure_text(error))
            return
        for work, wake_at in zip(works, wake_times, strict=True):
            with work.lines:
                tell = log.info if deferred else log.warning
                tell("rotation_put_off", until=wake_at, attempt=work.rotation.tries, why=failure_text(error))

    def _fail(self, work: Work, error: ByokError) -> None:
        """End a rotation: its pending version is rejected, the key is tried again later if it is due.

        Does nothing if another worker has claimed the rotation meanwhile: it may fare better.
        """
        tenant, claimed = work.tenant, work.rotation
        now = self._clock.now()
        failure = failure_text(error)
        with self._store.transaction() as tx:
            key = tx.keys.lock(work.key.id)
            rotation = tx.rotations.get(claimed.id)
            if not rotation.is_open or rotation.attempts != claimed.attempts:
                return
            if rotation.version_number is not None:
                version = tx.versions.get(key.id, rotation.version_number)
                if isinstance(error, Rejected):
                    tx.versions.set_checks(version, error.checks)
                if version.state is VersionState.PENDING:
                    tx.versions.transition([version], VersionEvent.REJECT, now)
            failed = tx.rotations.transition([rotation], RotationEvent.FAIL, now, failure=failure)
            if not failed:
                raise LostRace(f"rotation {rotation.id} is not {rotation.state} any more")
            retry_at = now + min(key.rotation_period, RETRY_FAILED_AFTER)
            tx.keys.update(replace(key, next_rotation_at=max(key.next_rotation_at or now, retry_at)))
            tx.audit.append(
                tenant.id, now, "rotation", "rotation.failed",
                key=key.name, version=rotation.version_number, rotation=str(rotation.id), failure=failure,
            )  # fmt: skip
            reached(FailPoint.FAILING)
        self._metrics.rotation_ended(failed[0])
        # That a customer took access away is told by its suspension, and no fault of the rotation.
        (log.warning if isinstance(error, AccessStopped) else log.error)("rotation_failed", why=failure)
