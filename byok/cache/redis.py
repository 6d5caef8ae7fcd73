"""Implements `byok.ports.LeaseCache` on Redis.

Four kinds of entries, all with a TTL::

    byok:lease:{tenant}:GENERATION:KEY:VERSION    time of the KMS Decrypt | master key id | IV | sealed secret
    byok:asking:{tenant}:GENERATION:KEY:VERSION   who asks KMS for it just now
    byok:failing:{tenant}:GENERATION:KEY:VERSION  how the last one that asked failed (`Failure`)
    byok:leases:{tenant}                          set of the tenant's lease entries, for the purge

The braces would keep a tenant's entries in one slot of a Redis Cluster; the client here is for one server.
"""

import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

from redis.exceptions import ResponseError

from byok.cache.connection import close, connect, translated_errors
from byok.core.bounds import MAX_LEASE_TTL
from byok.core.model import SealedBox
from byok.crypto.hazmat import GCM_IV_BYTES
from byok.errors import CacheUnavailable
from byok.ports import CacheAnswer, Failing, Failure, LeaseId, RedisFacts, SealedLease
from byok.redis_facts import read_facts

_HEADER = struct.Struct(">QB")  # microseconds since the epoch, length of the master key id
_EPOCH = datetime.fromtimestamp(0, UTC)

# A server that just failed to answer is left alone this long: its timeouts would slow every miss down.
_REST_SECONDS = 2.0
_NAMES_A_STEP = 1000  # a server is single-threaded: others wait meanwhile

# In one step, or two processes could both find nothing and both ask KMS.
_TAKE = """
local lease = redis.call('GET', KEYS[1])
if lease and #lease >= 8 and struct.unpack('>I8', lease) > tonumber(ARGV[2]) then
  return {'lease', lease, redis.call('PTTL', KEYS[1])}
end
local failing = redis.call('GET', KEYS[3])
if failing then
  return {'failing', failing, redis.call('PTTL', KEYS[3])}
end
-- A client repeats a request whose answer it did not get: its claim is its own.
if redis.call('SET', KEYS[2], ARGV[3], 'NX', 'PX', ARGV[1]) or redis.call('GET', KEYS[2]) == ARGV[3] then
  return {'yours'}
end
return {'asked by another'}
"""

_PUT = """
local old = redis.call('GET', KEYS[1])
if not (old and #old >= 8 and struct.unpack('>I8', old) > struct.unpack('>I8', ARGV[1])) then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
redis.call('DEL', KEYS[3])
if redis.call('GET', KEYS[2]) == ARGV[3] then redis.call('DEL', KEYS[2]) end
redis.call('SADD', KEYS[4], KEYS[1])
redis.call('EXPIRE', KEYS[4], ARGV[4])
"""

_FAIL = """
local holder = redis.call('GET', KEYS[2])
if holder and holder ~= ARGV[3] then return end
redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[2])
redis.call('DEL', KEYS[2])
"""


