"""Proof that nothing of a tenant decrypts any more: each is tried, not inferred."""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

from byok.core.audit import BEFORE_THE_FIRST, ChainPlace
from byok.core.model import Check, Key, KeyVersion, Tenant, TenantState
from byok.core.moves import connections_of
from byok.core.offboarding import Offboarding
from byok.core.shred_certificate import Evidence
from byok.core.stops import StopReport
from byok.errors import AuditChainBroken, ByokError, TenantNotActive, UnknownVersion, ValidationFailed
from byok.ports import Clock, LeaseCache, Store
from byok.services.auditing import Auditor
from byok.services.fields import Cipher
from byok.services.leases import LeaseDesk
from byok.services.records import Records
from byok.services.validation import canary_context

_Keys = Sequence[tuple[Key, Sequence[KeyVersion]]]


class ShredProofs:
    """Gathers what a shred certificate rests on. Asks no KMS: there is nothing to ask it for."""

    def __init__(
        self,
        *,
        store: Store,
        cache: LeaseCache,
        desk: LeaseDesk,
        records: Records,
        auditor: Auditor,
        clock: Clock,
    ) -> None:
        self._store = store
        self._cache = cache
        self._desk = desk
        self._records = records
        self._auditor = auditor
        self._clock = clock

    def gather(self, offboarding: Offboarding) -> Evidence:
        """Read everything anew and try to decrypt.

        Raises:
            ValidationFailed: something still decrypts, or is still there: then nothing is to be certified;
            CacheUnavailable, StoreUnavailable: it can't be proven now.
        """
        with self._store.transaction() as tx:
            tenant = tx.tenants.get_by_id(offboarding.tenant_id)
            keys = [(key, tx.versions.list(key.id)) for key in tx.keys.list(tenant.id)]
            stop = None if offboarding.stop_id is None else tx.stops.report(offboarding.stop_id)
            connections = connections_of(tenant.connection, tx.moves.list(tenant.id))
            sharing = [(one, tx.moves.find_sharing(one)) for one in connections]
        now = self._clock.now()
        proofs = [
            self._no_wrapped_key(tenant, keys),
            self._records_are_gone(tenant, keys),
            self._canaries_are_refused(tenant, keys),
            self._cache_is_empty(tenant),
            _no_lease_lives(stop, offboarding, now, had_keys=bool(keys)),
        ]
        if failed := [proof for proof in proofs if not proof.passed]:
            raise ValidationFailed(
                f"tenant {tenant.name!r} is not certified: "
                + "; ".join(f"{proof.name}: {proof.detail}" for proof in failed),
                remedy="the sweeper tries again; find out what is left, and who wrote it",
            )
        intact, head = self._audit_chain(tenant)
        return Evidence(tenant, offboarding, stop, keys, [*proofs, intact], head, now, sharing)

    def _no_wrapped_key(self, tenant: Tenant, keys: _Keys) -> Check:
        with self._store.transaction() as tx:
            left = tx.remains.count_wrapped_keys(tenant.id)
        versions = sum(len(of_key) for _, of_key in keys)
        passed = left == 0 and tenant.state is TenantState.OFFBOARDED
        detail = f"wrapped keys left: {left}, in the rows of {versions} versions (keys: {len(keys)})"
        return Check("no-wrapped-key", passed, f"{detail}; the tenant is {tenant.state}")

    def _records_are_gone(self, tenant: Tenant, keys: _Keys) -> Check:
        """Past every gate: open each version's record as if the tenant were active."""
        tried = [
            _refusal(partial(self._records.unwrap, tenant, version), UnknownVersion)
            for _, versions in keys
            for version in versions
        ]
        return _all_refused("records-gone", tried, "records", "unknown-version")

    def _canaries_are_refused(self, tenant: Tenant, keys: _Keys) -> Check:
        """The way that services take, with a token that every validated version has."""
        tried = [
            _refusal(partial(self._decrypt, tenant, key, version, version.canary), TenantNotActive)
            for key, versions in keys
            for version in versions
            if version.canary is not None
        ]
        return _all_refused("canaries-refused", tried, "canaries", "tenant-not-active")

    def _decrypt(self, tenant: Tenant, key: Key, version: KeyVersion, canary: bytes) -> None:
        Cipher(self._desk, tenant.name, key.name).decrypt(canary, context=canary_context(version))

    def _cache_is_empty(self, tenant: Tenant) -> Check:
        self._cache.purge(tenant.id)
        left = self._cache.count(tenant.id)
        return Check("redis-empty", left == 0, f"entries of the tenant: {left}, by a scan of all names")

    def _audit_chain(self, tenant: Tenant) -> tuple[Check, ChainPlace]:
        """Whether the chain is whole, and its head. One that is broken is told, and hinders nothing."""
        chain = self._auditor.chain(tenant.name)
        try:
            head = self._auditor.walk(chain, BEFORE_THE_FIRST)
        except AuditChainBroken as broken:
            with self._store.transaction() as tx:
                last = tx.audit.list_after(tenant.id, chain.length - 1, 1)
            head = ChainPlace(chain.length, last[0].hash if last else b"")
            return Check("audit-chain", False, broken.message), head
        return Check("audit-chain", True, f"events verified from the first: {head.sequence}"), head


def _refusal(attempt: Callable[[], object], wanted: type[ByokError]) -> str:
    """How an attempt was refused: empty if by ``wanted``."""
    try:
        attempt()
    except wanted:
        return ""
    except ByokError as error:
        return error.code
    return "not refused"


def _all_refused(name: str, tried: Sequence[str], what: str, code: str) -> Check:
    otherwise = sorted({how for how in tried if how})
    if otherwise:
        return Check(name, False, f"of {len(tried)} {what} some were not refused as {code}: {otherwise}")
    return Check(name, True, f"{what} tried: {len(tried)}, each refused: {code}")


def _no_lease_lives(
    stop: StopReport | None, offboarding: Offboarding, now: datetime, *, had_keys: bool
) -> Check:
    """That every process dropped its leases, or can't serve them any more: their deadline is over."""
    if stop is None and not had_keys:
        return Check("no-lease-lives", True, "the tenant never had a key: no process had a lease")
    if stop is None:
        detail = "which processes dropped theirs was not written down when it was stopped"
    else:
        known, silent = len(stop.acknowledgements), stop.silent
        detail = f"{known - len(silent)} of {known} processes dropped theirs and said so"
        if silent:
            detail += f"; not answered: {', '.join(silent)}"
    detail += f"; the last lease anywhere ended by {offboarding.shred_after:%Y-%m-%d %H:%M:%SZ}"
    return Check("no-lease-lives", now >= offboarding.shred_after, detail)
