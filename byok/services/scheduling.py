"""What Beat sets off: due keys, requests that got lost, periodic probes and validations."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial

from byok.core.model import RotationReason, TenantState
from byok.errors import QueueUnavailable
from byok.logs import get_logger
from byok.ports import Clock, Store, TaskQueue
from byok.services.rotations import PUBLISH_GRACE_SECONDS, Rotations

log = get_logger(__name__)

_BATCH = 100
_PROBED_STATES = (TenantState.ACTIVE, TenantState.SUSPENDED)


class Scheduling:
    """Finds work by what the tables say; a tick that comes twice finds nothing the second time."""

    def __init__(self, store: Store, rotations: Rotations, queue: TaskQueue, clock: Clock) -> None:
        self._store = store
        self._rotations = rotations
        self._queue = queue
        self._clock = clock

    def dispatch_due(self) -> int:
        """Request a rotation for every key that is due; return how many."""
        total = 0
        while batch := self._dispatch_batch():
            total += batch
        return total

    def _dispatch_batch(self) -> int:
        with self._store.transaction() as tx:
            due = []
            for tenant, key in tx.keys.lock_due(self._clock.now(), _BATCH):
                has_version = tx.versions.find_active(key.id) is not None
                reason = RotationReason.SCHEDULED if has_version else RotationReason.INITIAL
                assert key.next_rotation_at is not None
                requested = self._rotations.record_request(
                    tx, tenant, key, reason, "schedule",
                    idempotency_key=f"{reason}:{key.next_rotation_at.isoformat()}",
                )  # fmt: skip
                due.append((tenant.name, key.name, requested))
        fresh = [(tenant, key, requested) for tenant, key, requested in due if not requested.joined]
        for tenant_name, key_name, requested in fresh:
            self._rotations.publish(tenant_name, key_name, requested.rotation)
        return len(fresh)

    def sweep(self) -> int:
        """Publish open rotations again that nobody works on: lost messages, dead workers, due retries."""
        now = self._clock.now()
        with self._store.transaction() as tx:
            waking = tx.rotations.lock_waking(now, _BATCH, now + timedelta(seconds=PUBLISH_GRACE_SECONDS))
        for tenant_name, key_name, rotation in waking:
            self._rotations.publish(tenant_name, key_name, rotation)
        if waking:
            log.info("sweep_published", count=len(waking))
        return len(waking)

    def publish_probes(self) -> int:
        """Publish a liveness probe for every tenant whose access matters."""
        with self._store.transaction() as tx:
            names = [tenant.name for tenant in tx.tenants.list() if tenant.state in _PROBED_STATES]
        return self._publish_all([partial(self._queue.probe, name) for name in names])

    def publish_validations(self) -> int:
        """Publish a validation of the active version of every key of every active tenant."""
        with self._store.transaction() as tx:
            tenants = [tenant for tenant in tx.tenants.list() if tenant.state is TenantState.ACTIVE]
            named = [(tenant.name, key.name) for tenant in tenants for key in tx.keys.list(tenant.id)]
        return self._publish_all([partial(self._queue.validate, tenant, key) for tenant, key in named])

    def _publish_all(self, publications: Sequence[Callable[[], None]]) -> int:
        """Publish until the broker fails; the next tick comes back for the rest."""
        for done, publish in enumerate(publications):
            try:
                publish()
            except QueueUnavailable as error:
                log.warning("not_published", count=len(publications) - done, error=error.message)
                return done
        return len(publications)
