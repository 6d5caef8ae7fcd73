"""The two Redis servers, which must be set up against each other."""

from collections.abc import Iterator
from uuid import UUID

from byok.doctor.result import Result, failed, note, passed, warning
from byok.errors import CacheUnavailable
from byok.ports import Notice, RedisFacts
from byok.wiring import Runtime

_NOBODY = UUID(int=0)  # a notice about no tenant: whoever hears it drops nothing
_NOTICE_SECONDS = 2.0


def check_broker(runtime: Runtime) -> Iterator[Result]:
    """The queue; raises QueueUnavailable."""
    runtime.queue.ping()
    yield passed("broker", "answers")
    yield from judge_broker(runtime.queue.facts())


def judge_broker(facts: RedisFacts) -> Iterator[Result]:
    """The queue must neither evict nor forget."""
    if facts.maxmemory_policy is None:
        yield _unknown("broker-eviction", "maxmemory-policy", "noeviction")
    elif facts.maxmemory_policy == "noeviction":
        yield passed("broker-eviction", "noeviction")
    else:
        yield failed(
            "broker-eviction",
            f"maxmemory-policy is {facts.maxmemory_policy}: an evicted message is a lost task",
            "maxmemory-policy noeviction",
        )
    if facts.append_only is None:
        yield _unknown("broker-disk", "appendonly", "yes")
    elif facts.append_only:
        yield passed("broker-disk", "appendonly")
    else:
        yield warning(
            "broker-disk",
            "appendonly is off: a restart forgets what waits, and the sweeper has to publish it again",
            "appendonly yes, appendfsync everysec",
        )


def check_cache(runtime: Runtime) -> Iterator[Result]:
    """The leases and notices; raises CacheUnavailable."""
    runtime.cache.ping()
    yield passed("cache", "answers")
    yield from judge_cache(runtime.cache.facts())
    yield _notices(runtime)


def judge_cache(facts: RedisFacts) -> Iterator[Result]:
    """The cache may evict, and writes nothing to disk."""
    if facts.maxmemory_policy is None:
        yield _unknown("cache-eviction", "maxmemory-policy", "volatile-ttl")
    elif facts.maxmemory_policy == "noeviction":
        yield warning(
            "cache-eviction",
            "maxmemory-policy is noeviction: once it is full it takes no lease, and each costs a KMS call",
            "maxmemory-policy volatile-ttl",
        )
    else:
        yield passed("cache-eviction", facts.maxmemory_policy)
    if facts.append_only or facts.snapshots:
        yield warning(
            "cache-disk",
            "it writes to disk: sealed leases outlive their TTL there",
            "appendonly no, save ''",
        )
    elif facts.append_only is None or facts.snapshots is None:
        yield _unknown("cache-disk", "appendonly and save", "no and empty")
    else:
        yield passed("cache-disk", "nothing is written to disk")


def _notices(runtime: Runtime) -> Result:
    """Push works if we hear what we say."""
    remedy = "let its user publish and subscribe (ACL: &byok:notices); stops travel by PostgreSQL meanwhile"
    try:
        with runtime.board.listen() as subscription:
            runtime.board.publish(Notice(_NOBODY))
            heard = subscription.next(_NOTICE_SECONDS)
    except CacheUnavailable as error:
        return failed("notices", f"no push: {error.message}", remedy)
    if heard is None:
        return failed("notices", f"no push: nothing was heard within {_NOTICE_SECONDS:g} s", remedy)
    return passed("notices", "are heard")


def check_separation(runtime: Runtime) -> Iterator[Result]:
    """Broker and cache are two; raises QueueUnavailable, CacheUnavailable."""
    yield judge_separation(runtime.queue.facts(), runtime.cache.facts())


def judge_separation(broker: RedisFacts, cache: RedisFacts) -> Result:
    """One server has one eviction policy, which is wrong for one of the two."""
    if broker.run_id is None or cache.run_id is None:
        return note("separation", "the servers don't say who they are", "see that broker and cache are two")
    if broker.run_id != cache.run_id:
        return passed("separation", "broker and cache are two servers")
    remedy = "two servers: docs/deployment.md"
    if broker.database == cache.database:
        return failed("separation", "broker and cache are one database: eviction loses tasks", remedy)
    return warning("separation", "broker and cache are one server: one eviction policy is wrong", remedy)


def _unknown(name: str, option: str, wanted: str) -> Result:
    return note(name, f"the server does not let us ask for {option}", f"see that it is {wanted}")
