"""The connection to the Redis of leases and notices, and its errors in byok's words."""

from collections.abc import Iterator
from contextlib import contextmanager

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from byok.errors import CacheUnavailable


def connect(url: str) -> "redis.Redis":
    """A client that gives up soon: waiting for a cache costs more than asking KMS.

    Safe across threads and fork (redis-py's pool notices a fork). Connects on first use.
    """
    return redis.Redis.from_url(
        url,
        socket_timeout=1.0,
        socket_connect_timeout=1.0,
        socket_keepalive=True,
        health_check_interval=30,
        retry=Retry(NoBackoff(), 1),
    )


@contextmanager
def translated_errors() -> Iterator[None]:
    """Raise CacheUnavailable for what redis-py raises inside the block."""
    try:
        yield
    except redis.RedisError as error:
        # from None: the driver's message may hold the server's address
        raise CacheUnavailable(
            f"the Redis cache does not answer ({type(error).__name__})",
            remedy="check that the server runs and BYOK_CACHE_URL names it",
        ) from None
