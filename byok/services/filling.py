"""Where leases come from: the shared cache, else the customer's KMS, asked by one process of the fleet.

Whoever misses claims the lease in Redis. The one that gets the claim asks KMS and files what comes; the
others wait for it. One that fails leaves a mark, and nobody asks again until it lapses: so neither a cold
start nor an outage makes more requests than one process would. Without Redis each process asks for
itself, at a bounded rate.
"""

import threading
from datetime import datetime, timedelta
from itertools import repeat

from byok.core.lifecycle import DECRYPTING_STATES
from byok.core.model import Key, KeyVersion, Tenant
from byok.crypto.hazmat import SecretBytes, XaesKey
from byok.crypto.keyring import MasterKeyRing
from byok.errors import (
    ByokError,
    CacheUnavailable,
    IntegrityError,
    KmsAccessRevoked,
    KmsBackingOff,
    KmsIntegrityError,
    KmsUnavailable,
    StoreUnavailable,
    UnknownMasterKey,
    UnknownVersion,
)
from byok.logs import LogScope, get_logger
from byok.ports import CacheAnswer, Clock, Failure, LeaseCache, LeaseId, Metrics, Random, SealedLease, Store
from byok.services.held import View, lease_id
from byok.services.lease import MAX_LEASE_USES, Lease
from byok.services.records import Records
from byok.services.suspension import Suspensions, has_moved, require_active

log = get_logger(__name__)

LEASE_PURPOSE = "byok/lease/1"
# A lease from another machine may carry a time slightly ahead of ours; more than this is a broken clock.
_MAX_CLOCK_SKEW = timedelta(seconds=5)

# A KMS call takes 5 to 50 ms. A process that has not brought the lease by then is slow or dead, and
# another may try: a hung KMS sees one request of the fleet in this time.
_CLAIM = timedelta(seconds=3)
_WAIT_SECONDS = 15.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.005, 0.1
_NO_PAUSE = timedelta(milliseconds=1)
_FAILURE_PAUSE = timedelta(seconds=1)  # up to twice that, so that processes don't come back together
# A version whose record KMS can't make sense of won't mend by itself, and each try pages somebody.
_QUARANTINE = timedelta(seconds=10)
# Between two KMS calls of a process that no cache shares with others: 20 a second at most.
_UNSHARED_GAP_SECONDS = 0.05
# A lease is renewed in the background in the last fifth to tenth of its life.
_REFRESH_FROM, _REFRESH_SPREAD = 0.8, 0.1


class TenantChanged(Exception):  # no error: the caller looks again
    """The tenant is not what the view says any more."""


