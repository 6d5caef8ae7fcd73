"""What speaks against destroying a version. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from byok.core.bounds import MAX_LEASE_TTL
from byok.core.model import Key, KeyVersion, VersionState
from byok.core.usage import VersionUsage

# What was used within the longest life of a lease may be in use now.
DEFAULT_UNUSED_FOR = MAX_LEASE_TTL


@dataclass(frozen=True, slots=True)
class Objection:
    """Why a version is not to be destroyed, and what would change that."""

    why: str
    remedy: str
    may_be_forced: bool = False


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a version at ``at``.

    ``unflushed`` are the processes whose uses from before its key's floor took effect may not be in the
    ledger yet; ``pins`` say what needs the version beyond reading fields.
    """

    tenant: str
    key: Key
    version: KeyVersion
    usage: VersionUsage | None
    unflushed: Sequence[str]
    pins: Sequence[Objection]
    at: datetime

    @property
    def unused_for(self) -> timedelta | None:
        """How long ago it was used last; None: never."""
        return None if self.usage is None else self.at - self.usage.last_used_at


def objections(evidence: Evidence, unused_for: timedelta) -> list[Objection]:
    """The reasons not to destroy a version, the weightiest first; none where it has been unused for so long.

    Whether its state allows it is the lifecycle's business.
    """
    return [
        *evidence.pins,  # before the floor, which can't be raised above some of them
        *_above_floor(evidence),
        *_recently_used(evidence, unused_for),
        *_unflushed(evidence),
    ]


def _above_floor(evidence: Evidence) -> list[Objection]:
    key, number = evidence.key, evidence.version.number
    if number < key.decryption_floor:
        return []
    return [
        Objection(
            f"version {number} still decrypts: the decryption floor is {key.decryption_floor}",
            f"raise it, which can be undone: byok key set-floor {evidence.tenant} {key.name} {number + 1}",
        )
    ]


def _recently_used(evidence: Evidence, wanted: timedelta) -> list[Objection]:
    usage, idle = evidence.usage, evidence.unused_for
    if usage is None or idle is None or idle >= wanted:
        return []
    return [
        Objection(
            f"version {usage.number} was used {_show(idle)} ago ({usage.last_used_at:%Y-%m-%d %H:%M:%SZ}),"
            f" {usage.uses} times in all: it is to be unused for {_show(wanted)}",
            "re-encrypt what it protects, and wait; if nothing needs it for certain: --force",
            may_be_forced=True,
        )
    ]


def _unflushed(evidence: Evidence) -> list[Objection]:
    if not evidence.unflushed:
        return []
    return [
        Objection(
            "the ledger may lack uses from before the floor was raised, of " + ", ".join(evidence.unflushed),
            "wait a minute: a process writes its uses every 30 s, and a dead one is forgotten after minutes",
            may_be_forced=True,
        )
    ]


def revivable(versions: Sequence[KeyVersion], floor: int, now: datetime) -> KeyVersion | None:
    """A destroyed version that a floor as low as this could bring back to life, if there is one.

    A process that has not used the key since may still hold its secret, until its lease ends.
    """
    for version in versions:
        if version.state is VersionState.DESTROYED and version.number >= floor:
            assert version.ended_at is not None
            if version.ended_at > now - MAX_LEASE_TTL:
                return version
    return None


def _show(duration: timedelta) -> str:
    """In a unit that a person can judge by."""
    seconds = int(duration.total_seconds())
    for unit, size in (("d", 86400), ("h", 3600)):
        if seconds >= 2 * size or seconds == size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
