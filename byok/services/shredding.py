"""The end of a tenant's wrapped keys: a key at a time, each in one transaction, whatever its versions are.

Whoever dies, comes twice or meets another at it loses nothing: what is done is read from the rows, under the
locks of the tenant's way out and of the key.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import UUID

from byok.core.audit import AuditEntry
from byok.core.model import (
    Key,
    RotationEvent,
    SuspensionKind,
    Tenant,
    TenantEvent,
    TenantState,
    VersionEvent,
    VersionState,
)
from byok.core.moves import MoveEvent
from byok.core.offboarding import Offboarding, OffboardingEvent, OffboardingState
from byok.core.reencryption import CampaignEvent
from byok.errors import InvariantBroken, LostRace, NotReady
from byok.failpoints import FailPoint, reached
from byok.logs import get_logger
from byok.ports import Clock, Store, Transaction
from byok.services.move_steps import steer

log = get_logger(__name__)

_KEYS_A_PAGE = 100
_FAILURE = "tenant-not-active: the tenant has left"

# What was done, for the audit log: the action, and its details beside the key's name.
Event = tuple[str, dict[str, str | int | None]]
# Destroys what a kind of record holds of a key's wrapped keys.
Shredder = Callable[[Transaction, Tenant, Key, datetime], Sequence[Event]]
# Is told how many keys are done, and of how many.
Progress = Callable[[int, int], None]


def shred_versions(
    tx: Transaction,
    tenant: Tenant,  # noqa: ARG001  # as every shredder
    key: Key,
    at: datetime,
) -> Sequence[Event]:
    """Destroy the wrapped key of every version of a key, whatever the version's state."""
    versions = [one for one in tx.versions.list(key.id) if one.state is not VersionState.DESTROYED]
    if versions:
        tx.versions.transition(versions, VersionEvent.SHRED, at)
    return [("version.shredded", {"version": one.number, "was": one.state.value}) for one in versions]


# In this order, under the key's lock. A further kind of record has its shredder here, and its column in
# `byok.store.remains`.
SHREDDERS: Sequence[Shredder] = (shred_versions,)


class Shredding:
    """Destroys what can decrypt a tenant's data, once its day has come."""

    def __init__(self, store: Store, clock: Clock, shredders: Sequence[Shredder] = SHREDDERS) -> None:
        self._store = store
        self._clock = clock
        self._shredders = shredders

    def run(
        self,
        offboarding: Offboarding,
        *,
        actor: str,
        progress: Progress,
        is_late: Callable[[], bool] = lambda: False,
    ) -> Offboarding:
        """Go on from where the tenant is until no wrapped key is left, or ``is_late`` says stop between two
        keys; return its way out as it is then.

        Raises:
            NotReady: it is too early, or somebody took it back; InvariantBroken: somebody writes wrapped
            keys.
        """
        offboarding = self._begin(offboarding.id, actor)
        if offboarding.state is not OffboardingState.SHREDDING:
            return offboarding
        with self._store.transaction() as tx:
            total = tx.remains.count_keys(offboarding.tenant_id)
        done: set[UUID] = set()
        while page := self._page(offboarding):
            if not done.isdisjoint(page):
                raise InvariantBroken("a key that was shredded has a wrapped key, or work, again")
            for key_id in page:
                if is_late():
                    return offboarding
                self._shred_key(offboarding.tenant_id, key_id, actor)
                done.add(key_id)
                progress(len(done), max(len(done), total))
        return self._end(offboarding.id, actor)

    def _begin(self, offboarding_id: UUID, actor: str) -> Offboarding:
        """Pass the point of no return, unless that is done."""
        now = self._clock.now()
        with self._store.transaction() as tx:
            current = tx.offboardings.lock(offboarding_id)
            if current.state is OffboardingState.CANCELLED:
                raise NotReady("that the tenant leaves was taken back")
            if current.state is not OffboardingState.WAITING:
                return current
            if now < current.shred_after:
                raise NotReady(
                    f"no wrapped key is destroyed before {current.shred_after:%Y-%m-%d %H:%M:%SZ}",
                    remedy="the sweeper does it then; until then it can be taken back with --cancel",
                )
            tenant = tx.tenants.lock(current.tenant_id)
            _require_stopped(tenant)
            begun = tx.offboardings.transition(current, OffboardingEvent.BEGIN, now)
            _give_up_move(tx, tenant, now, actor)
            forgotten = tx.remains.forget(tenant.id)
            tx.audit.append(
                tenant.id, now, actor, "tenant.shredding-began",
                reason=current.reason, **{f"forgot_{what}": count for what, count in forgotten.items()},
            )  # fmt: skip
        log.warning("shredding_began", tenant=tenant.name)
        reached(FailPoint.SHREDDING_BEGUN)
        return begun

    def _page(self, offboarding: Offboarding) -> Sequence[UUID]:
        with self._store.transaction() as tx:
            return tx.remains.list_keys(offboarding.tenant_id, _KEYS_A_PAGE)

    def _shred_key(self, tenant_id: UUID, key_id: UUID, actor: str) -> None:
        now = self._clock.now()
        with self._store.transaction() as tx:
            tenant = tx.tenants.get_by_id(tenant_id)
            key = tx.keys.lock(key_id)  # the lock that rotations take, too
            if not tx.remains.is_left(key):
                return  # another finisher was first
            events = _end_work(tx, key, now)
            tx.remains.retire_key(key.id)
            for shred in self._shredders:
                events += shred(tx, tenant, key, now)
            tx.audit.append_all(
                [
                    AuditEntry(tenant.id, now, actor, action, {"key": key.name, **details})
                    for action, details in events
                ]
            )
            reached(FailPoint.KEY_SHREDDING)
        log.warning("key_shredded", tenant=tenant.name, key=key.name)
        reached(FailPoint.KEY_SHREDDED)

    def _end(self, offboarding_id: UUID, actor: str) -> Offboarding:
        """Let the tenant be gone, where no wrapped key is left."""
        now = self._clock.now()
        with self._store.transaction() as tx:
            current = tx.offboardings.lock(offboarding_id)
            if current.state is not OffboardingState.SHREDDING:
                return current  # another finisher was first
            tenant = tx.tenants.lock(current.tenant_id)
            end_tenant(tx, tenant, now, actor)
            ended = tx.offboardings.transition(current, OffboardingEvent.END, now)
            reached(FailPoint.OFFBOARDING)
        log.warning("tenant_offboarded", tenant=tenant.name)
        reached(FailPoint.OFFBOARDED)
        return ended


