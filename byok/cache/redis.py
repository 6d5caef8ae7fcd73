"""Implements `byok.ports.LeaseCache` on Redis.

Two kinds of entries, both with a TTL::

    byok:lease:{tenant}:GENERATION:KEY:VERSION    time of the KMS Decrypt | master key id | IV | sealed secret
    byok:leases:{tenant}                          set of the tenant's lease entries, for the purge

The braces keep a tenant's entries in one slot of a Redis cluster.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from byok.core.model import MAX_LEASE_TTL, SealedBox
from byok.crypto.hazmat import GCM_IV_BYTES
from byok.errors import CacheUnavailable
from byok.ports import LeaseId, SealedLease

_HEADER = struct.Struct(">QB")  # microseconds since the epoch, length of the master key id


class RedisLeaseCache:
    """The shared lease cache. Safe across threads and fork (redis-py's pool notices a fork)."""

    def __init__(self, url: str) -> None:
        # Waiting for a cache costs more than asking KMS: short timeouts and no retries beyond one.
        self._redis = redis.Redis.from_url(
            url,
            socket_timeout=1.0,
            socket_connect_timeout=1.0,
            health_check_interval=30,
            retry=Retry(NoBackoff(), 1),
        )

    def get(self, lease_id: LeaseId) -> SealedLease | None:
        with _translated_errors():
            raw = self._redis.get(_lease_key(lease_id))
        return _decode(raw) if isinstance(raw, bytes) else None

    def put(self, lease_id: LeaseId, lease: SealedLease, ttl: timedelta) -> None:
        key, members = _lease_key(lease_id), _members_key(lease_id.tenant_id)
        with _translated_errors(), self._redis.pipeline(transaction=True) as pipeline:
            pipeline.set(key, _encode(lease), px=ttl)
            pipeline.sadd(members, key)
            pipeline.expire(members, MAX_LEASE_TTL)
            pipeline.execute()

    def purge(self, tenant_id: UUID) -> int:
        members = _members_key(tenant_id)
        with _translated_errors():
            keys = list(self._redis.sscan_iter(members))
            return int(self._redis.delete(members, *keys)) - bool(keys)

    def ping(self) -> None:
        with _translated_errors():
            self._redis.ping()

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()


def _lease_key(lease_id: LeaseId) -> str:
    place = f"{lease_id.generation}:{lease_id.key_id}:{lease_id.version_number}"
    return f"byok:lease:{{{lease_id.tenant_id}}}:{place}"


def _members_key(tenant_id: UUID) -> str:
    return f"byok:leases:{{{tenant_id}}}"


def _encode(lease: SealedLease) -> bytes:
    key_id = lease.box.master_key_id.encode()
    microseconds = round(lease.decrypted_at.timestamp() * 1_000_000)
    return _HEADER.pack(microseconds, len(key_id)) + key_id + lease.box.iv + lease.box.body


def _decode(raw: bytes) -> SealedLease | None:
    """The entry, or None where it is not one of ours: the seal decides about everything else."""
    if len(raw) < _HEADER.size:
        return None
    microseconds, id_length = _HEADER.unpack_from(raw)
    rest = raw[_HEADER.size :]
    key_id, iv = rest[:id_length], rest[id_length : id_length + GCM_IV_BYTES]
    try:
        decrypted_at = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=microseconds)
        return SealedLease(SealedBox(key_id.decode(), iv, rest[id_length + GCM_IV_BYTES :]), decrypted_at)
    except (UnicodeDecodeError, OverflowError):
        return None


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except redis.RedisError as error:
        # from None: the driver's message may hold the server's address
        raise CacheUnavailable(
            f"the Redis cache does not answer ({type(error).__name__})",
            remedy="check that the server runs and BYOK_CACHE_URL names it",
        ) from None
