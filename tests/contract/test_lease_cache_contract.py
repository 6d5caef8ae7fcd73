"""What every lease cache must do: the fake of the service tests, and Redis."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from byok.cache.redis import RedisLeaseCache
from byok.core.model import SealedBox
from byok.embedded.stack import Stack
from byok.errors import CacheUnavailable
from byok.ports import CacheAnswer, Failure, LeaseCache, LeaseId, SealedLease
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


CLAIM = timedelta(seconds=3)
LONG_AGO = LEASE.decrypted_at - timedelta(days=1)


def take(
    cache: LeaseCache, one: LeaseId, newer_than: datetime = LONG_AGO, claim: str | None = None
) -> CacheAnswer:
    claim = claim or uuid4().hex
    return cache.take(one, claim, CLAIM, newer_than)


def test_what_was_put_comes_back_to_the_microsecond(cache_and_wait: tuple[LeaseCache, Wait]) -> None:
    cache, _ = cache_and_wait
    one = lease_id()
    cache.put(one, LEASE, timedelta(minutes=1), "a")
    answer = take(cache, one)
    assert answer.lease == LEASE
    assert timedelta(seconds=59) < answer.remaining <= timedelta(minutes=1)
    assert not answer.is_ours


def test_one_lease_is_dropped_and_its_neighbours_stay(cache_and_wait: tuple[LeaseCache, Wait]) -> None:
    cache, _ = cache_and_wait
    one = lease_id()
    other = replace(one, version_number=2)
    for each in (one, other):
        cache.put(each, LEASE, timedelta(minutes=1), "a")
    cache.drop(one)
    cache.drop(one)
    assert take(cache, one).is_ours
    assert take(cache, other).lease == LEASE
    assert cache.purge(one.tenant_id) == 1


def test_an_entry_is_gone_after_its_ttl(cache_and_wait: tuple[LeaseCache, Wait]) -> None:
    cache, wait = cache_and_wait
    one = lease_id()
    cache.put(one, LEASE, timedelta(milliseconds=50), "a")
    wait(0.1)
    assert take(cache, one).lease is None


def test_one_of_those_who_miss_gets_the_claim_and_putting_ends_it(
    cache_and_wait: tuple[LeaseCache, Wait],
) -> None:
    cache, _ = cache_and_wait
    one = lease_id()
    assert take(cache, one, claim="a") == CacheAnswer(is_ours=True)
    assert take(cache, one) == CacheAnswer()
    assert take(cache, lease_id()).is_ours, "each lease has a claim of its own"
    cache.put(one, LEASE, timedelta(minutes=1), "a")
    assert take(cache, one).lease == LEASE
    assert take(cache, one, newer_than=LEASE.decrypted_at).is_ours, "the claim ended with the put"


def test_who_repeats_its_request_still_has_its_claim(cache_and_wait: tuple[LeaseCache, Wait]) -> None:
    cache, _ = cache_and_wait
    one = lease_id()
    assert take(cache, one, claim="a").is_ours
    assert take(cache, one, claim="a").is_ours, "the answer to the first was lost on the way"
    assert not take(cache, one, claim="b").is_ours


def test_who_lost_its_claim_neither_ends_anothers_nor_speaks_for_it(
    cache_and_wait: tuple[LeaseCache, Wait],
) -> None:
    cache, wait = cache_and_wait
    one = lease_id()
    assert cache.take(one, "slow", timedelta(milliseconds=50), LONG_AGO).is_ours
    wait(0.1)
    assert take(cache, one, claim="b").is_ours
    cache.fail(one, timedelta(seconds=5), Failure.OUTAGE, "slow")
    assert take(cache, one) == CacheAnswer(), "b is still asking, and nothing failed"
    cache.put(one, LEASE, timedelta(minutes=1), "slow")
    assert take(cache, one, newer_than=LEASE.decrypted_at) == CacheAnswer(), (
        "b is still asking for a newer one"
    )


def test_a_newer_lease_is_not_replaced_by_an_older_one(cache_and_wait: tuple[LeaseCache, Wait]) -> None:
    cache, _ = cache_and_wait
    one = lease_id()
    older = replace(LEASE, decrypted_at=LEASE.decrypted_at - timedelta(seconds=1))
    cache.put(one, LEASE, timedelta(minutes=1), "a")
    cache.put(one, older, timedelta(minutes=5), "b")
    answer = take(cache, one)
    assert answer.lease == LEASE
    assert answer.remaining <= timedelta(minutes=1)


def test_a_claim_lapses(cache_and_wait: tuple[LeaseCache, Wait]) -> None:
    cache, wait = cache_and_wait
    one = lease_id()
    assert cache.take(one, "a", timedelta(milliseconds=50), LONG_AGO).is_ours
    wait(0.1)
    assert take(cache, one).is_ours


def test_of_those_who_want_a_newer_lease_one_gets_the_claim(cache_and_wait: tuple[LeaseCache, Wait]) -> None:
    cache, _ = cache_and_wait
    one = lease_id()
    cache.put(one, LEASE, timedelta(minutes=1), "a")
    just_before = LEASE.decrypted_at - timedelta(microseconds=1)
    assert take(cache, one, newer_than=just_before).lease == LEASE
    assert take(cache, one, newer_than=LEASE.decrypted_at).is_ours
    assert take(cache, one, newer_than=LEASE.decrypted_at) == CacheAnswer()
    assert take(cache, one).lease == LEASE, "who is content with the old one gets it meanwhile"


@pytest.mark.parametrize("failure", Failure)
def test_a_failure_is_told_to_all_for_a_while(
    cache_and_wait: tuple[LeaseCache, Wait], failure: Failure
) -> None:
    cache, wait = cache_and_wait
    one = lease_id()
    assert take(cache, one, claim="a").is_ours
    cache.fail(one, timedelta(milliseconds=200), failure, "a")
    failing = take(cache, one).failing
    assert failing is not None
    assert failing.failure is failure
    assert timedelta(0) < failing.pause <= timedelta(milliseconds=200)
    wait(0.3)
    assert take(cache, one).is_ours


def test_purge_drops_all_of_one_tenant_and_nothing_of_another(
    cache_and_wait: tuple[LeaseCache, Wait],
) -> None:
    cache, _ = cache_and_wait
    one, other = lease_id(), lease_id()
    second = LeaseId(one.tenant_id, one.generation + 1, one.key_id, 2)
    for put in (one, second, other):
        cache.put(put, LEASE, timedelta(minutes=1), "a")
    assert cache.purge(one.tenant_id) == 2
    assert take(cache, one).lease is None
    assert take(cache, second).lease is None
    assert take(cache, other).lease == LEASE
    assert cache.purge(one.tenant_id) == 0


def test_another_generation_is_another_entry(cache_and_wait: tuple[LeaseCache, Wait]) -> None:
    cache, _ = cache_and_wait
    one = lease_id(generation=1)
    cache.put(one, LEASE, timedelta(minutes=1), "a")
    assert take(cache, LeaseId(one.tenant_id, 2, one.key_id, one.version_number)).lease is None


def test_a_server_that_does_not_answer_is_left_alone_for_a_moment(unused_port: int) -> None:
    cache = RedisLeaseCache(f"redis://127.0.0.1:{unused_port}/0")
    with pytest.raises(CacheUnavailable, match="does not answer"):
        take(cache, lease_id())
    with pytest.raises(CacheUnavailable, match="left alone"):
        take(cache, lease_id())


def test_a_redis_that_is_not_there_is_a_cache_unavailable() -> None:
    cache = RedisLeaseCache("redis://:very-secret@127.0.0.1:1/0")
    for call in (lambda: take(cache, lease_id()), lambda: cache.purge(uuid4()), cache.ping):
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
        found = take(cache, one, claim="a")
        assert found.is_ours or (found.lease is not None and found.lease.box.body != LEASE.box.body)
        cache.fail(one, timedelta(milliseconds=1), Failure.OUTAGE, "a")
        time.sleep(0.01)
    raw.close()
    cache.close()


def test_all_entries_of_a_tenant_are_counted_whatever_their_generation_and_kind(
    cache_and_wait: tuple[LeaseCache, Wait],
) -> None:
    cache, _ = cache_and_wait
    one = lease_id()
    another_generation = replace(one, generation=2)
    cache.put(one, LEASE, timedelta(minutes=1), "a")
    assert cache.count(one.tenant_id) > 0
    cache.purge(one.tenant_id)
    assert cache.count(one.tenant_id) == 0
    take(cache, another_generation)  # a claim, which is in no set
    assert cache.count(one.tenant_id) == 1
    cache.put(lease_id(), LEASE, timedelta(minutes=1), "b")
    assert cache.count(one.tenant_id) == 1, "somebody else's are not"
