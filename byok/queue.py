"""Implements `byok.ports.TaskQueue` on Celery: names, queues and settings that both sides share."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from celery import Celery
from kombu.entity import Exchange, Queue
from kombu.exceptions import KombuError
from kombu.exceptions import OperationalError as KombuOperationalError
from redis.exceptions import RedisError

from byok import tracing
from byok.broker import broker_settings
from byok.core.model import OpenWork, RotationReason
from byok.core.moves import KmsKeyMove
from byok.core.reencryption import Campaign
from byok.core.resealing import Reseal
from byok.errors import QueueUnavailable
from byok.ports import RedisFacts
from byok.redis_facts import read_facts

GENERATE = "byok.keys.generate"
ROTATE = "byok.keys.rotate"
ROTATE_MANY = "byok.keys.rotate_many"
VALIDATE = "byok.keys.validate"
PROBE = "byok.tenants.probe"
SYNC_ROTATION = "byok.tenants.sync_rotation"
WATCH = "byok.tenants.watch"
MOVE = "byok.tenants.move_kms_key"
REENCRYPT = "byok.records.reencrypt"
RESEAL = "byok.records.reseal"
DISPATCH_DUE = "byok.schedule.dispatch_due"
SWEEP = "byok.schedule.sweep"
PUBLISH_PROBES = "byok.schedule.publish_probes"
PUBLISH_VALIDATIONS = "byok.schedule.publish_validations"
PUBLISH_SYNCS = "byok.schedule.publish_syncs"
PUBLISH_WATCHES = "byok.schedule.publish_watches"
POST_WEBHOOKS = "byok.schedule.post_webhooks"

# In the order in which a worker empties them. Ticks and probes come before what is set going by thousands: a
# revocation must be noticed, and what got lost be found, however many rotations wait.
FORCED_QUEUE = "rotate.forced"
MAINTENANCE_QUEUE = "maintenance"
VALIDATE_QUEUE = "validate"
SCHEDULED_QUEUE = "rotate.scheduled"
# Behind all else, so that no sweep or probe waits for the batches of campaigns and reseals; of its own, so
# that workers can be set aside for them.
REENCRYPT_QUEUE = "reencrypt"
QUEUES = (FORCED_QUEUE, MAINTENANCE_QUEUE, VALIDATE_QUEUE, SCHEDULED_QUEUE, REENCRYPT_QUEUE)

_ROUTES = {
    GENERATE: FORCED_QUEUE,
    ROTATE: FORCED_QUEUE,
    ROTATE_MANY: SCHEDULED_QUEUE,
    VALIDATE: VALIDATE_QUEUE,
    PROBE: VALIDATE_QUEUE,
    SYNC_ROTATION: MAINTENANCE_QUEUE,
    WATCH: VALIDATE_QUEUE,
    MOVE: REENCRYPT_QUEUE,
    REENCRYPT: REENCRYPT_QUEUE,
    RESEAL: REENCRYPT_QUEUE,
    DISPATCH_DUE: MAINTENANCE_QUEUE,
    SWEEP: MAINTENANCE_QUEUE,
    PUBLISH_PROBES: MAINTENANCE_QUEUE,
    PUBLISH_VALIDATIONS: MAINTENANCE_QUEUE,
    PUBLISH_SYNCS: MAINTENANCE_QUEUE,
    PUBLISH_WATCHES: MAINTENANCE_QUEUE,
    POST_WEBHOOKS: MAINTENANCE_QUEUE,
}
# Nobody waits for these.
_UNATTENDED = frozenset({RotationReason.SCHEDULED, RotationReason.KMS_KEY_ROTATED, RotationReason.MIGRATION})
# A task costs Celery as much CPU as a KMS call: among this many it is next to nothing. More would only make
# a forced rotation wait longer for a thread (`benchmarks/rotations.py`).
ROTATIONS_A_MESSAGE = 25

# Countdowns space a campaign's batches. A long one could outlive its message's visibility; who comes too
# early waits again.
LONGEST_COUNTDOWN_SECONDS = 30.0

# Each setting with its reason; docs/celery.md tells more.
COMMON_SETTINGS: dict[str, Any] = {
    # JSON only: a pickle from the broker could run code in a worker.
    "task_serializer": "json",
    "accept_content": ["json"],
    # Outcomes stand in PostgreSQL; nothing is kept in Redis, so that nothing of it has to expire.
    "task_ignore_result": True,
    "result_backend": None,
    # Each queue with an exchange and key of its own: left out, all would share the default one's, and a
    # message for that would reach them all.
    "task_queues": tuple(Queue(name, Exchange(name), routing_key=name) for name in QUEUES),
    "task_default_queue": MAINTENANCE_QUEUE,
    # A queue that nobody consumes would swallow tasks silently.
    "task_create_missing_queues": False,
    "task_routes": {name: {"queue": queue} for name, queue in _ROUTES.items()},
    # Redis confirms a message by its reply to LPUSH. The row is the truth and the sweeper publishes
    # again: a caller need not wait long for a broker.
    "task_publish_retry": True,
    "task_publish_retry_policy": {"max_retries": 2, "interval_start": 0.1, "interval_step": 0.3},
    "enable_utc": True,
    "timezone": "UTC",
}


def client_app(broker_url: str) -> Celery:
    """A Celery app without tasks, for a process that runs none."""
    app = Celery("byok", set_as_current=False)
    app.conf.update(COMMON_SETTINGS | broker_settings(broker_url))
    return app


class CeleryQueue:
    """Publishes tasks by name. Thread-safe; kombu's pools notice a fork."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    @classmethod
    def connect(cls, broker_url: str) -> "CeleryQueue":
        """A queue of its own for a process that only publishes."""
        return cls(client_app(broker_url))

    def rotate(self, works: Sequence[OpenWork]) -> None:
        unattended = [work for work in works if work.rotation.reason in _UNATTENDED]
        waited_for = [work for work in works if work.rotation.reason not in _UNATTENDED]
        with _translated_errors(), self._app.producer_or_acquire() as producer:
            for work in waited_for:
                name = GENERATE if work.rotation.reason is RotationReason.INITIAL else ROTATE
                arguments = {"tenant": work.tenant, "key": work.key, "rotation_id": str(work.rotation.id)}
                self._send(name, arguments, FORCED_QUEUE, producer=producer)
            # One tenant's together: what its slow KMS holds up is its own.
            unattended.sort(key=lambda work: work.tenant)
            for start in range(0, len(unattended), ROTATIONS_A_MESSAGE):
                ids = [str(work.rotation.id) for work in unattended[start : start + ROTATIONS_A_MESSAGE]]
                self._send(ROTATE_MANY, {"rotation_ids": ids}, SCHEDULED_QUEUE, producer=producer)

    def validate(self, tenant: str, key: str) -> None:
        self._send(VALIDATE, {"tenant": tenant, "key": key}, VALIDATE_QUEUE)

    def probe(self, tenant: str) -> None:
        self._send(PROBE, {"tenant": tenant}, VALIDATE_QUEUE)

    def sync_rotation(self, tenant: str) -> None:
        self._send(SYNC_ROTATION, {"tenant": tenant}, MAINTENANCE_QUEUE)

    def watch(self, tenant: str) -> None:
        self._send(WATCH, {"tenant": tenant}, VALIDATE_QUEUE)

    def reencrypt(self, campaign: Campaign, delay: timedelta) -> None:
        arguments: dict[str, str | int] = {"campaign_id": str(campaign.id), "batch": campaign.batch}
        countdown_seconds = min(delay.total_seconds(), LONGEST_COUNTDOWN_SECONDS)
        self._send(REENCRYPT, arguments, REENCRYPT_QUEUE, countdown_seconds=countdown_seconds or None)

    def reseal(self, reseal: Reseal, delay: timedelta) -> None:
        arguments: dict[str, str | int] = {"reseal_id": str(reseal.id), "batch": reseal.batch}
        countdown_seconds = min(delay.total_seconds(), LONGEST_COUNTDOWN_SECONDS)
        self._send(RESEAL, arguments, REENCRYPT_QUEUE, countdown_seconds=countdown_seconds or None)

    def move(self, move: KmsKeyMove) -> None:
        self._send(MOVE, {"move_id": str(move.id), "batch": move.batch}, REENCRYPT_QUEUE)

    def ping(self) -> None:
        with _translated_errors(), self._app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=5)

    def workers(self, timeout_seconds: float = 1.0) -> list[str]:
        """The names of the workers that answer in time."""
        with _translated_errors():
            replies = self._app.control.ping(timeout=timeout_seconds)
        return sorted(name for reply in replies for name in reply)

    def backlog(self) -> int:
        depths = self.depths()
        return depths[FORCED_QUEUE] + depths[SCHEDULED_QUEUE] * ROTATIONS_A_MESSAGE

    def checks_waiting(self) -> int:
        return self.depths()[VALIDATE_QUEUE]

    def syncs_waiting(self) -> int:
        return self.depths()[MAINTENANCE_QUEUE]

    def depths(self) -> dict[str, int]:
        """How many messages wait in each queue."""

        def depth(channel: Any, name: str) -> int:  # noqa: ANN401  # kombu is untyped
            return int(channel.client.llen(name))

        with _translated_errors(), self._app.connection_for_read() as connection:
            channel = connection.default_channel
            return {name: depth(channel, name) for name in QUEUES}

    def consumers(self, timeout_seconds: float = 1.0) -> dict[str, list[str]]:
        """Of each queue, the workers that consume it, of those that answer in time."""
        with _translated_errors():
            replies = self._app.control.inspect(timeout=timeout_seconds).active_queues() or {}
        found: dict[str, list[str]] = {name: [] for name in QUEUES}
        for worker, queues in sorted(replies.items()):
            for queue in queues:
                found.setdefault(queue["name"], []).append(worker)
        return found

    def facts(self) -> RedisFacts:
        """How the broker is set up."""
        with _translated_errors(), self._app.connection_for_read() as connection:
            return read_facts(connection.default_channel.client)

    def close(self) -> None:
        """Close the connections."""
        self._app.close()

    def _send(
        self,
        name: str,
        arguments: Mapping[str, object],
        queue: str,
        *,
        countdown_seconds: float | None = None,
        producer: Any = None,  # noqa: ANN401  # kombu is untyped
    ) -> None:
        with _translated_errors(), tracing.publishing(name, queue) as headers:
            self._app.send_task(
                name,
                kwargs=dict(arguments),
                queue=queue,
                producer=producer,
                countdown=countdown_seconds,
                headers=dict(headers),
            )


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except (KombuOperationalError, KombuError, RedisError, OSError) as error:
        # from None: the driver's message may hold the broker's address
        raise QueueUnavailable(
            f"the broker does not answer ({type(error).__name__})",
            remedy="check that Redis runs and BYOK_BROKER_URL names it; what was requested is not lost",
        ) from None
