"""The connection to the Redis of leases and notices, and its errors in byok's words."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from byok.errors import CacheUnavailable
from byok.redis_url import RedisUrl


def connect(url: str) -> "redis.Redis":
    """A client that gives up soon: waiting for a cache costs more than asking KMS.

    Safe across threads and fork (redis-py's pool notices a fork). Connects on first use. Behind Sentinels
    each new connection asks them for the master. To be closed by `close`.
    """
    address = RedisUrl.parse(url)
    patience: dict[str, Any] = {
        "socket_timeout": 1.0,
        "socket_connect_timeout": 1.0,
        "socket_keepalive": True,
        "health_check_interval": 30,
        "retry": Retry(NoBackoff(), 1),
    }
    how: dict[str, Any] = {**patience, **address.tls_arguments()}
    server = {"db": address.database, **address.login(), **how}
    if address.master_name is None:
        host, port = address.servers[0]
        return redis.Redis(host=host, port=port, **server)
    sentinels: Any = Sentinel(address.servers, sentinel_kwargs={**address.sentinel_login(), **how})  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
    master: redis.Redis = sentinels.master_for(address.master_name, **server)
    return master


def close(client: "redis.Redis") -> None:
    """Close a client's connections, those to Sentinels included: redis-py leaves them to the caller."""
    client.close()
    sentinels: Sentinel | None = getattr(client.connection_pool, "sentinel_manager", None)
    if sentinels is not None:
        sentinels.close()


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