class RedisLeaseCache:
    """The shared lease cache. Safe across threads and fork."""

    def __init__(self, url: str) -> None:
        self._redis = connect(url)
        self._take = self._redis.register_script(_TAKE)
        self._put = self._redis.register_script(_PUT)
        self._fail = self._redis.register_script(_FAIL)
        self._resting_until = 0.0

    def take(self, lease_id: LeaseId, claim: str, claim_for: timedelta, newer_than: datetime) -> CacheAnswer:
        arguments: list[bytes | str | int] = [_milliseconds(claim_for), _microseconds(newer_than), claim]
        with self._unless_resting():
            kind, *told = self._take(keys=_keys(lease_id), args=arguments)
        if kind == b"yours":
            return CacheAnswer(is_ours=True)
        if kind == b"failing":
            return CacheAnswer(failing=_failing(told[0], timedelta(milliseconds=told[1])))
        if kind == b"lease":
            lease = _decode(told[0])
            # What is none of ours is written over.
            return CacheAnswer(lease, timedelta(milliseconds=told[1]), is_ours=lease is None)
        return CacheAnswer()

    def put(self, lease_id: LeaseId, lease: SealedLease, ttl: timedelta, claim: str) -> None:
        arguments: list[bytes | str | int] = [
            _encode(lease), _milliseconds(ttl), claim, int(MAX_LEASE_TTL.total_seconds())
        ]  # fmt: skip
        with self._unless_resting():
            self._put(keys=[*_keys(lease_id), _members_key(lease_id.tenant_id)], args=arguments)

    def fail(self, lease_id: LeaseId, pause: timedelta, failure: Failure, claim: str) -> None:
        with self._unless_resting():
            self._fail(keys=_keys(lease_id), args=[failure.value, _milliseconds(pause), claim])

    def drop(self, lease_id: LeaseId) -> None:
        lease = _keys(lease_id)[0]
        with translated_errors():
            self._redis.delete(lease)
            self._redis.srem(_members_key(lease_id.tenant_id), lease)

    def purge(self, tenant_id: UUID) -> int:
        members = _members_key(tenant_id)
        with translated_errors():
            keys = list(self._redis.sscan_iter(members))
            return int(self._redis.delete(members, *keys)) - bool(keys)

    def count(self, tenant_id: UUID) -> int:
        # By name, not by the set: what a restored dump or a process that lags brought is in no set.
        with translated_errors():
            return sum(1 for _ in self._redis.scan_iter(f"byok:*:{{{tenant_id}}}*", count=_NAMES_A_STEP))

    def ping(self) -> None:
        with translated_errors():
            self._redis.ping()
            is_cluster = self._is_cluster()
        if is_cluster:
            raise CacheUnavailable(
                "BYOK_CACHE_URL names a node of a Redis Cluster: what lies on others is not found",
                remedy="use one server, or Sentinels: docs/deployment.md",
            )

    def _is_cluster(self) -> bool:
        try:
            return bool(self._redis.info("cluster").get("cluster_enabled"))
        except ResponseError:  # not allowed to ask
            return False

    def facts(self) -> RedisFacts:
        """How the server is set up; raises CacheUnavailable."""
        with translated_errors():
            return read_facts(self._redis)

    def close(self) -> None:
        """Close the connections."""
        close(self._redis)

    @contextmanager
    def _unless_resting(self) -> Iterator[None]:
        if time.monotonic() < self._resting_until:
            raise CacheUnavailable("the Redis cache did not answer just now and is left alone for a moment")
        try:
            with translated_errors():
                yield
        except CacheUnavailable:
            self._resting_until = time.monotonic() + _REST_SECONDS
            raise


def _keys(lease_id: LeaseId) -> list[str]:
    """The lease, who asks for it, and how the last one failed."""
    place = f"{{{lease_id.tenant_id}}}:{lease_id.generation}:{lease_id.key_id}:{lease_id.version_number}"
    return [f"byok:{kind}:{place}" for kind in ("lease", "asking", "failing")]


def _members_key(tenant_id: UUID) -> str:
    return f"byok:leases:{{{tenant_id}}}"


def _failing(raw: bytes, pause: timedelta) -> Failing:
    """The mark; what is none of ours counts as an outage, and lapses."""
    try:
        return Failing(pause, Failure(raw.decode()))
    except ValueError:
        return Failing(pause, Failure.OUTAGE)


def _milliseconds(duration: timedelta) -> int:
    return max(round(duration.total_seconds() * 1000), 1)


def _microseconds(time_utc: datetime) -> int:
    return round(time_utc.timestamp() * 1_000_000)


def _encode(lease: SealedLease) -> bytes:
    key_id = lease.box.master_key_id.encode()
    return (
        _HEADER.pack(_microseconds(lease.decrypted_at), len(key_id)) + key_id + lease.box.iv + lease.box.body
    )


def _decode(raw: bytes) -> SealedLease | None:
    """The entry, or None where it is not one of ours: the seal decides about everything else."""
    if len(raw) < _HEADER.size:
        return None
    microseconds, id_length = _HEADER.unpack_from(raw)
    rest = raw[_HEADER.size :]
    key_id, iv = rest[:id_length], rest[id_length : id_length + GCM_IV_BYTES]
    try:
        decrypted_at = _EPOCH + timedelta(microseconds=microseconds)
        return SealedLease(SealedBox(key_id.decode(), iv, rest[id_length + GCM_IV_BYTES :]), decrypted_at)
    except (UnicodeDecodeError, OverflowError):
        return None
