"""Following the customer's KMS key: its tag and its own rotation decide how often data keys are rotated.

Nothing here is urgent, and nothing here stops a tenant: what can't be read leaves the last good value.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, timedelta

from byok.core.model import Key, KmsKeyRotation, OpenWork, RequestOutcome, RotationReason, Tenant
from byok.core.rotation_period import ROTATION_TAG, resolve_rotation_period
from byok.logs import get_logger
from byok.ports import Clock, Kms, Store, Transaction
from byok.services.records import require_connection
from byok.services.requests import RotationRequests
from byok.services.suspension import require_active

log = get_logger(__name__)

# Rotations of one tenant, whose KMS takes a few at a time.
_PUBLISHED_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Synced:
    """What a sync read, and what followed from it."""

    tenant: Tenant
    kms_key_rotation: KmsKeyRotation
    ignored_tag: str | None
    keys: Sequence[Key]
    rotated: Sequence[OpenWork]


class KmsKeyFollower:
    """Reads what the KMS key says of rotation and passes it on to the tenant's keys.

    ``longest`` is the vendor's bound on every period.
    """

    def __init__(
        self, store: Store, kms: Kms, requests: RotationRequests, clock: Clock, longest: timedelta
    ) -> None:
        self._store = store
        self._kms = kms
        self._requests = requests
        self._clock = clock
        self._longest = longest

    def sync(self, tenant_name: str, *, actor: str) -> Synced:
        """Read the KMS key's tag, rotation period and material; adapt periods and rotate what is behind.

        Run twice a day it does nothing the second time. Keys whose active version was made of other
        material are rotated, at most once a day, until that is no longer so.

        Raises:
            UnknownTenant, TenantNotActive, KmsUnavailable, KmsAccessRevoked, StoreUnavailable.
        """
        with self._store.transaction() as tx:
            tenant = tx.tenants.get(tenant_name)
            require_active(tenant)
            keys = tx.keys.list(tenant.id)
        reading = self._kms.read_rotation(require_connection(tenant))
        if reading.ignored_tag is not None:
            log.warning("rotation_tag_ignored", tenant=tenant.name, tag=ROTATION_TAG, want="1 to 3650 days")
        now, known = self._clock.now(), reading.known
        with self._store.transaction() as tx:
            current = tx.tenants.lock(tenant.id)  # of several syncs at once one finds it changed
            tx.tenants.set_kms_key_rotation(current, known, now)
            if known != current.kms_key_rotation:
                tx.audit.append(
                    tenant.id, now, actor, "tenant.kms-key-rotation-changed",
                    tag_days=known.tag_days, period_days=known.period_days, material=known.material_id,
                )  # fmt: skip
        rotated: list[OpenWork] = []
        synced = [self._sync_key(tenant, key, reading.known, actor, rotated) for key in keys]
        self._requests.publish(*rotated[:_PUBLISHED_AT_ONCE])  # the sweeper publishes the others bit by bit
        return Synced(tenant, reading.known, reading.ignored_tag, synced, rotated)

    def _sync_key(
        self, tenant: Tenant, key: Key, kms_key: KmsKeyRotation, actor: str, rotated: list[OpenWork]
    ) -> Key:
        # A transaction for each key: one over all would hold their locks and the audit head's together.
        with self._store.transaction() as tx:
            key = self._adapt_period(tx, tenant, tx.keys.lock(key.id), kms_key, actor)
            active = tx.versions.find_active(key.id)
            made_of = None if active is None else active.kms_key_material_id
            if made_of is not None and kms_key.material_id not in (None, made_of):
                # The day in the key: what was asked may end without bringing the new material, because it
                # failed or joined a rotation that had its version already. Then the next day asks again.
                day = self._clock.now().astimezone(UTC).date()
                requested = self._requests.record_in(
                    tx, tenant, key, RotationReason.KMS_KEY_ROTATED, actor,
                    idempotency_key=f"kms-key-rotated:{kms_key.material_id}:{day}",
                )  # fmt: skip
                if requested.outcome is RequestOutcome.NEW:
                    rotated.append(OpenWork(tenant.name, key.name, requested.rotation))
        return key

    def _adapt_period(
        self, tx: Transaction, tenant: Tenant, key: Key, kms_key: KmsKeyRotation, actor: str
    ) -> Key:
        period, source = resolve_rotation_period(key.rotation_setting, kms_key, self._longest)
        if (period, source) == (key.rotation_period, key.rotation_source):
            return key
        active = tx.versions.find_active(key.id)
        due = key.next_rotation_at
        if active is not None and active.activated_at is not None and period != key.rotation_period:
            # Counted from the latest activation: however often the tag changes, a key is rotated at most
            # once a day, the shortest period that a tag can ask for.
            due = active.activated_at + period
        changed = replace(key, rotation_period=period, rotation_source=source, next_rotation_at=due)
        tx.keys.update(changed)
        tx.audit.append(
            tenant.id, self._clock.now(), actor, "key.rotation-set",
            key=key.name, rotation_period_seconds=int(period.total_seconds()), source=source.value,
            before_seconds=int(key.rotation_period.total_seconds()), source_before=key.rotation_source.value,
        )  # fmt: skip
        return changed
