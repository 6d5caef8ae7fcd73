"""Telling a customer's own endpoint: addresses, messages, the times between tries. Pure.

Messages are those of the Standard Webhooks specification 1.0.0 (https://www.standardwebhooks.com).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import rfc8785

from byok.core.lookout import KINDS, Change, Side, remedy_for
from byok.core.model import Tenant
from byok.errors import InvalidInput

_MAX_URL = 2048
# After the first try: 1 min, 4 min, 16 min, 1 h, 4 h, 12 h, 12 h …: three tries a day for those that are down
# over a weekend. Then the message is given up.
MAX_ATTEMPTS = 12
_FIRST_PAUSE = timedelta(minutes=1)
_LONGEST_PAUSE = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class WebhookMessage:
    """A message to a tenant's endpoint: what is posted, under an id that stays the same from try to try."""

    id: UUID
    tenant_id: UUID
    body: str
    attempts: int = 0


def check_url(text: str, *, allow_http: bool) -> str:
    """A URL that messages may be posted to. Where it leads is looked at when it is used.

    Raises:
        InvalidInput: not https, or with a user, a fragment or no host in it.
    """
    remedy = "write https://HOST/PATH"
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise InvalidInput("the webhook's URL is not one", remedy=remedy) from None
    schemes = ("https", "http") if allow_http else ("https",)
    if parts.scheme not in schemes or not parts.hostname:
        raise InvalidInput("a webhook's URL begins with https:// and a host", remedy=remedy)
    if "@" in parts.netloc or parts.fragment or len(text) > _MAX_URL or not text.isascii() or " " in text:
        raise InvalidInput(
            "a webhook's URL has no user, no fragment and at most 2,048 ASCII characters", remedy=remedy
        )
    return text


def host_of(url: str) -> str:
    """The part of a URL that may be logged: paths hold secrets at times."""
    return urlsplit(url).hostname or ""


def is_told(change: Change) -> bool:
    """Whether the customer is told: of what it is asked to do something about."""
    return KINDS[change.finding.kind].side is Side.CUSTOMER


def body_of(change: Change, tenant: Tenant, at: datetime) -> str:
    """The canonical JSON (RFC 8785) that tells of a change."""
    finding = change.finding
    message: dict[str, str | dict[str, str | None]] = {
        "type": f"finding.{change.event}",
        "timestamp": _iso(at),
        "data": {
            "id": str(finding.id),
            "tenant": tenant.name,
            "kind": finding.kind.value,
            "severity": finding.severity.value,
            "severity_before": None if change.before is None else change.before.value,
            "meaning": KINDS[finding.kind].meaning,
            "remedy": remedy_for(finding, tenant),
            "first_seen_at": _iso(finding.first_seen_at),
            "deadline_at": None if finding.deadline_at is None else _iso(finding.deadline_at),
            "resolved_at": None if finding.resolved_at is None else _iso(finding.resolved_at),
        },
    }
    return rfc8785.dumps(message).decode()


def body_of_checkpoint(document: Mapping[str, Any], at: datetime) -> str:
    """The canonical JSON that brings a signed checkpoint of the tenant's audit log."""
    message: dict[str, Any] = {"type": "audit.checkpoint", "timestamp": _iso(at), "data": dict(document)}
    return rfc8785.dumps(message).decode()


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def pause_after(attempts: int) -> timedelta:
    """How long to wait after so many tries, one at least."""
    factor: int = 4 ** min(attempts - 1, 10)
    return min(_FIRST_PAUSE * factor, _LONGEST_PAUSE)
