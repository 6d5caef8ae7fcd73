"""Tenants that leave: stopped now, shredded after their retention, certified."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import rfc8785

from byok.core.encryption_context import probe_context
from byok.core.model import Suspension, SuspensionKind, Tenant, TenantState
from byok.core.offboarding import (
    Offboarding,
    OffboardingEvent,
    OffboardingState,
    Signed,
    check_retention,
    shred_time,
)
from byok.core.shred_certificate import ACCESS_KIND, KIND, access_statement_of, certificate_of
from byok.core.stops import StopReport
from byok.crypto.keyring import MasterKeyRing
from byok.crypto.reports import sign_report
from byok.errors import ByokError, IllegalTransition, KmsAccessRevoked, LostRace, NotReady, StoreUnavailable
from byok.failpoints import FailPoint, reached
from byok.logs import get_logger
from byok.ports import Clock, Kms, Random, Store, Transaction
from byok.services.kill_switch import KillSwitch
from byok.services.lookout import Lookout
from byok.services.records import require_connection
from byok.services.shred_proofs import ShredProofs
from byok.services.shredding import Progress, Shredding, end_tenant
from byok.services.suspension import Suspensions

log = get_logger(__name__)

_TENANTS_A_SWEEP = 20
_LONGEST_SWEEP_SECONDS = 10.0


def _tell_nobody(done: int, total: int) -> None:
    """No progress is shown."""


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
        kms: Kms,
        suspensions: Suspensions,
        kill_switch: KillSwitch,
        lookout: Lookout,
        shredding: Shredding,
        proofs: ShredProofs,
        master_keys: MasterKeyRing,
        clock: Clock,
        random: Random,
    ) -> None:
        self._store = store
        self._kms = kms
        self._suspensions = suspensions
        self._kill_switch = kill_switch
        self._lookout = lookout
        self._shredding = shredding
        self._proofs = proofs
        self._master_keys = master_keys
        self._clock = clock
        self._random = random

    def begin(self, tenant_name: str, reason: str, *, retention: timedelta, actor: str) -> Departure:
        """Stop a tenant now, for good: its wrapped keys are destroyed after ``retention``.

        One that is stopped already stays so, and no probe lets it go on. One that never was active has
        nothing to keep: it has left at once.

        Raises:
            UnknownTenant, OutOfBounds, LostRace; IllegalTransition: it leaves, or has left.
        """
        check_retention(retention)
        with self._store.transaction() as tx:
            tenant = tx.tenants.get(tenant_name)
            ttls = [key.lease_ttl for key in tx.keys.list(tenant.id)]
            if (known := tx.offboardings.find(tenant.id)) is not None:
                raise IllegalTransition(
                    f"tenant {tenant_name!r} leaves already: it is {known.state}",
                    remedy=f"byok tenant offboard {tenant_name} --finish, or --cancel",
                )
        now = self._clock.now()

        def beside(tx: Transaction, stopped: Tenant) -> None:
            stops = tx.stops.list_latest(stopped.id, limit=1)
            offboarding = Offboarding(
                self._random.uuid(), stopped.id, OffboardingState.WAITING, actor, now, reason,
                shred_time(self._clock.now(), retention, ttls), stops[0].stop.id if stops else None,
            )  # fmt: skip
            tx.offboardings.add(offboarding)
            tx.audit.append(
                stopped.id, now, actor, "tenant.offboarding-began",
                reason=reason, shred_after=offboarding.shred_after.isoformat(),
            )  # fmt: skip

        suspension = Suspension(f"leaves: {reason}", now, SuspensionKind.LEAVING)
        if tenant.state is TenantState.PENDING:
            self._end_at_once(tenant, reason, actor)
        elif tenant.state is TenantState.SUSPENDED:
            self._suspensions.replace(tenant, suspension, actor, beside)
        elif self._suspensions.suspend(tenant, suspension, actor, beside) is None:
            raise LostRace(f"tenant {tenant_name!r} was stopped by somebody else at this moment")
        return self.show(tenant_name)

    def _end_at_once(self, tenant: Tenant, reason: str, actor: str) -> None:
        now = self._clock.now()
        with self._store.transaction() as tx:
            end_tenant(tx, tx.tenants.lock(tenant.id), now, actor)
            tx.offboardings.add(
                Offboarding(
                    self._random.uuid(), tenant.id, OffboardingState.SHREDDED, actor, now, reason,
                    shred_after=now, shredding_at=now, shredded_at=now,
                )
            )  # fmt: skip

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
        return self._certify(offboarding, actor)

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
                self._certify(offboarding, "sweep")
                return True
        except StoreUnavailable:
            raise
        except ByokError as error:
            # Of one tenant: the others' day has come, too.
            log.error("offboarding_waits", tenant_id=str(offboarding.tenant_id), why=error.message)
        return False

    def _certify(self, offboarding: Offboarding, actor: str) -> Signed:
        """Prove and sign, unless that is done; of two at once the first one's certificate counts."""
        if offboarding.certificate is not None:
            return offboarding.certificate
        with self._store.transaction() as tx:
            tenant = tx.tenants.get_by_id(offboarding.tenant_id)
        self._lookout.look(tenant.name, actor=actor)  # closes its findings
        report = certificate_of(self._proofs.gather(offboarding))
        signed = sign_report(self._master_keys, KIND, report)
        now = self._clock.now()
        with self._store.transaction() as tx:
            current = tx.offboardings.lock(offboarding.id)
            if current.certificate is not None:
                return current.certificate
            tx.offboardings.transition(current, OffboardingEvent.CERTIFY, now, certificate=signed)
            tx.audit.append(
                tenant.id, now, actor, "tenant.shred-certified",
                sha256=_digest(signed), passed=str(report["passed"]).lower(),
            )  # fmt: skip
            reached(FailPoint.CERTIFYING)
        log.warning("shred_certified", tenant=tenant.name, passed=report["passed"])
        return signed

    def check_access(self, tenant_name: str, *, actor: str) -> Signed:
        """Try whether a customer that has left still lets us in; keep and return the signed statement.

        Raises:
            UnknownTenant; NotReady: it has not left, or had no connection; Unavailable: AWS did not say.
        """
        departure = self.show(tenant_name)
        tenant, offboarding = departure.tenant, departure.offboarding
        if offboarding.certificate is None or tenant.connection is None:
            raise NotReady(
                f"tenant {tenant_name!r} is {tenant.state}: access is tried once it has left, certified",
                remedy=f"byok tenant offboard {tenant_name} --finish",
            )
        connection = require_connection(tenant)
        calls = [
            _tried(
                "GenerateDataKeyWithoutPlaintext",
                lambda: self._kms.generate_data_key(connection, probe_context(tenant.id)),
            ),
            _tried("DescribeKey", lambda: self._kms.describe_key(connection)),
        ]
        now = self._clock.now()
        report = access_statement_of(tenant, connection, calls, now)
        signed = sign_report(self._master_keys, ACCESS_KIND, report)
        with self._store.transaction() as tx:
            tx.offboardings.set_access_statement(offboarding, signed)
            tx.audit.append(
                tenant.id, now, actor, "tenant.access-checked",
                shut_out=str(report["shut_out"]).lower(), aws_code=calls[0]["aws_code"],
                request_id=calls[0]["request_id"], sha256=_digest(signed),
            )  # fmt: skip
        return signed


def _tried(operation: str, call: Callable[[], object]) -> dict[str, Any]:
    """A call that is to be refused, and how it was."""
    try:
        call()
    except KmsAccessRevoked as refusal:
        return {
            "operation": operation,
            "refused": True,
            "aws_code": refusal.aws_code,
            "request_id": refusal.request_id,
        }
    return {"operation": operation, "refused": False, "aws_code": "", "request_id": ""}


def _digest(signed: Signed) -> str:
    """SHA-256 over the canonical JSON of a signed document, so that the audit log names the one it means."""
    return hashlib.sha256(rfc8785.dumps(dict(signed))).hexdigest()
