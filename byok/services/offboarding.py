"""Tenants that leave: stopped now, shredded after their retention, certified."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from byok.core.bounds import MAX_LEASE_TTL
from byok.core.model import Suspension, SuspensionKind, Tenant, TenantState
from byok.core.offboarding import (
    Offboarding,
    OffboardingEvent,
    OffboardingState,
    Signed,
    check_retention,
    shred_time,
)
from byok.core.stops import StopReport
from byok.errors import ByokError, IllegalTransition, LostRace, NotReady, StoreUnavailable
from byok.logs import get_logger
from byok.ports import Clock, Random, Store, Transaction
from byok.services.certification import Certification
from byok.services.kill_switch import KillSwitch
from byok.services.releases import require_no_older_release
from byok.services.shredding import Progress, Shredding, end_tenant
from byok.services.suspension import Suspensions, require_present

log = get_logger(__name__)

_TENANTS_A_SWEEP = 20
_LONGEST_SWEEP_SECONDS = 10.0
_LATEST_EVENTS = 500


def _tell_nobody(done: int, total: int) -> None:
    """No progress is shown."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Who asks that a tenant leaves, when, why, and how long its wrapped keys are to be kept."""

    reason: str
    retention: timedelta
    by: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Departure:
    """A tenant, its way out, and the stop that ended its use; None: it never was active."""

    tenant: Tenant
    offboarding: Offboarding
    stop: StopReport | None


