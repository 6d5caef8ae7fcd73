"""What the services need of the usage ledger."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from byok.core.usage import VersionId, VersionUsage


class Usage(Protocol):
    """The table version_usage, and which members have written to it."""

    def add(self, uses: Mapping[VersionId, int], at: datetime) -> None:
        """Add to what the ledger has; concurrent writers add up. Gives up within a second, so that the
        caller's other work goes on. Versions that don't exist are left out."""

    def list(self, key_id: UUID) -> Mapping[int, VersionUsage]:
        """What is known of a key's versions, by number; a version that was never used is missing."""

    def note_flush(self, member_id: UUID, at: datetime) -> None:
        """Note that the ledger has every use that a member made before ``at``."""

    def list_unflushed(self, since: datetime, seen_since: datetime | None) -> Sequence[str]:
        """The members whose uses up to ``since`` are not all in the ledger, by name; with ``seen_since`` only
        those that were seen since then."""
