"""The vendor's and the customer's own "stop now", and the exercise of it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from byok.core.model import Suspension, SuspensionKind, Tenant, TenantState
from byok.core.stops import RevocationBound, StopReport, alive_since, probe_period, revocation_bound
from byok.errors import IllegalTransition, KmsAccessRevoked, LostRace, NotReady
from byok.ports import Clock, Store
from byok.services.access import Access
from byok.services.suspension import Suspensions, is_leaving, require_active

_LOOK_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Drill:
    """An exercise: what was stopped, how fast each process obeyed, and when it went on."""

    tenant: Tenant
    conductor: str
    report: StopReport
    bound: RevocationBound
    resumed_at: datetime

    @property
    def passed(self) -> bool:
        """Whether every process answered, and within the time that telling them may take."""
        return not self.report.silent and self.report.latency <= self.bound.told


class KillSwitch:
    """Stops tenants at somebody's word, and lets them go on once their access is proven."""

    def __init__(
        self,
        *,
        store: Store,
        suspensions: Suspensions,
        access: Access,
        clock: Clock,
        recheck: timedelta,
        longest_probe_period: timedelta,
    ) -> None:
        self._store = store
        self._suspensions = suspensions
        self._access = access
        self._clock = clock
        self._recheck = recheck
        self._longest_probe_period = longest_probe_period

    def suspend(
        self, tenant_name: str, reason: str, *, actor: str, kind: SuspensionKind = SuspensionKind.LOCKED
    ) -> tuple[Tenant, StopReport]:
        """Stop an active tenant now; return it with the report as it stands.

        One that AWS's refusal, or a drill, has stopped already is locked: no probe lets it go on.

        Raises:
            UnknownTenant, TenantNotActive: pending, offboarded, or locked before; LostRace.
        """
        with self._store.transaction() as tx:
            tenant = tx.tenants.get(tenant_name)
        suspension = Suspension(reason, self._clock.now(), kind)
        if kind is SuspensionKind.LOCKED and _may_be_locked(tenant):
            self._suspensions.replace(tenant, suspension, actor)
        else:
            require_active(tenant)
            if self._suspensions.suspend(tenant, suspension, actor) is None:
                raise LostRace(f"tenant {tenant_name!r} was stopped by somebody else at this moment")
        with self._store.transaction() as tx:
            return tx.tenants.get(tenant_name), tx.stops.list_latest(tenant.id, limit=1)[0]

    def resume(self, tenant_name: str, *, actor: str) -> Tenant:
        """Let a suspended tenant go on, after a new session, a Decrypt of each active version and a match
        of its fingerprint.

        Raises:
            UnknownTenant, IllegalTransition, KmsAccessRevoked, KmsUnavailable, IntegrityError, LostRace.
        """
        with self._store.transaction() as tx:
            tenant = tx.tenants.get(tenant_name)
        if is_leaving(tenant):
            raise IllegalTransition(
                f"tenant {tenant_name!r} leaves", remedy=f"byok tenant offboard {tenant_name} --cancel"
            )
        if tenant.state is not TenantState.SUSPENDED:
            raise IllegalTransition(f"tenant {tenant_name!r} is {tenant.state}, not suspended")
        self._access.prove_all(tenant)
        return self._suspensions.resume(tenant, actor)

    def wait_for(
        self, report: StopReport, patience: timedelta, seen: Callable[[StopReport], None]
    ) -> StopReport:
        """Wait until every process has answered a stop, or ``patience`` has passed."""
        give_up_ticks = self._clock.ticks() + patience.total_seconds()
        while report.silent and self._clock.ticks() < give_up_ticks:
            self._clock.sleep(_LOOK_SECONDS)
            with self._store.transaction() as tx:
                report = tx.stops.report(report.stop.id)
            seen(report)
        return report

    def drill(
        self, tenant_name: str, *, actor: str, patience: timedelta, seen: Callable[[StopReport], None]
    ) -> Drill:
        """Stop a tenant for real, in our fleet alone; measure every process; let it go on.

        The tenant's calls are refused meanwhile. Should this process die, a probe lets the tenant go on
        after a minute.

        Raises:
            UnknownTenant, TenantNotActive, NotReady, LostRace; KmsAccessRevoked, KmsUnavailable and
            IntegrityError: it does not go on.
        """
        with self._store.transaction() as tx:
            alive = tx.members.count(alive_since(self._clock.now()))
            tenant = tx.tenants.get(tenant_name)
        if not alive:
            raise NotReady("no process holds leases: there is nothing to measure", remedy="start a service")
        bound = self.bound(tenant)  # before anything is stopped: without a key there is none
        tenant, report = self.suspend(tenant_name, "a drill", actor=actor, kind=SuspensionKind.DRILL)
        try:
            seen(report)
            report = self.wait_for(report, patience, seen)
        finally:
            self._end_drill(tenant, actor)
        return Drill(tenant, actor, report, bound, self._clock.now())

    def _end_drill(self, drilled: Tenant, actor: str) -> None:
        """Let go on what this drill stopped, unless somebody or AWS has stopped it for good meanwhile."""
        with self._store.transaction() as tx:
            tenant = tx.tenants.get_by_id(drilled.id)
        if tenant.generation != drilled.generation:
            return
        try:
            self._access.prove_all(tenant)
            self._suspensions.resume(tenant, actor)
        except KmsAccessRevoked as refusal:
            self._suspensions.revoked(tenant, refusal, actor)
            raise
        except LostRace:
            return

    def bound(self, tenant: Tenant) -> RevocationBound:
        """How long a revocation may take to stop every process, by the tenant's longest lease.

        Raises:
            NotReady: the tenant has no key.
        """
        with self._store.transaction() as tx:
            ttls = [key.lease_ttl for key in tx.keys.list(tenant.id)]
        if not ttls:
            raise NotReady(f"tenant {tenant.name!r} has no key: there is nothing to stop")
        return revocation_bound(max(ttls), probe_period(self._longest_probe_period, ttls), self._recheck)

    def reports(self, tenant: Tenant, limit: int = 10) -> list[StopReport]:
        """A tenant's latest stops, newest first."""
        with self._store.transaction() as tx:
            return list(tx.stops.list_latest(tenant.id, limit))


def _may_be_locked(tenant: Tenant) -> bool:
    ends_by_itself = (SuspensionKind.REVOKED, SuspensionKind.DRILL)
    return tenant.suspension is not None and tenant.suspension.kind in ends_by_itself
