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
    expected_sequence, previous_hash = 1, GENESIS_HASH
    for event in events:
        if event.sequence != expected_sequence:
            raise AuditChainBroken(f"event {expected_sequence} is missing; {event.sequence} follows")
        if event.previous_hash != previous_hash:
            raise AuditChainBroken(f"event {event.sequence} does not follow from the one before")
        if hashlib.sha256(canonical_event(event)).digest() != event.hash:
            raise AuditChainBroken(f"event {event.sequence} was changed")
        expected_sequence, previous_hash = event.sequence + 1, event.hash
    return expected_sequence - 1
