"""Requests for rotations: recorded once whoever asks how often, then published.

The row is the request. A message only wakes a worker up: lost, late or doubled, it changes nothing.
"""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import tenacity

from byok.core.model import (
    Key,
    OpenWork,
    RequestOutcome,
    Rotation,
    RotationReason,
    RotationState,
    Tenant,
)
from byok.errors import LostRace, NotReady, QueueUnavailable
from byok.failpoints import FailPoint, reached
from byok.logs import get_logger
from byok.ports import Clock, Random, Store, TaskQueue, Transaction
from byok.services.suspension import require_active

log = get_logger(__name__)

# The rotation that a request joins can end at that very moment.
_asked_again = tenacity.Retrying(
    retry=tenacity.retry_if_exception_type(LostRace), stop=tenacity.stop_after_attempt(5), reraise=True
)


@dataclass(frozen=True, slots=True)
class Requested:
    """The answer to a request: the rotation that serves it, and whether that was made for it."""

    rotation: Rotation
    outcome: RequestOutcome

    @property
    def joined(self) -> bool:
        """Whether a rotation that somebody else asked for serves this request, too."""
        return self.outcome is RequestOutcome.JOINED


class RotationRequests:
    """Records and publishes requests.

    ``sweep_period``: a request that is not claimed after so long is published again by the sweeper.
    """

    def __init__(
        self, store: Store, queue: TaskQueue, clock: Clock, random: Random, sweep_period: timedelta
    ) -> None:
        self._store = store
        self._queue = queue
        self._clock = clock
        self._random = random
        self._sweep_period = sweep_period

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
        reached(FailPoint.REQUEST_RECORDED)
        graver = requested.joined and reason is RotationReason.COMPROMISE  # it waits in a queue for less
        if requested.outcome is RequestOutcome.NEW or graver:
            self.publish(OpenWork(tenant_name, key_name, requested.rotation))
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

        The same ``idempotency_key`` always gives the same rotation, also after that has ended. While one
        is open, another request joins it; a compromise gives the rotation that it joins its own reason.

        Raises:
            UnknownTenant, UnknownKey, TenantNotActive, LostRace, StoreUnavailable.
        """
        return _asked_again(self._record_once, tenant_name, key_name, reason, requested_by, idempotency_key)

    def _record_once(
        self,
        tenant_name: str,
        key_name: str,
        reason: RotationReason,
        requested_by: str,
        idempotency_key: str | None,
    ) -> Requested:
        with self._store.transaction() as tx:
            tenant = tx.tenants.get(tenant_name)
            require_active(tenant)
            key = tx.keys.get(tenant, key_name)
            return self.record_in(tx, tenant, key, reason, requested_by, idempotency_key)

    def record_in(
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
        new = Rotation(self._random.uuid(), key.id, reason, RotationState.REQUESTED, requested_by, now)
        rotation, outcome = tx.rotations.request(
            new, idempotency_key or str(new.id), now + self._sweep_period
        )
        if outcome is RequestOutcome.REPEATED:
            return Requested(rotation, outcome)
        if reason is RotationReason.COMPROMISE and rotation.reason is not reason:
            # Joining must not turn "the active version is compromised" into "retire it".
            rotation = tx.rotations.set_reason(rotation, reason)
        action = "rotation.requested" if outcome is RequestOutcome.NEW else "rotation.joined"
        tx.audit.append(
            tenant.id, now, requested_by, action,
            key=key.name, rotation=str(rotation.id), reason=reason.value,
        )  # fmt: skip
        return Requested(rotation, outcome)

    def retry(self, rotation_id: UUID, *, requested_by: str) -> Requested:
        """Ask again for what a failed rotation was to do. Asked twice, it is done once.

        Raises:
            UnknownRotation; NotReady: it has not failed; as `record`.
        """
        with self._store.transaction() as tx:
            work = tx.rotations.get_work(rotation_id)
        if work.rotation.state is not RotationState.FAILED:
            raise NotReady(
                f"rotation {rotation_id} is {work.rotation.state}; only a failed one is retried",
                remedy=f"byok key rotate {work.tenant} {work.key} asks for another version",
            )
        return self.request(
            work.tenant,
            work.key,
            reason=work.rotation.reason,
            requested_by=requested_by,
            idempotency_key=f"retry:{rotation_id}",
        )

    def get(self, rotation_id: UUID) -> Rotation:
        """A rotation as it stands now.

        Raises:
            UnknownRotation, StoreUnavailable.
        """
        with self._store.transaction() as tx:
            return tx.rotations.get(rotation_id)

    def publish(self, *works: OpenWork) -> None:
        """Publish recorded requests; a broker that is down delays them to the next sweep."""
        try:
            self._queue.rotate(works)
        except QueueUnavailable as error:
            log.warning("not_published", rotations=len(works), error=error.message)
