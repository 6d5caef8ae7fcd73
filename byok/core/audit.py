"""The audit chain: each event of a tenant carries the hash of the one before. Pure.

The hash is SHA-256 over the RFC 8785 canonical JSON of the event, ``previous_hash`` included in
hexadecimal (``docs/spec/audit-chain.md``).
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import UUID

import rfc8785

from byok.core.model import AuditEvent
from byok.errors import AuditChainBroken

GENESIS_HASH = bytes(32)


@dataclass(frozen=True, slots=True)
class AuditChain:
    """A tenant's audit events as a whole. ``length`` is the number of the last one, by the chain's head."""

    tenant_id: UUID
    tenant: str
    length: int


@dataclass(frozen=True, slots=True)
class ChainPlace:
    """A place in a chain: the number of an event, and its hash."""

    sequence: int
    hash: bytes


BEFORE_THE_FIRST = ChainPlace(0, GENESIS_HASH)


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """What is to be written down, before it has its place in the tenant's chain."""

    tenant_id: UUID
    at: datetime
    actor: str
    action: str
    details: dict[str, str | int | None]


def canonical_event(event: AuditEvent) -> bytes:
    """The bytes that are hashed: canonical JSON of everything but the hash itself."""
    return rfc8785.dumps(
        {
            "action": event.action,
            "actor": event.actor,
            "at": event.at.astimezone(UTC).isoformat(timespec="microseconds"),
            "details": dict(event.details),
            "previous_hash": event.previous_hash.hex(),
            "sequence": event.sequence,
            "tenant_id": str(event.tenant_id),
        }
    )


def link_event(
    *,
    tenant_id: UUID,
    sequence: int,
    previous_hash: bytes,
    at: datetime,
    actor: str,
    action: str,
    details: dict[str, str | int | None],
) -> AuditEvent:
    """Make the event that follows ``previous_hash`` in a tenant's chain."""
    event = AuditEvent(tenant_id, sequence, at, actor, action, details, previous_hash, b"")
    return replace(event, hash=hashlib.sha256(canonical_event(event)).digest())


def verify_chain(events: Iterable[AuditEvent]) -> int:
    """Walk one tenant's events from the first; return how many there are.

    Raises:
        AuditChainBroken: naming the first event that does not follow from the one before.
    """
    return walk_chain(events, BEFORE_THE_FIRST).sequence


def walk_chain(events: Iterable[AuditEvent], after: ChainPlace) -> ChainPlace:
    """Walk the events behind a place; return the last one's.

    Raises:
        AuditChainBroken: as `verify_chain`.
    """
    place = after
    for event in events:
        if event.sequence != place.sequence + 1:
            raise AuditChainBroken(f"event {place.sequence + 1} is missing; {event.sequence} follows")
        if event.previous_hash != place.hash:
            raise AuditChainBroken(f"event {event.sequence} does not follow from the one before")
        if hashlib.sha256(canonical_event(event)).digest() != event.hash:
            raise AuditChainBroken(f"event {event.sequence} was changed")
        place = ChainPlace(event.sequence, event.hash)
    return place
