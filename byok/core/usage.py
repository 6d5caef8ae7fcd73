"""How much each version is used, as processes count it and the ledger keeps it. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

# How often a process writes what it counted. One that is killed loses no more than this; a thousand
# processes make 33 writes a second, half as many as their heartbeats.
FLUSH_PERIOD = timedelta(seconds=30)


class VersionId(NamedTuple):
    """One version of one key."""

    key_id: UUID
    number: int


@dataclass(frozen=True, slots=True)
class VersionUsage:
    """What the ledger knows of a version: uses are encryptions and decryptions alike.

    The times are those of the writes that told of a use: up to `FLUSH_PERIOD` later than the use itself,
    never earlier.
    """

    number: int
    uses: int
    first_used_at: datetime
    last_used_at: datetime
