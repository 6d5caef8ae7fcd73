"""Where the queue is, in Celery's settings, and kombu's Redis transport as byok needs it.

Mended: a channel whose connection was closed can still be asked to acknowledge, or to give back, what it
holds: a thread ends its task while the broker is away. kombu 5.7 then raises AttributeError, which Celery
takes for unrecoverable, and the worker ends. As the connection error that it is, it is logged, the worker
connects again, and the message comes back. `tests/chaos` kills the broker under load.

Sentinels: kombu reads them from a URL each, and at the first failure goes over to its own transport, which is
not mended. Their password it takes from an option that is told to whoever asks a worker for its statistics
(`celery inspect stats`, Flower). Here all of them are one option, which tells no secret.
"""

from dataclasses import dataclass
from typing import Any

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
_PATIENCE: dict[str, Any] = {
    "socket_keepalive": True,
    "socket_timeout": 5,
    "socket_connect_timeout": 5,
    "health_check_interval": 5,
}
# Each option with its reason; docs/celery.md tells more.
_TRANSPORT_OPTIONS: dict[str, Any] = {
    # An unacknowledged message comes back after this long. The sweeper wakes up what got lost long
    # before, so it only has to be longer than the longest task: many rotations, whose two steps go on
    # for 30 s and then for one rotation's KMS calls, four at most, each of three tries of 7 s. The
    # longest countdown is 30 s, of a campaign's batch.
    "visibility_timeout": 900,
    "queue_order_strategy": "priority",
    **_PATIENCE,
}


def broker_settings(url: str) -> dict[str, Any]:
    """Celery's settings for a queue at ``url``.

    Raises:
        ValueError: the URL is wrong.
    """
    address = RedisUrl.parse(url)
    host, port = address.servers[0]
    login = (address.username or "", address.password or "")
    settings = {
        "broker_url": as_url("redis", host, port, *login, path=str(address.database)),
        "broker_use_ssl": address.tls,
        "broker_transport": "byok.broker:Transport",
        "broker_transport_options": _TRANSPORT_OPTIONS,
    }
    if address.master_name is None:
        return settings
    return settings | {
        "broker_transport": "byok.broker:SentinelTransport",
        "broker_transport_options": _TRANSPORT_OPTIONS | {"sentinels": Sentinels(address)},
    }


@dataclass(frozen=True, slots=True)
class Sentinels:
    """Who knows the master, as an option of kombu's transport."""

    address: RedisUrl

    def __json__(self) -> str:
        """What others are told of it."""
        return repr(self.address)


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
    """A channel to the master; each new connection asks the Sentinels for it."""

    from_transport_options = (*redis.SentinelChannel.from_transport_options, "sentinels")  # type: ignore[assignment]  # typed by its length
    sentinels: Sentinels

    def _sentinel_managed_pool(self, asynchronous: bool = False) -> Any:  # noqa: ANN401  # kombu is untyped
        parameters, address = self._connparams(asynchronous), self.sentinels.address
        del parameters["host"], parameters["port"]
        # redis-py would ask each Sentinel, and then all of them again, several times over with growing waits.
        once_more = {"retry": Retry(NoBackoff(), 1)}
        to_sentinels = _PATIENCE | once_more | address.sentinel_login() | address.tls_arguments()
        manager: Any = Sentinel(  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
            address.servers, sentinel_kwargs=to_sentinels, **(parameters | once_more)
        )
        # Where kombu looks for what it has to close.
        if asynchronous:
            self._async_sentinel_manager = manager
        else:
            self._sentinel_manager = manager
        return manager.master_for(address.master_name).connection_pool


class SentinelTransport(redis.SentinelTransport):
    """The transport to the master."""

    Channel = SentinelChannel
