"""Stopping a tenant, and letting it go on: the database first, then every process and every cache."""

import contextlib
from collections.abc import Callable
from datetime import datetime, timedelta

from byok.core.bounds import MAX_LEASE_TTL
from byok.core.model import Suspension, SuspensionKind, Tenant, TenantEvent, TenantState
from byok.core.stops import Stop, alive_since
from byok.errors import CacheUnavailable, KmsAccessRevoked, LostRace, StoreUnavailable, TenantNotActive
from byok.logs import get_logger
from byok.ports import Clock, LeaseCache, Notice, NoticeBoard, Random, Store, Transaction

log = get_logger(__name__)

_BATCH = 100
_LONGEST_DRILL = timedelta(minutes=1)

# What else is written in the transaction of a stop, or of its new reason, under the tenant as it is then.
Beside = Callable[[Transaction, Tenant], None]


def _nothing(tx: Transaction, tenant: Tenant) -> None:
    """Write nothing beside."""


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
    raise TenantNotActive(f"tenant {tenant.name!r} is {tenant.state}{why}", remedy=_remedy(tenant))


def require_present(tenant: Tenant) -> None:
    """Let tenants pass that have not left: of the others nothing is set or tried any more.

    Raises:
        TenantNotActive: offboarded.
    """
    if tenant.state is TenantState.OFFBOARDED:
        require_active(tenant)


def require_unmoved(tx: Transaction, tenant: Tenant) -> None:
    """Let pass what was read of a tenant's versions: call it after that. A move to another KMS key may have
    been committed in between, and they would not fit the connection.

    Raises:
        LostRace: it moved, stopped or went on meanwhile.
    """
    if tx.tenants.get_by_id(tenant.id).generation != tenant.generation:
        raise LostRace(f"tenant {tenant.name!r} changed just now", remedy="look again")


def has_moved(tx: Transaction, tenant: Tenant) -> bool:
    """Whether a tenant is connected to another KMS key by now: then a refusal by the old one says nothing."""
    return tx.tenants.get_by_id(tenant.id).connection != tenant.connection


def _remedy(tenant: Tenant) -> str:
    if tenant.state is TenantState.PENDING:
        return f"byok tenant verify {tenant.name} --kms-key-arn ARN --role-arn ARN"
    if tenant.state is TenantState.OFFBOARDED:
        return "the tenant has left for good"
    kind = None if tenant.suspension is None else tenant.suspension.kind
    if kind is SuspensionKind.LOCKED:
        return f"whoever stopped it lets it go on: byok tenant resume {tenant.name}"
    if kind is SuspensionKind.DRILL:
        return "an exercise: it goes on within a minute"
    if kind is SuspensionKind.LEAVING:
        return f"it leaves for good; until that is done: byok tenant offboard {tenant.name} --cancel"
    return "access comes back by itself once the customer's KMS allows it again"


