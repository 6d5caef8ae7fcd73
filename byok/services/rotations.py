"""Rotations: request, generate, validate, promote, so that each request makes one version and no more.

Each step commits before the next begins, and none holds a transaction open across a KMS call. A worker
that dies leaves the rotation's row in the state it reached; whoever claims it next goes on from there.
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import UUID

from byok.core.encryption_context import version_context
from byok.core.lifecycle import check_versions, next_rotation_time, retry_delay
from byok.core.model import (
    Key,
    KeyVersion,
    Rotation,
    RotationReason,
    RotationState,
    Tenant,
    VersionState,
)
from byok.errors import ByokError, GaveUp, KmsAccessRevoked, LostRace, QueueUnavailable
from byok.logs import get_logger
from byok.ports import Clock, Kms, Random, Store, TaskQueue, Transaction
from byok.services.leases import LeaseDesk
from byok.services.records import Records, require_connection
from byok.services.suspension import Suspensions, require_active
from byok.services.validation import Rejected, Validated, Validator

log = get_logger(__name__)

MAX_ATTEMPTS = 8
# A worker has a rotation for this long; three steps of a few KMS calls, each bounded by seconds.
CLAIM_SECONDS = 120
# A request whose message is lost is published again after this long.
PUBLISH_GRACE_SECONDS = 30
# A scheduled rotation that failed for good is tried again after this long, or its period if shorter.
RETRY_FAILED_AFTER = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Requested:
    """The answer to a request. ``joined``: a rotation that was open already serves this request too."""

    rotation: Rotation
    joined: bool


class Rotations:
    """Requests and runs rotations."""

    def __init__(
        self,
        *,
        store: Store,
        kms: Kms,
        records: Records,
        validator: Validator,
        desk: LeaseDesk,
        suspensions: Suspensions,
        queue: TaskQueue,
        clock: Clock,
        random: Random,
    ) -> None:
        self._store = store
        self._kms = kms
        self._records = records
        self._validator = validator
        self._desk = desk
        self._suspensions = suspensions
        self._queue = queue
        self._clock = clock
        self._random = random

    # --- requesting -------------------------------------------------------------------------------

    def request(
        self,
        tenant_name: str,
        key_name: str,
        *,
        reason: RotationReason,
        requested_by: str,
        idempotency_key: str | None = None,
    ) -> Requested:
        """Record a rotation request and publish it. If the broker is down the request stands: the
        sweeper publishes it later.

        Raises:
            as `record`.
        """
        requested = self.record(
            tenant_name,
            key_name,
            reason=reason,
            requested_by=requested_by,
            idempotency_key=idempotency_key,
        )
        if not requested.joined:
            self.publish(tenant_name, key_name, requested.rotation)
        return requested

    def record(
        self,
        tenant_name: str,
        key_name: str,
        *,
        reason: RotationReason,
        requested_by: str,
        idempotency_key: str | None = None,
    ) -> Requested:
        """Record a rotation request without publishing it.

        The same ``idempotency_key`` always gives the same rotation. While one is open, another request
        joins it.

        Raises:
            UnknownTenant, UnknownKey, TenantNotActive, StoreUnavailable.
        """
        with self._store.transaction() as tx:
            tenant = tx.tenants.get(tenant_name)
            require_active(tenant)
            key = tx.keys.get(tenant, key_name)
            return self.record_request(tx, tenant, key, reason, requested_by, idempotency_key)

    def record_request(
        self,
        tx: Transaction,
        tenant: Tenant,
        key: Key,
        reason: RotationReason,
        requested_by: str,
        idempotency_key: str | None = None,
    ) -> Requested:
        """Record a request within a transaction of the caller's, who publishes it after the commit."""
        now = self._clock.now()
        rotation_id = self._random.uuid()
        rotation = Rotation(
            id=rotation_id,
            key_id=key.id,
            reason=reason,
            state=RotationState.REQUESTED,
            idempotency_key=idempotency_key or str(rotation_id),
            requested_by=requested_by,
            requested_at=now,
        )
        if not tx.rotations.add(rotation, now + timedelta(seconds=PUBLISH_GRACE_SECONDS)):
            earlier = tx.rotations.find(key.id, rotation.idempotency_key) or tx.rotations.find_open(key.id)
            if earlier is None:  # the open one was finished between our two statements
                raise LostRace("another rotation of this key finished just now", remedy="ask again")
            return Requested(earlier, joined=True)
        tx.audit.append(
            tenant.id, now, requested_by, "rotation.requested",
            key=key.name, rotation=str(rotation.id), reason=reason.value,
        )  # fmt: skip
        return Requested(rotation, joined=False)

    def get(self, rotation_id: UUID) -> Rotation:
        """A rotation as it stands now.

        Raises:
            UnknownRotation, StoreUnavailable.
        """
        with self._store.transaction() as tx:
            return tx.rotations.get(rotation_id)

    def publish(self, tenant_name: str, key_name: str, rotation: Rotation) -> None:
        """Publish a recorded request; a broker that is down delays it to the next sweep."""
        try:
            self._queue.rotate(tenant_name, key_name, rotation)
        except QueueUnavailable as error:
            log.warning("rotation_not_published", rotation=str(rotation.id), error=error.message)

    # --- running ----------------------------------------------------------------------------------

    def run(self, rotation_id: UUID) -> Rotation | None:
        """Bring a rotation to its end, or give it back to be tried again; None if it is not to be had.

        Raises:
            ByokError: why this attempt failed, after that was recorded.
        """
        now = self._clock.now()
        with self._store.transaction() as tx:
            rotation = tx.rotations.claim(rotation_id, now, now + timedelta(seconds=CLAIM_SECONDS))
            if rotation is None:
                return None
            key = tx.keys.get_by_id(rotation.key_id)
            tenant = tx.tenants.get_by_id(key.tenant_id)
        bound = log.bind(tenant=tenant.name, key=key.name, rotation=str(rotation.id))
        try:
            if rotation.attempts > MAX_ATTEMPTS:
                raise GaveUp(f"{MAX_ATTEMPTS} workers began and none came to an end")
            require_active(tenant)
            rotation = self._advance(tenant, key, rotation)
        except LostRace:
            return self.get(rotation_id)  # another worker is ahead of us
        except KmsAccessRevoked as refusal:
            self._suspensions.revoked(tenant, refusal, actor="rotation")
            self._fail(tenant, key, rotation, refusal)
            raise
        except ByokError as error:
            if error.retryable and rotation.attempts < MAX_ATTEMPTS:
                self._give_back(rotation, error)
            else:
                self._fail(tenant, key, rotation, error)
            raise
        bound.info("rotation_done", version=rotation.version_number, reason=rotation.reason.value)
        return rotation

    def _advance(self, tenant: Tenant, key: Key, rotation: Rotation) -> Rotation:
        validated: Validated | None = None
        if rotation.state is RotationState.REQUESTED:
            rotation = self._generate(tenant, key, rotation)
        if rotation.state is RotationState.GENERATED:
            rotation, validated = self._validate(tenant, key, rotation)
        if rotation.state is RotationState.VALIDATED:
            rotation = self._promote(key, rotation)
        if validated is not None:
            assert rotation.version_number is not None
            self._desk.put(tenant, key, rotation.version_number, validated.secret, validated.decrypted_at)
            validated.secret.wipe()
        return rotation

    def _generate(self, tenant: Tenant, key: Key, rotation: Rotation) -> Rotation:
        with self._store.transaction() as tx:
            number = len(tx.versions.list(key.id)) + 1
        wrapped = self._kms.generate_data_key(
            require_connection(tenant), version_context(tenant.id, key.id, number)
        )
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
            tx.versions.add(version)
            generated = tx.rotations.transition(rotation, RotationState.GENERATED, now, version_number=number)
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
        now = self._clock.now()
        with self._store.transaction() as tx:
            tx.versions.set_validated(version, now, validated.checks, validated.fingerprint, validated.canary)
            advanced = tx.rotations.transition(rotation, RotationState.VALIDATED, now)
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
            versions = tx.versions.list(key.id)
            check_versions(versions)
            previous = tx.versions.find_active(key.id)
            if previous is not None:
                compromised = rotation.reason is RotationReason.COMPROMISE
                to = VersionState.COMPROMISED if compromised else VersionState.RETIRED
                tx.versions.transition(previous, to, now)
            tx.versions.transition(versions[rotation.version_number - 1], VersionState.ACTIVE, now)
            tx.keys.update(
                key.id,
                rotation_period=key.rotation_period,
                lease_ttl=key.lease_ttl,
                next_rotation_at=next_rotation_time(now, key.rotation_period, self._random.fraction()),
            )
            done = tx.rotations.transition(rotation, RotationState.DONE, now)
            tx.audit.append(
                tenant.id, now, "rotation", "version.activated",
                key=key.name, version=rotation.version_number, rotation=str(rotation.id),
                reason=rotation.reason.value, previous=None if previous is None else previous.number,
            )  # fmt: skip
        return done

    # --- failing ----------------------------------------------------------------------------------

    def _give_back(self, rotation: Rotation, error: ByokError) -> None:
        wake_at = self._clock.now() + retry_delay(rotation.attempts, self._random.fraction())
        with self._store.transaction() as tx:
            tx.rotations.release(rotation, wake_at, f"{error.code}: {error.message}")

    def _fail(self, tenant: Tenant, key: Key, claimed: Rotation, error: ByokError) -> None:
        """End a rotation: its pending version is rejected, the key is tried again later if it is due.

        Does nothing if another worker has claimed the rotation meanwhile: it may fare better.
        """
        now = self._clock.now()
        failure = f"{error.code}: {error.message}"
        with self._store.transaction() as tx:
            key = tx.keys.lock(key.id)
            rotation = tx.rotations.get(claimed.id)
            if not rotation.is_open or rotation.attempts != claimed.attempts:
                return
            if rotation.version_number is not None:
                version = tx.versions.get(key.id, rotation.version_number)
                if isinstance(error, Rejected):
                    tx.versions.set_checks(version, error.checks)
                tx.versions.transition(version, VersionState.REJECTED, now)
            tx.rotations.transition(rotation, RotationState.FAILED, now, failure=failure)
            retry_at = now + min(key.rotation_period, RETRY_FAILED_AFTER)
            key = replace(key, next_rotation_at=max(key.next_rotation_at or now, retry_at))
            tx.keys.update(
                key.id,
                rotation_period=key.rotation_period,
                lease_ttl=key.lease_ttl,
                next_rotation_at=key.next_rotation_at,
            )
            tx.audit.append(
                tenant.id, now, "rotation", "rotation.failed",
                key=key.name, version=rotation.version_number, rotation=str(rotation.id), failure=failure,
            )  # fmt: skip
        log.error("rotation_failed", tenant=tenant.name, key=key.name, rotation=str(claimed.id), why=failure)
