"""What every lease cache must do: the fake of the service tests, and Redis."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from byok.cache.redis import RedisLeaseCache
from byok.core.model import SealedBox
from byok.embedded.stack import Stack
from byok.errors import CacheUnavailable
from byok.ports import LeaseCache, LeaseId, SealedLease
from tests.fakes import FakeClock, MemoryLeaseCache

LEASE = SealedLease(SealedBox("mk-1", b"i" * 12, b"sealed" * 8), datetime(2026, 1, 2, 3, 4, 5, 678901, UTC))
Wait = Callable[[float], None]


@pytest.fixture(params=["memory", "redis"])
def cache_and_wait(request: pytest.FixtureRequest) -> Iterator[tuple[LeaseCache, Wait]]:
    if request.param == "memory":
        clock = FakeClock()
        yield MemoryLeaseCache(clock), lambda seconds: clock.advance(seconds=seconds)
        return
    stack: Stack = request.getfixturevalue("stack")
    cache = RedisLeaseCache(stack.environment["BYOK_CACHE_URL"])
    yield cache, time.sleep
    cache.close()


def lease_id(number: int = 1, generation: int = 1) -> LeaseId:
    return LeaseId(uuid4(), generation, uuid4(), number)


def test_what_was_put_comes_back_to_the_microsecond(cache_and_wait: tuple[LeaseCache, Wait]) -> None:
    cache, _ = cache_and_wait
    one = lease_id()
    assert cache.get(one) is None
    cache.put(one, LEASE, timedelta(minutes=1))
    assert cache.get(one) == LEASE


def test_an_entry_is_gone_after_its_ttl(cache_and_wait: tuple[LeaseCache, Wait]) -> None:
    cache, wait = cache_and_wait
    one = lease_id()
    cache.put(one, LEASE, timedelta(milliseconds=50))
    wait(0.1)
    assert cache.get(one) is None


def test_purge_drops_all_of_one_tenant_and_nothing_of_another(
    cache_and_wait: tuple[LeaseCache, Wait],
) -> None:
    cache, _ = cache_and_wait
    one, other = lease_id(), lease_id()
    second = LeaseId(one.tenant_id, one.generation + 1, one.key_id, 2)
    for put in (one, second, other):
        cache.put(put, LEASE, timedelta(minutes=1))
    assert cache.purge(one.tenant_id) == 2
    assert cache.get(one) is None
    assert cache.get(second) is None
    assert cache.get(other) == LEASE
    assert cache.purge(one.tenant_id) == 0


def test_another_generation_is_another_entry(cache_and_wait: tuple[LeaseCache, Wait]) -> None:
    cache, _ = cache_and_wait
    one = lease_id(generation=1)
    cache.put(one, LEASE, timedelta(minutes=1))
    assert cache.get(LeaseId(one.tenant_id, 2, one.key_id, one.version_number)) is None


def test_a_redis_that_is_not_there_is_a_cache_unavailable() -> None:
    cache = RedisLeaseCache("redis://:very-secret@127.0.0.1:1/0")
    for call in (lambda: cache.get(lease_id()), lambda: cache.purge(uuid4()), cache.ping):
        with pytest.raises(CacheUnavailable) as caught:
            call()
        assert "very-secret" not in str(caught.value)


def test_an_entry_that_is_not_ours_is_a_miss(stack: Stack) -> None:
    import redis

    raw = redis.Redis.from_url(stack.environment["BYOK_CACHE_URL"])
    cache = RedisLeaseCache(stack.environment["BYOK_CACHE_URL"])
    one = lease_id()
    key = f"byok:lease:{{{one.tenant_id}}}:{one.generation}:{one.key_id}:{one.version_number}"
    for junk in (b"", b"x", b"\xff" * 100):
        raw.set(key, junk)
        found = cache.get(one)
        assert found is None or found.box.body != LEASE.box.body
    raw.close()
    cache.close()
