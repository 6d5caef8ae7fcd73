"""Where the queue is, in Celery's settings, and kombu's Redis transport as byok needs it.

Mended: a channel whose connection was closed can still be asked to acknowledge, or to give back, what it
holds: a thread ends its task while the broker is away. kombu 5.7 then raises AttributeError, which Celery
takes for unrecoverable, and the worker ends. As the connection error that it is, it is logged, the worker
connects again, and the message comes back. `tests/chaos` kills the broker under load.

Sentinels: kombu reads them from a URL each, all with the password in them, and hands those to whoever asks
a worker for its statistics (`celery inspect stats`, Flower). Here the transport's class knows them.
"""

from typing import Any, ClassVar

from kombu.transport import redis
from kombu.utils.url import as_url
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.retry import Retry
from redis.sentinel import Sentinel

from byok.errors import ConfigurationError
from byok.redis_url import RedisUrl

# A half-open connection would leave a worker deaf: each is noticed after 5 s, all within 10 to 30 s
# (`tests/acceptance/test_broker_silence.py`). BRPOP waits 1 s, so no timeout strikes in good times.
PATIENCE: dict[str, Any] = {
    "socket_keepalive": True,
    "socket_timeout": 5,
    "socket_connect_timeout": 5,
    "health_check_interval": 5,
}


def broker_settings(url: str) -> dict[str, Any]:
    """Celery's settings for a queue at ``url``.

    Raises:
        ValueError: the URL is wrong.
    """
    address = RedisUrl.parse(url)
    host, port = address.servers[0]
    login = (address.username or "", address.password or "")
    return {
        "broker_url": as_url("redis", host, port, *login, path=str(address.database)),
        "broker_use_ssl": address.tls,
        "broker_transport": (
            "byok.broker:Transport" if address.master_name is None else _sentinel_transport(address)
        ),
    }


class _Mended:
    """A channel that knows when its connection is gone, and what it can't work on."""

    connection: Any  # kombu is untyped
    client: Any
    close: Any

    def __init__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401  # kombu is untyped
        super().__init__(*arguments, **named)
        try:
            self._refuse_a_cluster()
        except Exception:
            self.close()
            raise

    def _refuse_a_cluster(self) -> None:
        # kombu waits for several queues in one command, which a Cluster refuses: a worker would try for ever.
        try:
            is_cluster = bool(self.client.info("cluster")["cluster_enabled"])
        except (ResponseError, KeyError):  # not allowed to ask, or a server that does not say
            return
        if is_cluster:
            raise ConfigurationError(
                "BYOK_BROKER_URL: names a Redis Cluster, on which Celery can't work",
                remedy="use one server, or Sentinels: docs/deployment.md",
            )

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        if self.connection.client is None:
            raise RedisConnectionError("the connection of this channel was closed")
        parameters: dict[str, Any] = super()._connparams(asynchronous)  # type: ignore[misc]  # kombu's channel comes next
        return parameters


class Channel(_Mended, redis.Channel):
    """A channel to one server."""


class Transport(redis.Transport):
    """The transport to one server."""

    Channel = Channel


class SentinelChannel(_Mended, redis.SentinelChannel):
    """A channel to the master that the Sentinels of ``address`` name; each new connection asks them."""

    address: ClassVar[RedisUrl]

    def _sentinel_managed_pool(self, asynchronous: bool = False) -> Any:  # noqa: ANN401  # kombu is untyped
        parameters = self._connparams(asynchronous)
        del parameters["host"], parameters["port"]
        # redis-py would ask each Sentinel, and then all of them again, several times over with growing waits.
        once_more = {"retry": Retry(NoBackoff(), 1)}
        to_sentinels = PATIENCE | once_more | self.address.sentinel_login() | self.address.tls_arguments()
        sentinels: Any = Sentinel(  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
            self.address.servers, sentinel_kwargs=to_sentinels, **(parameters | once_more)
        )
        # Where kombu looks for what it has to close.
        if asynchronous:
            self._async_sentinel_manager = sentinels
        else:
            self._sentinel_manager = sentinels
        return sentinels.master_for(self.address.master_name).connection_pool


def _sentinel_transport(address: RedisUrl) -> type[redis.SentinelTransport]:
    channel = type("SentinelChannel", (SentinelChannel,), {"address": address})
    return type("SentinelTransport", (redis.SentinelTransport,), {"Channel": channel})