class Suspensions:
    """The one path by which a tenant stops, and the one by which it goes on."""

    def __init__(
        self, store: Store, cache: LeaseCache, board: NoticeBoard, clock: Clock, random: Random
    ) -> None:
        self._store = store
        self._cache = cache
        self._board = board
        self._clock = clock
        self._random = random

    def revoked(self, tenant: Tenant, refusal: KmsAccessRevoked, actor: str) -> None:
        """Suspend a tenant whose KMS refused us, with the refusal as evidence.

        One that is merely in a drill stays stopped for that; what a person locked stays locked.
        """
        suspension = Suspension(
            reason=refusal.reason,
            since=self._clock.now(),
            kind=SuspensionKind.REVOKED,
            aws_code=refusal.aws_code,
            request_id=refusal.request_id,
        )
        if self.suspend(tenant, suspension, actor) is not None:
            return
        with self._store.transaction() as tx:
            current = tx.tenants.get_by_id(tenant.id)
        if current.suspension is not None and current.suspension.kind is SuspensionKind.DRILL:
            with contextlib.suppress(LostRace):
                self.replace(current, suspension, actor)

    def replace(
        self, tenant: Tenant, suspension: Suspension, actor: str, beside: Beside = _nothing
    ) -> Tenant:
        """Give a suspended tenant another reason for being so.

        Raises:
            LostRace: it is not suspended as ``tenant`` says any more.
        """
        with self._store.transaction() as tx:
            replaced = tx.tenants.replace_suspension(tenant, suspension)
            tx.audit.append(
                tenant.id, suspension.since, actor, "tenant.suspension-replaced", **_evidence(suspension)
            )
            beside(tx, replaced)
        return replaced

    def suspend(
        self, tenant: Tenant, suspension: Suspension, actor: str, beside: Beside = _nothing
    ) -> Stop | None:
        """Commit the suspension, tell every process, purge the cache; None if the tenant was not active.

        The commit moves the tenant to its next generation, so an entry that a slower process still
        writes is filed under the old one and never found again.
        """
        try:
            stop = self._commit(tenant, suspension, actor, beside)
        except LostRace:
            return None  # somebody else changed the tenant's state first, and tells the others
        if stop is None:
            return None
        log.warning(
            "tenant_suspended",
            tenant=tenant.name,
            reason=suspension.reason,
            aws_code=suspension.aws_code,
            kms_request_id=suspension.request_id,
        )
        self._tell(Notice(tenant.id, stop.id))
        self._purge(stop)
        return stop

    def _commit(self, tenant: Tenant, suspension: Suspension, actor: str, beside: Beside) -> Stop | None:
        with self._store.transaction() as tx:
            current = tx.tenants.get_by_id(tenant.id)
            if current.state is not TenantState.ACTIVE:
                return None
            if suspension.kind is SuspensionKind.REVOKED and current.generation != tenant.generation:
                return None  # refused before the tenant was proven anew
            suspended = tx.tenants.transition(current, TenantEvent.SUSPEND, suspension.since, suspension)
            now = self._clock.now()
            stop = Stop(
                self._random.uuid(), tenant.id, suspended.generation, suspension.kind, suspension.since, now
            )
            owing = tx.stops.add(stop, alive_since(now))
            if suspension.kind is SuspensionKind.DRILL:
                # Should its conductor die: the first probe that may end the drill.
                tx.tenants.set_next_probes({tenant.id: now + _LONGEST_DRILL + timedelta(seconds=1)})
            tx.audit.append(
                tenant.id, suspension.since, actor, "tenant.suspended",
                **_evidence(suspension), stop=str(stop.id), processes=owing,
            )  # fmt: skip
            beside(tx, suspended)
        return stop

    def resume(self, tenant: Tenant, actor: str) -> Tenant:
        """Let a suspended tenant go on, after its access was proven, and tell every process.

        Raises:
            LostRace: its state is not what ``tenant`` says any more.
        """
        now = self._clock.now()
        with self._store.transaction() as tx:
            resumed = tx.tenants.transition(tenant, TenantEvent.RESUME, now)
            tx.audit.append(tenant.id, now, actor, "tenant.resumed")
        log.info("tenant_resumed", tenant=tenant.name)
        self._tell(Notice(tenant.id))
        return resumed

    def changed(self, tenant: Tenant) -> None:
        """Tell every process to look at a tenant again: its keys changed."""
        self._tell(Notice(tenant.id))

    def _tell(self, notice: Notice) -> None:
        try:
            self._board.publish(notice)
        except CacheUnavailable:
            # Nothing is lost by it: every process looks for itself, a little later.
            log.warning("notice_not_published", tenant_id=str(notice.tenant_id))

    def make_up_purges(self) -> int:
        """Purge what could not be purged when it was stopped; return how many stops there were.

        Raises:
            StoreUnavailable.
        """
        with self._store.transaction() as tx:
            # What is older has ended by itself.
            unpurged = tx.stops.list_unpurged(self._clock.now() - MAX_LEASE_TTL, _BATCH)
        return sum(self._purge(stop) for stop in unpurged)

    def _purge(self, stop: Stop) -> bool:
        try:
            purged = self._cache.purge(stop.tenant_id)
        except CacheUnavailable:
            # No reader looks under the old generation any more, but sealed leases should not lie about:
            # the sweeper comes back for them.
            log.warning("purge_failed", tenant_id=str(stop.tenant_id))
            return False
        log.info("leases_purged", tenant_id=str(stop.tenant_id), count=purged)
        try:
            with self._store.transaction() as tx:
                tx.stops.set_purged(stop.id, self._clock.now())
        except StoreUnavailable:
            log.warning("purge_not_noted", tenant_id=str(stop.tenant_id))
        return True


def is_leaving(tenant: Tenant) -> bool:
    """Whether a tenant is stopped because it goes for good: AWS is not asked for it any more."""
    return tenant.suspension is not None and tenant.suspension.kind is SuspensionKind.LEAVING


def _evidence(suspension: Suspension) -> dict[str, str]:
    """What the audit log keeps of a suspension."""
    return {
        "kind": suspension.kind.value,
        "reason": suspension.reason,
        "aws_code": suspension.aws_code,
        "request_id": suspension.request_id,
    }


def is_over(suspension: Suspension, now: datetime) -> bool:
    """Whether access that is proven ends the suspension without anybody saying so.

    What AWS's refusal stopped goes on by itself, and so does an exercise whose conductor died. What a
    person stopped stays.
    """
    if suspension.kind is SuspensionKind.DRILL:
        return suspension.since < now - _LONGEST_DRILL
    return suspension.kind is SuspensionKind.REVOKED
