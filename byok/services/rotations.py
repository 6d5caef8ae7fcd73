"""Rotations: generate, validate, promote, so that each request makes one version and no more.

Each step commits before the next begins, and none holds a transaction open across a KMS call. A worker
that dies leaves the rotation's row in the state it reached; whoever claims it next goes on from there.
Retries live in the row, too: an attempt that failed is due again at the row's ``wake_at``.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from byok.core.encryption_context import version_context
from byok.core.lifecycle import check_versions, next_rotation_time, retry_delay
from byok.core.model import (
    Key,
    KeyVersion,
    Rotation,
    RotationEvent,
    RotationReason,
    RotationState,
    Tenant,
    VersionEvent,
    VersionState,
)
from byok.errors import (
    ByokError,
    GaveUp,
    KmsAccessRevoked,
    KmsBackingOff,
    LostRace,
    StoreUnavailable,
    failure_text,
)
from byok.failpoints import FailPoint, reached
from byok.logs import get_logger
from byok.ports import Clock, Kms, Metrics, Random, Store
from byok.services.campaigns import CampaignRequests
from byok.services.claims import Claims
from byok.services.leases import LeaseDesk
from byok.services.records import Records, require_connection
from byok.services.suspension import Suspensions, require_active
from byok.services.validation import Rejected, Validated, Validator

log = get_logger(__name__)

# Attempts until a rotation is failed for good: with `retry_delay` about 15 minutes of a KMS that fails.
MAX_ATTEMPTS = 8
# A scheduled rotation that failed for good is tried again after this long, or its period if shorter.
RETRY_FAILED_AFTER = timedelta(hours=1)


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
        metrics: Metrics,
        clock: Clock,
        random: Random,
    ) -> None:
        self._store = store
        self._kms = kms
        self._records = records
        self._validator = validator
        self._desk = desk
        self._suspensions = suspensions
        self._claims = claims
        self._campaigns = campaigns
        self._metrics = metrics
        self._clock = clock
        self._random = random

    def run(self, rotation_id: UUID) -> Rotation | None:
        """Bring a rotation to its end, or give it back to be tried again; None if it is not to be had.

        Raises:
            ByokError: why this attempt failed, after that was recorded.
        """
        rotation = self._claims.take(rotation_id)
        if rotation is None:
            return None
        reached(FailPoint.CLAIMED)
        with self._claims.kept(rotation):
            with self._store.transaction() as tx:
                key = tx.keys.get_by_id(rotation.key_id)
                tenant = tx.tenants.get_by_id(key.tenant_id)
            return self._attempt(tenant, key, rotation)

    def _attempt(self, tenant: Tenant, key: Key, rotation: Rotation) -> Rotation:
        try:
            if rotation.tries > MAX_ATTEMPTS:
                last = f"; the last: {rotation.failure}" if rotation.failure else ""
                raise GaveUp(f"{MAX_ATTEMPTS} attempts came to no end{last}")
            require_active(tenant)
            done = self._advance(tenant, key, rotation)
        except LostRace:
            with self._store.transaction() as tx:
                return tx.rotations.get(rotation.id)  # another worker is ahead of us
        except KmsAccessRevoked as refusal:
            self._suspensions.revoked(tenant, refusal, actor="rotation")
            self._fail(tenant, key, rotation, refusal)
            raise
        except KmsBackingOff as error:
            self._defer(rotation, error)
            raise
        except ByokError as error:
            if error.retryable and rotation.tries < MAX_ATTEMPTS:
                self._give_back(rotation, error.code, error)
            else:
                self._fail(tenant, key, rotation, error)
            raise
        except Exception as bug:
            self._give_back(rotation, "unexpected", bug)
            raise
        self._metrics.rotation_ended(done.reason, done.state)
        bound = log.bind(tenant=tenant.name, key=key.name, rotation=str(done.id))
        bound.info("rotation_done", version=done.version_number, reason=done.reason.value)
        return done

    def _advance(self, tenant: Tenant, key: Key, rotation: Rotation) -> Rotation:
        validated: Validated | None = None
        if rotation.state is RotationState.REQUESTED:
            rotation = self._generate(tenant, key, rotation)
            reached(FailPoint.GENERATED)
        if rotation.state is RotationState.GENERATED:
            rotation, validated = self._validate(tenant, key, rotation)
            reached(FailPoint.VALIDATED)
        if rotation.state is RotationState.VALIDATED:
            rotation = self._promote(key, rotation)
            reached(FailPoint.PROMOTED)
            self._suspensions.changed(tenant)  # every process encrypts under the new version at once
            if rotation.reason is RotationReason.COMPROMISE:
                self._start_campaigns()
        if validated is not None:
            assert rotation.version_number is not None
            self._desk.put(tenant, key, rotation.version_number, validated.secret, validated.decrypted_at)
            validated.secret.wipe()
        return rotation

    def _start_campaigns(self) -> None:
        """Begin at once with what the sweeper would come upon."""
        try:
            self._campaigns.start_owed()
        except StoreUnavailable as error:
            log.warning("campaigns_left_to_the_sweeper", error=error.message)

    def _generate(self, tenant: Tenant, key: Key, rotation: Rotation) -> Rotation:
        with self._store.transaction() as tx:
            number = len(tx.versions.list(key.id)) + 1
        wrapped = self._kms.generate_data_key(
            require_connection(tenant), version_context(tenant.id, key.id, number)
        )
        reached(FailPoint.KMS_GENERATED)
        now = self._clock.now()
        version = KeyVersion(
            key_id=key.id,
            number=number,
            state=VersionState.PENDING,
            sealed_wrapped_key=self._records.seal(tenant, key, number, wrapped.ciphertext),
            kms_key_arn=require_connection(tenant).kms_key_arn,
            kms_request_id=wrapped.request_id,
            kms_key_material_id=wrapped.key_material_id,
            rotation_id=rotation.id,
            reason=rotation.reason,
            requested_by=rotation.requested_by,
            requested_at=rotation.requested_at,
            generated_at=now,
        )
        with self._store.transaction() as tx:
            generated = tx.rotations.transition(rotation, RotationEvent.GENERATE, now, version_number=number)
            tx.versions.add(version)
            tx.audit.append(
                tenant.id, now, "rotation", "version.generated",
                key=key.name, version=number, rotation=str(rotation.id), request_id=wrapped.request_id,
            )  # fmt: skip
        return generated

    def _validate(self, tenant: Tenant, key: Key, rotation: Rotation) -> tuple[Rotation, Validated]:
        assert rotation.version_number is not None
        with self._store.transaction() as tx:
            versions = tx.versions.list(key.id)
        version = versions[rotation.version_number - 1]
        validated = self._validator.validate(tenant, key, version, versions)
        reached(FailPoint.GATE_PASSED)
        now = self._clock.now()
        with self._store.transaction() as tx:
            advanced = tx.rotations.transition(rotation, RotationEvent.VALIDATE, now)
            tx.versions.set_validated(version, now, validated.checks, validated.fingerprint, validated.canary)
            tx.audit.append(
                tenant.id, now, "rotation", "version.validated",
                key=key.name, version=version.number, rotation=str(rotation.id), checks=len(validated.checks),
            )  # fmt: skip
        return advanced, validated

    def _promote(self, key: Key, rotation: Rotation) -> Rotation:
        assert rotation.version_number is not None
        now = self._clock.now()
        with self._store.transaction() as tx:
            key = tx.keys.lock(key.id)
            tenant = tx.tenants.get_by_id(key.tenant_id)
            require_active(tenant)
            # First of all, since its reason may have become graver: a compromise joined it.
            done = tx.rotations.transition(rotation, RotationEvent.PROMOTE, now)
            versions = tx.versions.list(key.id)
            check_versions(versions)
            previous = tx.versions.find_active(key.id)
            if previous is not None:
                compromised = done.reason is RotationReason.COMPROMISE
                event = VersionEvent.COMPROMISE if compromised else VersionEvent.RETIRE
                tx.versions.transition(previous, event, now)
            tx.versions.transition(versions[rotation.version_number - 1], VersionEvent.ACTIVATE, now)
            due = next_rotation_time(now, key.rotation_period, self._random.fraction())
            tx.keys.update(replace(key, next_rotation_at=due))
            tx.audit.append(
                tenant.id, now, "rotation", "version.activated",
                key=key.name, version=rotation.version_number, rotation=str(rotation.id),
                reason=done.reason.value, previous=None if previous is None else previous.number,
            )  # fmt: skip
            reached(FailPoint.PROMOTING)
        return done

    def _give_back(self, rotation: Rotation, code: str, error: Exception) -> None:
        wake_at = self._clock.now() + retry_delay(rotation.tries, self._random.fraction())
        self._release(rotation, wake_at, error)
        self._metrics.rotation_tried_again(code)

    def _defer(self, rotation: Rotation, backing_off: KmsBackingOff) -> None:
        """Give back a rotation whose KMS was not asked: that says nothing about the rotation."""
        wait_seconds = backing_off.retry_after_seconds * (1 + self._random.fraction())
        wake_at = self._clock.now() + timedelta(seconds=wait_seconds)
        self._release(rotation, wake_at, backing_off, deferred=True)
        self._metrics.rotation_tried_again(backing_off.code)

    def _release(
        self, rotation: Rotation, wake_at: datetime, error: Exception, *, deferred: bool = False
    ) -> None:
        try:
            with self._store.transaction() as tx:
                tx.rotations.release(rotation, wake_at, failure_text(error), deferred=deferred)
        except StoreUnavailable as why:
            log.warning("claim_lapses", rotation=str(rotation.id), error=why.message)

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
                    tx.versions.transition(version, VersionEvent.REJECT, now)
            failed = tx.rotations.transition(rotation, RotationEvent.FAIL, now, failure=failure)
            retry_at = now + min(key.rotation_period, RETRY_FAILED_AFTER)
            tx.keys.update(replace(key, next_rotation_at=max(key.next_rotation_at or now, retry_at)))
            tx.audit.append(
                tenant.id, now, "rotation", "rotation.failed",
                key=key.name, version=rotation.version_number, rotation=str(rotation.id), failure=failure,
            )  # fmt: skip
            reached(FailPoint.FAILING)
        self._metrics.rotation_ended(failed.reason, failed.state)
        log.error("rotation_failed", tenant=tenant.name, key=key.name, rotation=str(claimed.id), why=failure)
