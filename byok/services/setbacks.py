"""What becomes of a rotation whose attempt came to nothing: tried again, put off, or failed for good."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from byok.core.lifecycle import retry_delay
from byok.core.model import Key, Rotation, RotationEvent, Tenant, VersionEvent, VersionState
from byok.errors import (
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
from byok.services.suspension import Suspensions
from byok.services.validation import Rejected

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

    def record(self, tenant: Tenant, key: Key, rotation: Rotation, error: Exception) -> None:
        """Decide by the error what comes next.

        Raises:
            StoreUnavailable: a failure for good could not be written down; the claim lapses.
            LostRace: another worker is ahead.
        """
        if isinstance(error, KmsAccessRevoked):
            self._suspensions.revoked(tenant, error, actor="rotation")
            self._fail(tenant, key, rotation, error)
        elif isinstance(error, KmsBackingOff):
            self._defer(rotation, error)
        elif isinstance(error, ByokError) and not (error.retryable and rotation.tries < MAX_ATTEMPTS):
            self._fail(tenant, key, rotation, error)
        else:  # also a bug of ours: until it has had its attempts
            self.give_back([rotation], error)

    def give_back(self, rotations: Sequence[Rotation], error: Exception) -> None:
        """Have rotations tried again, each after a while of its own."""
        now = self._clock.now()
        times = [now + retry_delay(one.tries, self._random.fraction()) for one in rotations]
        self._release(rotations, times, error)
        for _ in rotations:
            self._metrics.rotation_tried_again(getattr(error, "code", "unexpected"))

    def put_off(self, rotations: Sequence[Rotation], why: ByokError) -> None:
        """Have rotations tried again soon that nobody has begun with: that says nothing about them."""
        self._release(rotations, [self._clock.now()] * len(rotations), why, deferred=True)

    def _defer(self, rotation: Rotation, backing_off: KmsBackingOff) -> None:
        """Give back a rotation whose KMS was not asked: that says nothing about the rotation."""
        wait_seconds = backing_off.retry_after_seconds * (1 + self._random.fraction())
        wake_at = self._clock.now() + timedelta(seconds=wait_seconds)
        self._release([rotation], [wake_at], backing_off, deferred=True)
        self._metrics.rotation_tried_again(backing_off.code)

    def _release(
        self,
        rotations: Sequence[Rotation],
        wake_times: Sequence[datetime],
        error: Exception,
        *,
        deferred: bool = False,
    ) -> None:
        try:
            with self._store.transaction() as tx:
                for rotation, wake_at in zip(rotations, wake_times, strict=True):
                    tx.rotations.release(rotation, wake_at, failure_text(error), deferred=deferred)
        except StoreUnavailable as why:
            log.warning("claims_lapse", rotations=[str(one.id) for one in rotations], error=why.message)

    def _fail(self, tenant: Tenant, key: Key, claimed: Rotation, error: ByokError) -> None:
        """End a rotation: its pending version is rejected, the key is tried again later if it is due.

        Does nothing if another worker has claimed the rotation meanwhile: it may fare better.
        """
        now = self._clock.now()
        failure = failure_text(error)
        with self._store.transaction() as tx:
            key = tx.keys.lock(key.id)
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
        log.error("rotation_failed", tenant=tenant.name, key=key.name, rotation=str(claimed.id), why=failure)
