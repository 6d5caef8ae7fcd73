"""The end of old versions: first a floor below which nothing decrypts, then destruction for good."""

from collections.abc import Callable, Sequence
from datetime import timedelta

from byok.core.blind_index import pinned_versions
from byok.core.destruction import Evidence, Objection, objections, revivable
from byok.core.lifecycle import VERSION_LIFECYCLE
from byok.core.model import Key, KeyVersion, Tenant, VersionEvent, VersionState
from byok.core.stops import alive_since
from byok.errors import CacheUnavailable, NotReady, OutOfBounds, StillInUse
from byok.logs import get_logger
from byok.ports import Clock, LeaseCache, Store, Transaction
from byok.services.held import lease_id
from byok.services.suspension import Suspensions

log = get_logger(__name__)

_LOOK_SECONDS = 0.2

# Says what needs a version beyond reading fields, such as an index or a table; empty: nothing.
Pin = Callable[[Transaction, Tenant, Key, KeyVersion], Sequence[Objection]]


class Destruction:
    """Raises and lowers floors, and destroys what lies below them."""

    def __init__(
        self,
        *,
        store: Store,
        cache: LeaseCache,
        suspensions: Suspensions,
        clock: Clock,
        recheck: timedelta,
        pins: Sequence[Pin] = (),
    ) -> None:
        self._store = store
        self._cache = cache
        self._suspensions = suspensions
        self._clock = clock
        self._recheck = recheck
        self._pins = pins

    def set_floor(self, tenant_name: str, key_name: str, floor: int, *, actor: str) -> Key:
        """Let no version below ``floor`` decrypt any more; every process knows after a recheck period.

        Raises:
            UnknownTenant, UnknownKey, NotReady; OutOfBounds: below 1, or above the active version;
            StillInUse: it would be lowered to a version just destroyed, or raised above one that blind
            indexes rest on.
        """
        with self._store.transaction() as tx:
            tenant = tx.tenants.get(tenant_name)
            key = tx.keys.lock(tx.keys.get(tenant, key_name).id)
            if floor == key.decryption_floor:
                return key
            now = self._clock.now()
            _check_floor(tenant, key, floor, tx.versions.find_active(key.id))
            _check_pins(tenant, key, floor)
            if (revived := revivable(tx.versions.list(key.id), floor, now)) is not None:
                raise StillInUse(
                    f"version {revived.number} was destroyed within a day: a process may hold its secret",
                    remedy="lower the floor a day after that",
                )
            changed = tx.keys.set_decryption_floor(key, floor, now)
            tx.audit.append(
                tenant.id, now, actor, "key.decryption-floor-set",
                key=key.name, decryption_floor=floor, before=key.decryption_floor,
            )  # fmt: skip
        self._suspensions.changed(tenant)
        return changed

    def wait_for_floor(
        self, key: Key, patience: timedelta, seen: Callable[[Sequence[str]], None]
    ) -> Sequence[str]:
        """Wait until every living process goes by a key's floor and has written what it used before.

        Returns the processes that have not, where ``patience`` ends first.
        """
        give_up_ticks = self._clock.ticks() + patience.total_seconds()
        while True:
            with self._store.transaction() as tx:
                waiting = self._unflushed(tx, key, only_living=True)
            seen(waiting)
            if not waiting or self._clock.ticks() >= give_up_ticks:
                return waiting
            self._clock.sleep(_LOOK_SECONDS)

    def examine(self, tenant_name: str, key_name: str, number: int) -> Evidence:
        """What is known of a version that is to be destroyed.

        Raises:
            UnknownTenant, UnknownKey, UnknownVersion.
        """
        with self._store.transaction() as tx:
            tenant = tx.tenants.get(tenant_name)
            return self._examine(tx, tenant, tx.keys.get(tenant, key_name), number)

    def destroy(
        self,
        tenant_name: str,
        key_name: str,
        number: int,
        *,
        actor: str,
        unused_for: timedelta,
        force: bool = False,
    ) -> Evidence:
        """Remove a version's wrapped key for good, and return the evidence that this rests on.

        ``force`` goes over what the ledger says, and over nothing else. One that is destroyed already stays
        as it is.

        Raises:
            UnknownTenant, UnknownKey, UnknownVersion, IllegalTransition; StillInUse: something speaks
            against it (`byok.core.destruction.objections`).
        """
        with self._store.transaction() as tx:
            tenant = tx.tenants.get(tenant_name)
            # The lock that rotations and changes of the floor take, too.
            key = tx.keys.lock(tx.keys.get(tenant, key_name).id)
            evidence = self._examine(tx, tenant, key, number)
            if evidence.version.state is VersionState.DESTROYED:
                return evidence
            VERSION_LIFECYCLE.after(evidence.version.state, VersionEvent.DESTROY)
            overruled = _overruled(evidence, unused_for, force=force)
            tx.versions.transition([evidence.version], VersionEvent.DESTROY, evidence.at)
            usage = evidence.usage
            tx.audit.append(
                tenant.id, evidence.at, actor, "version.destroyed",
                key=key.name, version=number, decryption_floor=key.decryption_floor,
                uses=0 if usage is None else usage.uses,
                last_used_at=None if usage is None else usage.last_used_at.isoformat(),
                wanted_unused_seconds=int(unused_for.total_seconds()), forced=int(force), overruled=overruled,
            )  # fmt: skip
        log.warning(
            "version_destroyed", tenant=tenant.name, key=key.name, version=number, overruled=overruled
        )
        self._forget(tenant, key, number)
        return evidence

    def _examine(self, tx: Transaction, tenant: Tenant, key: Key, number: int) -> Evidence:
        version = tx.versions.get(key.id, number)
        return Evidence(
            tenant=tenant.name,
            key=key,
            version=version,
            usage=tx.usage.list(key.id).get(number),
            unflushed=self._unflushed(tx, key),
            pins=[found for pin in self._pins for found in pin(tx, tenant, key, version)],
            at=self._clock.now(),
        )

    def _unflushed(self, tx: Transaction, key: Key, *, only_living: bool = False) -> Sequence[str]:
        """Who may have used what is below a key's floor without the ledger knowing."""
        if key.decryption_floor_set_at is None:
            return []
        seen_since = alive_since(self._clock.now()) if only_living else None
        return tx.usage.list_unflushed(key.decryption_floor_set_at + self._recheck, seen_since)

    def _forget(self, tenant: Tenant, key: Key, number: int) -> None:
        try:
            self._cache.drop(lease_id(tenant, key, number))
        except CacheUnavailable:
            # Sealed, below the floor, and gone with its TTL.
            log.warning("destroyed_lease_not_dropped", tenant=tenant.name, key=key.name, version=number)
        self._suspensions.changed(tenant)


def _check_floor(tenant: Tenant, key: Key, floor: int, active: KeyVersion | None) -> None:
    if active is None:
        raise NotReady(f"key {key.name!r} of tenant {tenant.name!r} has no active version yet")
    if not 1 <= floor <= active.number:
        raise OutOfBounds(
            f"a decryption floor of {floor} is out of bounds",
            remedy=f"choose between 1 (all decrypt) and the active version, {active.number}",
        )


def _check_pins(tenant: Tenant, key: Key, floor: int) -> None:
    if below := [number for number in pinned_versions(key) if number < floor]:
        raise StillInUse(
            f"the blind indexes of key {key.name!r} rest on version {min(below)}",
            remedy=f"rebuild them first: byok key index {tenant.name} {key.name} --rebuild",
        )


def _overruled(evidence: Evidence, unused_for: timedelta, *, force: bool) -> str:
    """What ``force`` goes over, in words."""
    against = objections(evidence, unused_for)
    standing = [one for one in against if not (force and one.may_be_forced)]
    if standing:
        raise StillInUse("; ".join(one.why for one in standing), remedy=standing[0].remedy)
    return "; ".join(one.why for one in against)