class LeaseSource:
    """Brings leases. Thread-safe."""

    def __init__(
        self,
        *,
        store: Store,
        cache: LeaseCache,
        records: Records,
        suspensions: Suspensions,
        master_keys: MasterKeyRing,
        metrics: Metrics,
        clock: Clock,
        random: Random,
        max_uses: int = MAX_LEASE_USES,
    ) -> None:
        self._store = store
        self._cache = cache
        self._records = records
        self._suspensions = suspensions
        self._master_keys = master_keys
        self._metrics = metrics
        self._clock = clock
        self._random = random
        self._max_uses = max_uses
        self.forget()

    def forget(self) -> None:
        """Begin anew, as in a forked child."""
        self._pacing = threading.Lock()
        self._next_call_ticks = 0.0

    def fetch(self, view: View, number: int, *, newer_than: datetime | None = None) -> Lease | None:
        """A lease on a version. With ``newer_than``, one that a later Decrypt stands behind; None if another
        process is about to bring it.

        Raises:
            TenantChanged, UnknownVersion, AccessStopped, Unavailable, IntegrityError.
        """
        with LogScope(tenant=view.tenant.name, key=view.key.name):
            if not view.ttl_seconds:
                return self._from_kms(view, number)  # caching is off: each use is a KMS Decrypt of its own
            return self._take_or_ask(view, number, newer_than)

    def _take_or_ask(self, view: View, number: int, newer_than: datetime | None) -> Lease | None:
        filed_under = view.lease_id(number)
        # An entry that is too old for this reader is none, whatever the writer's TTL was.
        too_old = self._clock.now() - view.key.lease_ttl
        newest_known = too_old if newer_than is None else max(too_old, newer_than)
        claim = self._random.bytes(16).hex()
        give_up_ticks = self._clock.ticks() + _WAIT_SECONDS
        pause_seconds = _FIRST_PAUSE_SECONDS
        while True:
            try:
                answer = self._cache.take(filed_under, claim, _CLAIM, newest_known)
            except CacheUnavailable:
                log.warning("cache_unavailable_asking_kms")
                self._wait_for_turn()
                return self._from_kms(view, number)
            lease = self._opened(view, number, answer)
            if lease is not None:
                return lease
            if answer.is_ours or answer.lease is not None:  # an entry that counts for nothing hinders nobody
                return self._ask_for_all(view, number, claim)
            self._heed_failure(answer)
            if newer_than is not None:
                return None
            if self._clock.ticks() > give_up_ticks:
                raise KmsBackingOff("another process has been asking this tenant's KMS for too long")
            self._clock.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)

    def put(
        self,
        tenant: Tenant,
        key: Key,
        number: int,
        secret: SecretBytes,
        decrypted_at: datetime,
        claim: str = "",
    ) -> None:
        """File a secret that a KMS Decrypt brought at ``decrypted_at`` in the shared cache."""
        remaining = decrypted_at + key.lease_ttl - self._clock.now()
        if remaining <= timedelta(0):
            return
        filed_under = lease_id(tenant, key, number)
        with secret.borrow() as raw:
            box = self._master_keys.seal(raw, LEASE_PURPOSE, *_bound_to(filed_under, tenant, decrypted_at))
        try:
            self._cache.put(filed_under, SealedLease(box, decrypted_at), remaining, claim)
        except CacheUnavailable:
            log.warning("lease_not_cached", tenant=tenant.name, key=key.name)

    def _opened(self, view: View, number: int, answer: CacheAnswer) -> Lease | None:
        """The cached lease, if it is whole, and within the TTL that the key has now."""
        sealed = answer.lease
        if sealed is None:
            return None
        # This reader's own TTL counts, not the one that the writer had; and what the cache's own clock
        # leaves of it, should ours have been set back.
        ticks = self._clock.ticks()  # before the age is reckoned: what passes meanwhile must not be added
        age = self._clock.now() - sealed.decrypted_at
        if not -_MAX_CLOCK_SKEW <= age < view.key.lease_ttl or answer.remaining <= timedelta(0):
            return None
        bound_to = _bound_to(view.lease_id(number), view.tenant, sealed.decrypted_at)
        try:
            secret = SecretBytes(self._master_keys.open(sealed.box, LEASE_PURPOSE, *bound_to))
        except (IntegrityError, UnknownMasterKey) as error:
            log.warning("cached_lease_ignored", error=error.code)
            return None
        age_seconds = max(age, view.key.lease_ttl - answer.remaining).total_seconds()
        self._metrics.lease_taken("cache")
        return self._lease(view, number, secret, ticks - age_seconds, sealed.decrypted_at)

    def _heed_failure(self, answer: CacheAnswer) -> None:
        if answer.failing is None:
            return
        if answer.failing.failure is Failure.REFUSED:
            raise TenantChanged
        if answer.failing.failure is Failure.UNKNOWN:
            raise UnknownVersion("another process found no version of this number that decrypts")
        if answer.failing.failure is Failure.BROKEN:
            raise KmsIntegrityError(
                "this version is in quarantine: its record and the customer's KMS don't belong together",
                remedy="find out what changed in the KMS key or the record",
            )
        raise KmsBackingOff(
            "another process could not reach this tenant's KMS just now",
            retry_after_seconds=answer.failing.pause.total_seconds(),
            remedy="byok tries again by itself",
        )

    def _ask_for_all(self, view: View, number: int, claim: str) -> Lease:
        """Ask KMS as the one process that does, and tell the others how it went."""
        filed_under = view.lease_id(number)
        pause = _FAILURE_PAUSE * (1 + self._random.fraction())
        try:
            return self._from_kms(view, number, claim)
        except KmsUnavailable:
            self._tell_failure(filed_under, pause, Failure.OUTAGE, claim)
            raise
        except KmsAccessRevoked:
            self._tell_failure(filed_under, pause, Failure.REFUSED, claim)
            raise
        except KmsIntegrityError as alarm:
            self._metrics.integrity_alarm()
            log.error("version_in_quarantine", version=number, why=alarm.message)
            self._tell_failure(filed_under, _QUARANTINE, Failure.BROKEN, claim)
            raise
        except UnknownVersion:
            # Anybody can forge a number: it must neither upset those who hold views of this tenant, nor be
            # remembered until a version gets it.
            self._tell_failure(filed_under, _NO_PAUSE, Failure.UNKNOWN, claim)
            raise
        except (ByokError, TenantChanged):
            self._tell_failure(filed_under, _NO_PAUSE, Failure.REFUSED, claim)
            raise

    def _tell_failure(self, filed_under: LeaseId, pause: timedelta, failure: Failure, claim: str) -> None:
        try:
            self._cache.fail(filed_under, pause, failure, claim)
        except CacheUnavailable:
            log.warning("failure_not_told")  # the claim lapses

    def _from_kms(self, view: View, number: int, claim: str = "") -> Lease:
        with self._store.transaction() as tx:
            version = tx.versions.get(view.key.id, number)
            # After the version: should its tenant move to another KMS key in between, this generation tells.
            tenant = tx.tenants.get_by_id(view.tenant.id)
        require_active(tenant)
        if tenant.generation != view.tenant.generation:
            raise TenantChanged
        _require_decrypting(version)
        # Before the call: the customer may revoke while it is under way.
        decrypted_at, began_ticks = self._clock.now(), self._clock.ticks()
        try:
            secret = self._records.unwrap(tenant, version).secret
        except KmsAccessRevoked as refusal:
            if self._has_moved(tenant):
                raise TenantChanged from refusal  # the old KMS key is of no use any more
            self._suspend(tenant, refusal)
            raise
        self._metrics.lease_taken("kms")
        if view.ttl_seconds:
            self.put(view.tenant, view.key, number, secret, decrypted_at, claim)
        return self._lease(view, number, secret, began_ticks, decrypted_at)

    def _has_moved(self, tenant: Tenant) -> bool:
        """Whether the tenant is connected to another KMS key by now; without the database, not."""
        try:
            with self._store.transaction() as tx:
                return has_moved(tx, tenant)
        except StoreUnavailable:
            return False

    def _suspend(self, tenant: Tenant, refusal: KmsAccessRevoked) -> None:
        """The refusal stands, whether or not it can be told to others: this process stops."""
        try:
            self._suspensions.revoked(tenant, refusal, actor="lease")
        except StoreUnavailable as error:
            log.error("suspension_not_committed", error=error.message)

    def _lease(
        self, view: View, number: int, secret: SecretBytes, began_ticks: float, decrypted_at: datetime
    ) -> Lease:
        share = _REFRESH_FROM + _REFRESH_SPREAD * self._random.fraction()
        return Lease(
            number,
            XaesKey(secret),
            secret,
            decrypted_at,
            began_ticks,
            refresh_ticks=began_ticks + share * view.ttl_seconds,
            ends_ticks=began_ticks + view.ttl_seconds,
            uses_left=repeat(None, self._max_uses),
        )

    def _wait_for_turn(self) -> None:
        """Space the KMS calls of this process while no cache shares what they bring."""
        with self._pacing:
            now = self._clock.ticks()
            turn_ticks = max(self._next_call_ticks, now)
            self._next_call_ticks = turn_ticks + _UNSHARED_GAP_SECONDS
        if turn_ticks > now:
            self._clock.sleep(turn_ticks - now)


def _bound_to(filed_under: LeaseId, tenant: Tenant, decrypted_at: datetime) -> tuple[str | int, ...]:
    """What a cached lease is sealed for: where it belongs, the KMS key, and the time it counts from."""
    arn = "" if tenant.connection is None else str(tenant.connection.kms_key_arn)
    return (
        str(filed_under.tenant_id),
        filed_under.generation,
        str(filed_under.key_id),
        filed_under.version_number,
        arn,
        decrypted_at.isoformat(timespec="microseconds"),
    )


def _require_decrypting(version: KeyVersion) -> None:
    if version.state not in DECRYPTING_STATES:
        raise UnknownVersion(f"version {version.number} is {version.state} and does not decrypt")