def _end_work(tx: Transaction, key: Key, now: datetime) -> list[Event]:
    """End what would still make or use a version of a key."""
    events: list[Event] = []
    # First: a worker that is about to store another version finds its rotation ended, and stores none.
    if (rotation := tx.rotations.lock_open(key.id)) is not None:
        tx.rotations.transition([rotation], RotationEvent.FAIL, now, failure=_FAILURE)
        events.append(("rotation.failed", {"rotation": str(rotation.id), "failure": _FAILURE}))
    for campaign in tx.remains.lock_open_campaigns(key.id):
        tx.campaigns.transition(campaign, CampaignEvent.CANCEL, now)
        events.append(("campaign.cancelled", {"campaign": str(campaign.id)}))
    for target in tx.targets.list(key.id):
        tx.targets.unregister(target, now)
        events.append(("target.unregistered", {"target": str(target.id), "table": target.shape.name}))
    return events


def _give_up_move(tx: Transaction, tenant: Tenant, now: datetime, actor: str) -> None:
    """A move that is not committed leads nowhere any more, and its KMS key is free for another tenant."""
    latest = tx.moves.find_latest(tenant.id)
    if latest is None:
        return
    move = tx.moves.lock(latest.id)
    if move.is_open:
        steer(tx, move, MoveEvent.ROLL_BACK, actor, "rolled-back", now)


def end_tenant(tx: Transaction, tenant: Tenant, at: datetime, actor: str) -> None:
    """Let a tenant have left, which is refused while there is a wrapped key of it.

    Raises:
        InvariantBroken, IllegalTransition, LostRace.
    """
    if left := tx.remains.count_wrapped_keys(tenant.id):
        raise InvariantBroken(
            f"{left} wrapped keys of tenant {tenant.name!r} are there again",
            remedy="find out who writes them: nothing of byok's does",
        )
    tx.tenants.transition(tenant, TenantEvent.OFFBOARD, at)
    tx.audit.append(tenant.id, at, actor, "tenant.offboarded", tenant=tenant.name)


def _require_stopped(tenant: Tenant) -> None:
    if tenant.state is TenantState.OFFBOARDED:
        return
    if tenant.suspension is None or tenant.suspension.kind is not SuspensionKind.LEAVING:
        raise LostRace(f"tenant {tenant.name!r} is {tenant.state}, and not on its way out")
