"""kombu's Redis transport, with one error of its own called by its name.

A channel whose connection was closed can still be asked to acknowledge, or to give back, what it holds: a
thread ends its task while the broker is away. kombu 5.7 then raises AttributeError, which Celery takes for
unrecoverable, and the worker ends. As the connection error that it is, it is logged, the worker connects
again, and the message comes back. `tests/chaos` kills the broker under load.
"""

from typing import Any

from kombu.transport import redis
from redis.exceptions import ConnectionError as RedisConnectionError


class Channel(redis.Channel):
    """A channel that knows when its connection is gone."""

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        if self.connection.client is None:
            raise RedisConnectionError("the connection of this channel was closed")
        parameters: dict[str, Any] = super()._connparams(asynchronous)
        return parameters


class Transport(redis.Transport):
    """The transport of the workers."""

    Channel = Channel
