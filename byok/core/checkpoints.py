"""Signed checkpoints of audit chains: what somebody else keeps of a chain shows a rewrite. Pure.

A checkpoint says which hash an event has; `byok.crypto.checkpoints` signs it. Each is an event itself, so
that one that is taken away is missed (``docs/spec/audit-chain.md``).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from uuid import UUID

from byok.core.audit import AuditEntry, ChainPlace
from byok.core.model import AuditEvent
from byok.errors import AuditChainBroken

SIGNED = "audit.checkpoint-signed"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """That a tenant's chain had this event at its ``place`` then. A tenant's are numbered 1, 2, 3 …"""

    tenant_id: UUID
    number: int
    place: ChainPlace
    at: datetime


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint with its Ed25519 signature, by a key of the master key ``master_key_id``."""

    checkpoint: Checkpoint
    master_key_id: str
    public_key: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class KeptCheckpoint:
    """A checkpoint that somebody else kept; ``name`` says which, such as the name of its file."""

    name: str
    checkpoint: Checkpoint


def entry_of(checkpoint: Checkpoint, actor: str) -> AuditEntry:
    """The event that a checkpoint was signed."""
    return AuditEntry(checkpoint.tenant_id, checkpoint.at, actor, SIGNED, _details(checkpoint))


def _details(checkpoint: Checkpoint) -> dict[str, str | int | None]:
    place = checkpoint.place
    return {"checkpoint": checkpoint.number, "sequence": place.sequence, "hash": place.hash.hex()}


class StoredComparison:
    """Compares the stored checkpoints with the events of their chain, both in order.

    ``checkpoints`` are those that there were at one moment, ``length`` the number of the last event then:
    what came later is left to the next comparison.
    """

    def __init__(self, checkpoints: Iterator[SignedCheckpoint], length: int) -> None:
        self._checkpoints = checkpoints
        self._length = length
        self._next = next(checkpoints, None)
        self._unsaid: dict[int, Checkpoint] = {}  # whose own event is still to come

    def see(self, event: AuditEvent) -> Sequence[SignedCheckpoint]:
        """Compare with the next event; return the checkpoints that speak of it.

        Raises:
            AuditChainBroken.
        """
        told: list[SignedCheckpoint] = []
        while self._next is not None and self._next.checkpoint.place.sequence <= event.sequence:
            checkpoint = self._next.checkpoint
            if checkpoint.place != ChainPlace(event.sequence, event.hash):
                raise AuditChainBroken(
                    f"event {checkpoint.place.sequence} is not what checkpoint {checkpoint.number} signed"
                )
            self._unsaid[checkpoint.number] = checkpoint
            told.append(self._next)
            self._next = next(self._checkpoints, None)
        if event.action == SIGNED and event.sequence <= self._length:
            self._compare_own_event(event)
        return told

    def _compare_own_event(self, event: AuditEvent) -> None:
        number = event.details.get("checkpoint")
        checkpoint = self._unsaid.pop(number, None) if isinstance(number, int) else None
        if checkpoint is None or event.details != _details(checkpoint):
            raise AuditChainBroken(
                f"checkpoint {number} of event {event.details.get('sequence')} is missing;"
                f" event {event.sequence} says that it was signed"
            )

    def end(self) -> None:
        """Require that no checkpoint is left over.

        Raises:
            AuditChainBroken.
        """
        unseen = [] if self._next is None else [self._next.checkpoint]
        for left in (*self._unsaid.values(), *unseen):
            raise AuditChainBroken(
                f"checkpoint {left.number} of event {left.place.sequence} is in no event of the chain"
            )


class KeptComparison:
    """Compares a chain with checkpoints from outside."""

    def __init__(self, kept: Sequence[KeptCheckpoint]) -> None:
        self._kept = sorted(kept, key=lambda one: one.checkpoint.place.sequence, reverse=True)
        self._agreed = 0
        for one, other in pairwise(self._kept):
            _require_agreement(one, other)

    def see(self, event: AuditEvent) -> None:
        """Compare with the next event.

        Raises:
            AuditChainBroken.
        """
        while self._kept and self._kept[-1].checkpoint.place.sequence <= event.sequence:
            one = self._kept.pop()
            if one.checkpoint.place != ChainPlace(event.sequence, event.hash):
                raise AuditChainBroken(
                    f"event {event.sequence} is not what {one.name} signed: the chain was written anew"
                    f" from one of the events {self._agreed + 1} to {event.sequence} on"
                )
            self._agreed = event.sequence

    def end(self, length: int) -> None:
        """Require that no checkpoint speaks of what is behind the chain's end.

        Raises:
            AuditChainBroken.
        """
        if self._kept:
            beyond = self._kept[-1]
            known = beyond.checkpoint.place.sequence
            raise AuditChainBroken(f"event {length + 1} is missing; {beyond.name} signed event {known}")


def _require_agreement(one: KeptCheckpoint, other: KeptCheckpoint) -> None:
    first, second = one.checkpoint.place, other.checkpoint.place
    if first.sequence == second.sequence and first.hash != second.hash:
        raise AuditChainBroken(
            f"{one.name} and {other.name} contradict each other about event {first.sequence}, and one vendor"
            " signed both: that is proof of a rewrite"
        )
