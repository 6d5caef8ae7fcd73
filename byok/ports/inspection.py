"""What servers say of themselves, for ``byok doctor``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """How a Redis is set up; None is what it does not let us ask, as managed ones do.

    ``run_id`` and ``database`` tell two addresses of one server apart. ``snapshots``: whether it ever writes
    its memory to disk by itself.
    """

    database: int
    run_id: str | None
    maxmemory_policy: str | None
    append_only: bool | None
    snapshots: bool | None


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """How PostgreSQL is set up for us.

    ``missing_rights`` reads ``UPDATE on keys``, and says nothing of ``missing_tables``; ``timeouts`` has the
    seconds after which it gives up, 0 for never; ``now`` is its clock, read between two readings of the
    caller's.
    """

    major: int
    is_encrypted: bool
    missing_tables: Sequence[str]
    missing_rights: Sequence[str]
    timeouts: Mapping[str, float]
    now: datetime
