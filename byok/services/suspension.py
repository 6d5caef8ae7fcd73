"""Stopping and resuming a tenant: the database first, then every cache."""

from byok.core.model import Suspension, Tenant, TenantEvent, TenantState
from byok.errors import CacheUnavailable, KmsAccessRevoked, LostRace, TenantNotActive
from byok.logs import get_logger
from byok.ports import Clock, LeaseCache, Store

log = get_logger(__name__)


def require_active(tenant: Tenant) -> None:
    """Let active tenants pass.

    Raises:
        TenantNotActive: pending, suspended or offboarded.
    """
    if tenant.state is TenantState.ACTIVE:
        return
    why = ""
    if tenant.suspension is not None:
        evidence = f" ({tenant.suspension.aws_code})" if tenant.suspension.aws_code else ""
        why = f": {tenant.suspension.reason}{evidence}"
    remedies = {
        TenantState.PENDING: f"byok tenant verify {tenant.name} --kms-key-arn ARN --role-arn ARN",
        TenantState.SUSPENDED: "access comes back by itself once the customer's KMS allows it again",
        TenantState.OFFBOARDED: "the tenant has left for good",
    }
    raise TenantNotActive(f"tenant {tenant.name!r} is {tenant.state}{why}", remedy=remedies[tenant.state])


class Suspensions:
    """The one path by which a tenant stops."""

    def __init__(self, store: Store, cache: LeaseCache, clock: Clock) -> None:
        self._store = store
        self._cache = cache
        self._clock = clock

    def revoked(self, tenant: Tenant, refusal: KmsAccessRevoked, actor: str) -> None:
        """Suspend a tenant whose KMS refused us, with the refusal as evidence."""
        self.suspend(
            tenant,
            Suspension(
                reason=refusal.reason,
                since=self._clock.now(),
                aws_code=refusal.aws_code,
                request_id=refusal.request_id,
            ),
            actor,
        )

    def suspend(self, tenant: Tenant, suspension: Suspension, actor: str) -> None:
        """Commit the suspension, then purge the cache. Does nothing to a tenant that is not active.

        The commit moves the tenant to its next generation, so an entry that a slower process still
        writes is filed under the old one and never found again.
        """
        try:
            with self._store.transaction() as tx:
                current = tx.tenants.get_by_id(tenant.id)
                if current.state is not TenantState.ACTIVE:
                    return
                tx.tenants.transition(current, TenantEvent.SUSPEND, suspension.since, suspension)
                tx.audit.append(
                    tenant.id,
                    suspension.since,
                    actor,
                    "tenant.suspended",
                    reason=suspension.reason,
                    aws_code=suspension.aws_code,
                    request_id=suspension.request_id,
                )
        except LostRace:
            return  # somebody else changed the tenant's state first, and purges
        log.warning(
            "tenant_suspended",
            tenant=tenant.name,
            reason=suspension.reason,
            aws_code=suspension.aws_code,
            kms_request_id=suspension.request_id,
        )
        self._purge(tenant)

    def _purge(self, tenant: Tenant) -> None:
        try:
            purged = self._cache.purge(tenant.id)
        except CacheUnavailable:
            # Nothing is lost by it: no reader looks under the old generation any more.
            log.warning("purge_failed", tenant=tenant.name)
        else:
            log.info("leases_purged", tenant=tenant.name, count=purged)
