"""Implements `byok.ports.NoticeBoard` on Redis pub/sub.

One channel for all tenants, ``byok:notices``; a message is ``TENANT`` or ``TENANT STOP``, both UUIDs.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from byok.cache.connection import close, connect, translated_errors
from byok.errors import CacheUnavailable
from byok.ports import Notice

CHANNEL = "byok:notices"
_PING_SECONDS = 5.0
# A connection that carried nothing for this long, though asked to, is dead however open it looks.
_SILENCE_SECONDS = 3 * _PING_SECONDS


class RedisNoticeBoard:
    """Push over the lease cache's server."""

    def __init__(self, url: str) -> None:
        self._redis = connect(url)

    def publish(self, notice: Notice) -> None:
        stop = "" if notice.stop_id is None else f" {notice.stop_id}"
        with translated_errors():
            self._redis.publish(CHANNEL, f"{notice.tenant_id}{stop}")

    @contextmanager
    def listen(self) -> "Iterator[RedisSubscription]":
        with translated_errors():
            pubsub = self._redis.pubsub()  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
            try:
                pubsub.subscribe(CHANNEL)
                if pubsub.get_message(timeout=1.0) is None:
                    raise CacheUnavailable("the Redis cache does not let us listen to notices")
                yield RedisSubscription(pubsub)
            finally:
                connection = pubsub.connection
                pubsub.close()
                # It would go back to a pool that may be closed by now, and stay open.
                if connection is not None:
                    connection.disconnect()

    def close(self) -> None:
        """Close the connections."""
        close(self._redis)


class RedisSubscription:
    """Implements `byok.ports.Subscription`. For one thread."""

    def __init__(self, pubsub: Any) -> None:  # noqa: ANN401  # redis-py's PubSub is untyped
        self._pubsub = pubsub
        self._pinged_at = self._heard_at = time.monotonic()

    def next(self, timeout_seconds: float) -> Notice | None:
        with translated_errors():
            self._keep_alive()
            message = self._pubsub.get_message(timeout=timeout_seconds)
        if message is None:
            return None
        self._heard_at = time.monotonic()
        if message["type"] == "subscribe":
            # The connection broke and was made anew under our hands: what was said meanwhile is lost.
            raise CacheUnavailable("the connection to the channel of notices broke")
        return _parse(message["data"]) if message["type"] == "message" else None

    def _keep_alive(self) -> None:
        now = time.monotonic()
        if now - self._heard_at > _SILENCE_SECONDS:
            raise CacheUnavailable("the Redis cache does not answer on the channel of notices")
        if now - self._pinged_at > _PING_SECONDS:
            self._pinged_at = now
            self._pubsub.ping()


def _parse(data: bytes) -> Notice | None:
    """The notice, or None where it is not one of ours."""
    try:
        tenant, _, stop = data.decode().partition(" ")
        return Notice(UUID(tenant), UUID(stop) if stop else None)
    except ValueError:
        return None
