"""What the services need to tell customers' own endpoints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from byok.core.counts import Count
from byok.core.webhooks import WebhookMessage


@dataclass(frozen=True, slots=True)
class WebhookState:
    """How a tenant's messages fare: when one last got through, how many wait and how many were given up, and
    what the latest failure was."""

    last_delivered_at: datetime | None
    waiting: int
    given_up: int
    failure: str | None


class Outbox(Protocol):
    """The webhook_messages table."""

    def add(self, messages: Sequence[WebhookMessage], at: datetime) -> None:
        """Insert messages that are due at once."""

    def claim(self, now: datetime, limit: int) -> Sequence[tuple[WebhookMessage, str | None]]:
        """Take messages that are due, one of a tenant at most, first tries and some retries; count the try
        and move them on as if it had failed. Each with its tenant's URL now; None: it has none any more."""

    def set_delivered(self, message_id: UUID, at: datetime) -> None:
        """Note that a message got through."""

    def set_failed(self, message_id: UUID, failure: str, at: datetime, *, give_up: bool) -> None:
        """Note why a try failed; with ``give_up`` there is no further one."""

    def remove_settled(self, before: datetime, limit: int) -> int:
        """Delete messages that got through or were given up before then, so many of either at most; return
        how many."""

    def oldest_due(self, now: datetime) -> datetime | None:
        """Since when that message has been due which has waited longest; None: none is."""

    def count_given_up(self, since: datetime) -> Count:
        """How many messages were given up since then."""

    def state(self, tenant_id: UUID) -> WebhookState:
        """How a tenant's messages fare."""


class WebhookSender(Protocol):
    """Posts to the world outside."""

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> str | None:
        """Post once, within 15 seconds; None: it was accepted. Else why not, in a few words without the URL's
        path. Never raises."""
