"""What re-encryption needs of the application's own database."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from byok.core.reencryption import TableShape, TargetColumn, VersionCounts


@dataclass(frozen=True, slots=True)
class Row:
    """A row's primary key as text, and its tokens in the order of the target's columns."""

    id: str
    tokens: tuple[bytes | None, ...]


@dataclass(frozen=True, slots=True)
class Replacement:
    """A row's new tokens. ``old`` and ``new`` differ where something is to be written."""

    id: str
    old: tuple[bytes | None, ...]
    new: tuple[bytes | None, ...]


@dataclass(frozen=True, slots=True)
class CountedPage:
    """How many values of each version number some rows hold; ``last_id`` is None when no row is left."""

    rows: int
    counts: VersionCounts
    last_id: str | None


class RowStore(Protocol):
    """The tables that hold tokens.

    Every method raises ApplicationUnavailable; and TargetMismatch where a table is not what was registered,
    or not ours to read and write.
    """

    def inspect(
        self,
        table: str,
        primary_key: str,
        columns: Sequence[TargetColumn],
        tenant: tuple[str, str] | None,
    ) -> TableShape:
        """Compare a registration with the real table. ``table`` may name its schema: ``crm.users``;
        ``tenant`` is the column that names the tenant of a row, and what it holds for this one.

        Raises:
            TargetMismatch: a column is missing or of the wrong type, or the primary key is not unique.
        """

    def page(self, shape: TableShape, after: str | None, limit: int) -> Sequence[Row]:
        """The next rows in the order of the primary key."""

    def replace(self, shape: TableShape, replacements: Sequence[Replacement]) -> int:
        """Write new tokens where the old ones still stand; return in how many rows.

        Waits for no lock: a row that somebody else is writing is left out.
        """

    def count(self, shape: TableShape, after: str | None, limit: int) -> CountedPage:
        """Count the next rows' values by the version number that stands in each token."""