class Offboardings:
    """Leads tenants out."""

    def __init__(
        self,
        *,
        store: Store,
        suspensions: Suspensions,
        kill_switch: KillSwitch,
        shredding: Shredding,
        certification: Certification,
        clock: Clock,
        random: Random,
    ) -> None:
        self._store = store
        self._suspensions = suspensions
        self._kill_switch = kill_switch
        self._shredding = shredding
        self._certification = certification
        self._clock = clock
        self._random = random

    def begin(self, tenant_name: str, reason: str, *, retention: timedelta, actor: str) -> Departure:
        """Stop a tenant now, for good: its wrapped keys are destroyed after ``retention``.

        One that is stopped already stays so, and no probe lets it go on. One that never was active has
        nothing to keep: it has left at once.

        Raises:
            UnknownTenant, OutOfBounds, LostRace; IllegalTransition, TenantNotActive: it leaves, or has left;
            NotReady: a process of an older release lives.
        """
        check_retention(retention)
        now = self._clock.now()
        with self._store.transaction() as tx:
            tenant = tx.tenants.get(tenant_name)
            require_no_older_release(tx, now)
            if (known := tx.offboardings.find(tenant.id)) is not None:
                raise IllegalTransition(
                    f"tenant {tenant_name!r} leaves already: that is {known.state}",
                    remedy=f"byok tenant show {tenant_name} says how far it is",
                )
        require_present(tenant)
        wanted = _Wanted(reason, retention, actor, now)
        suspension = Suspension(f"leaves: {reason}", now, SuspensionKind.LEAVING)
        beside = partial(self._record, wanted)  # in the transaction of the stop
        if tenant.state is TenantState.PENDING:
            self._end_at_once(tenant, wanted)
        elif tenant.state is TenantState.SUSPENDED:
            self._suspensions.replace(tenant, suspension, actor, beside)
        elif self._suspensions.suspend(tenant, suspension, actor, beside) is None:
            raise LostRace(f"tenant {tenant_name!r} was stopped by somebody else at this moment")
        return self.show(tenant_name)

    def _record(self, wanted: _Wanted, tx: Transaction, stopped: Tenant) -> None:
        stops = tx.stops.list_latest(stopped.id, limit=1)
        now = self._clock.now()
        shred_after = shred_time(now, wanted.retention, _longest_lease(tx, stopped, now))
        tx.offboardings.add(
            Offboarding(
                id=self._random.uuid(),
                tenant_id=stopped.id,
                state=OffboardingState.WAITING,
                requested_by=wanted.by,
                requested_at=wanted.at,
                reason=wanted.reason,
                shred_after=shred_after,
                stop_id=stops[0].stop.id if stops else None,
            )
        )
        tx.audit.append(
            stopped.id, wanted.at, wanted.by, "tenant.offboarding-began",
            reason=wanted.reason, shred_after=shred_after.isoformat(),
        )  # fmt: skip

    def _end_at_once(self, tenant: Tenant, wanted: _Wanted) -> None:
        with self._store.transaction() as tx:
            end_tenant(tx, tx.tenants.lock(tenant.id), wanted.at, wanted.by)
            tx.offboardings.add(
                Offboarding(
                    id=self._random.uuid(),
                    tenant_id=tenant.id,
                    state=OffboardingState.SHREDDED,
                    requested_by=wanted.by,
                    requested_at=wanted.at,
                    reason=wanted.reason,
                    shred_after=wanted.at,
                    shredding_at=wanted.at,
                    shredded_at=wanted.at,
                )
            )

    def show(self, tenant_name: str) -> Departure:
        """How far a tenant is on its way out.

        Raises:
            UnknownTenant; NotReady: it does not leave.
        """
        with self._store.transaction() as tx:
            tenant = tx.tenants.get(tenant_name)
            offboarding = tx.offboardings.find(tenant.id)
            if offboarding is None:
                raise NotReady(
                    f"tenant {tenant_name!r} is {tenant.state}, and not on its way out",
                    remedy=f"byok tenant offboard {tenant_name} --reason TEXT",
                )
            stop = None if offboarding.stop_id is None else tx.stops.report(offboarding.stop_id)
        return Departure(tenant, offboarding, stop)

    def wait_for(
        self, stop: StopReport, patience: timedelta, seen: Callable[[StopReport], None]
    ) -> StopReport:
        """Wait until every process has answered the stop, or ``patience`` has passed."""
        return self._kill_switch.wait_for(stop, patience, seen)

    def cancel(self, tenant_name: str, *, actor: str) -> Tenant:
        """Take back that a tenant leaves; then let it go on, once its access is proven.

        Its wrapped keys are safe from the first of the two on: where KMS refuses or is away, it stays stopped
        as if somebody had stopped it by hand.

        Raises:
            UnknownTenant; NotReady: it does not leave; IllegalTransition: too late; and what
            `KillSwitch.resume` raises.
        """
        departure = self.show(tenant_name)
        now = self._clock.now()
        with self._store.transaction() as tx:
            offboarding = tx.offboardings.lock(departure.offboarding.id)
            if offboarding.state is not OffboardingState.WAITING:
                raise IllegalTransition(
                    f"it is too late: the leaving of tenant {tenant_name!r} is {offboarding.state}",
                    remedy=f"byok tenant certificate {tenant_name}",
                )
            tx.offboardings.transition(offboarding, OffboardingEvent.CANCEL, now)
            tenant = tx.tenants.lock(offboarding.tenant_id)
            locked = Suspension("it stays, and is to be proven", now, SuspensionKind.LOCKED)
            tx.tenants.replace_suspension(tenant, locked)
            tx.audit.append(tenant.id, now, actor, "tenant.offboarding-cancelled")
        log.warning("offboarding_cancelled", tenant=tenant_name)
        return self._kill_switch.resume(tenant_name, actor=actor)

    def finish(self, tenant_name: str, *, actor: str, progress: Progress = _tell_nobody) -> Signed:
        """Destroy the wrapped keys of a tenant whose day has come, prove it, and return the certificate.

        Goes on from wherever another finisher died; what is done already is not done again.

        Raises:
            UnknownTenant; NotReady: it does not leave, or it is too early; ValidationFailed: something still
            decrypts; Unavailable; InvariantBroken.
        """
        offboarding = self._shredding.run(self.show(tenant_name).offboarding, actor=actor, progress=progress)
        return self._certification.certify(offboarding, actor)

    def finish_due(self) -> int:
        """Lead out whose day has come, for a few seconds; return how many certificates there are more. What
        is left is for the next sweep.

        Raises:
            StoreUnavailable.
        """
        late_ticks = self._clock.ticks() + _LONGEST_SWEEP_SECONDS
        with self._store.transaction() as tx:
            due = tx.offboardings.list_due(self._clock.now(), _TENANTS_A_SWEEP)
        return sum(self._finish_one(one, lambda: self._clock.ticks() >= late_ticks) for one in due)

    def _finish_one(self, offboarding: Offboarding, is_late: Callable[[], bool]) -> bool:
        try:
            offboarding = self._shredding.run(
                offboarding, actor="sweep", progress=_tell_nobody, is_late=is_late
            )
            if offboarding.state is OffboardingState.SHREDDED:
                self._certification.certify(offboarding, "sweep")
                return True
        except StoreUnavailable:
            raise
        except ByokError as error:
            # Of one tenant: the others' day has come, too.
            log.error("offboarding_waits", tenant_id=str(offboarding.tenant_id), why=error.message)
        return False

    def check_access(self, tenant_name: str, *, actor: str) -> Signed:
        """Try whether a customer that has left still lets us in; see `Certification.check_access`.

        Raises:
            UnknownTenant; NotReady: it does not leave; and as that.
        """
        departure = self.show(tenant_name)
        return self._certification.check_access(departure.tenant, departure.offboarding, actor)


def _longest_lease(tx: Transaction, tenant: Tenant, now: datetime) -> timedelta:
    """The longest that a lease on any of a tenant's keys may live now.

    A cache TTL that was changed within the longest life of a lease may have been that long before.
    """
    last = tx.audit.chain(tenant).length
    latest = tx.audit.list_after(tenant.id, max(0, last - _LATEST_EVENTS), _LATEST_EVENTS)
    recent = [event for event in latest if event.at > now - MAX_LEASE_TTL]
    changed = any(event.action == "key.rotation-set" for event in recent)
    if changed or len(recent) == _LATEST_EVENTS:  # more than that are not looked through
        return MAX_LEASE_TTL
    return max((key.lease_ttl for key in tx.keys.list(tenant.id)), default=timedelta(0))
