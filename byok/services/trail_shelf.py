"""Calls that AWS saw, kept in a file while they are compared: there may be more than memory holds."""

import json
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from byok.core.cloudtrail import Concern, TrailCall
from byok.core.reconciliation import may_be
from byok.core.request_log import LoggedRequest
from byok.errors import ConfigurationError

_TABLE = """
CREATE TABLE calls (call_id TEXT PRIMARY KEY, mark TEXT, at TEXT, told TEXT, agreed INT);
CREATE INDEX ix_calls_mark ON calls (mark) WHERE mark IS NOT NULL;
"""


class TrailShelf:
    """The calls, each once, and which of them agree with a request of ours."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        database.executescript(_TABLE)

    def put(self, call: TrailCall) -> bool:
        """Keep a call; False if it was there: records are delivered twice, and stand in two accounts."""
        mark = None if call.mark is None else call.mark.hex
        row = (call.call_id, mark, _sortable(call.at), json.dumps(asdict(call), default=str))
        kept = self._database.execute("INSERT OR IGNORE INTO calls VALUES (?, ?, ?, ?, 0)", row)
        return kept.rowcount == 1

    def agrees(self, request: LoggedRequest) -> bool:
        """Whether AWS saw this request, by its own id of it; note that, if so."""
        found = self._database.execute("SELECT told FROM calls WHERE call_id = ?", (request.request_id,))
        row = found.fetchone()
        if row is None or _call(row[0]).operation != request.operation:
            return False
        self._agree(request.request_id)
        return True

    def agrees_by_mark(self, request: LoggedRequest) -> bool:
        """Whether AWS saw this request, which has no answer, by our id of it; note that for one call."""
        found = self._database.execute(
            "SELECT told FROM calls WHERE mark = ? AND NOT agreed ORDER BY at, call_id", (request.id.hex,)
        )
        for (told,) in found.fetchall():
            if may_be(call := _call(told), request):
                self._agree(call.call_id)
                return True
        return False

    def _agree(self, call_id: str) -> None:
        self._database.execute("UPDATE calls SET agreed = 1 WHERE call_id = ?", (call_id,))

    def count_strangers(self) -> int:
        """How many calls agree with nothing of ours."""
        count: int = self._database.execute("SELECT count(*) FROM calls WHERE NOT agreed").fetchone()[0]
        return count

    def strangers(self, limit: int) -> Sequence[TrailCall]:
        """Calls that agree with nothing of ours, the oldest first; those of one second as they came."""
        found = self._database.execute(
            "SELECT told FROM calls WHERE NOT agreed ORDER BY at, rowid LIMIT ?", (limit,)
        )
        return [_call(told) for (told,) in found]

    def stranger_pages(self, size: int, within: timedelta) -> Iterator[Sequence[TrailCall]]:
        """All of them, the oldest first, no more and from no longer at once; those that agree meanwhile are
        passed over."""
        # Made here: while calls are put and compared it would cost each of them.
        self._database.execute("CREATE INDEX ix_calls_strangers ON calls (at, call_id) WHERE NOT agreed")
        after = ("", "")
        while True:
            found = self._database.execute(
                "SELECT told FROM calls WHERE NOT agreed AND (at, call_id) > (?, ?)"
                " ORDER BY at, call_id LIMIT ?",
                (*after, size),
            )
            calls = [_call(told) for (told,) in found.fetchall()]
            if not calls:
                return
            page = [call for call in calls if call.at - calls[0].at <= within]
            yield page
            after = (_sortable(page[-1].at), page[-1].call_id)


@contextmanager
def open_shelf() -> Iterator[TrailShelf]:
    """An empty shelf, gone afterwards.

    Raises:
        ConfigurationError: there is no room for it.
    """
    with tempfile.TemporaryDirectory(prefix="byok-reconcile-") as folder:
        database = sqlite3.connect(Path(folder) / "calls")
        database.execute("PRAGMA synchronous = OFF")  # nobody needs it after a crash
        try:
            yield TrailShelf(database)
        except sqlite3.OperationalError as error:
            raise ConfigurationError(
                f"the calls can't be kept in {folder}: {error}", remedy="make room there, or set TMPDIR"
            ) from error
        finally:
            database.close()


def _sortable(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def _call(told: str) -> TrailCall:
    fields: dict[str, Any] = json.loads(told)
    mark = fields.pop("mark")
    return TrailCall(
        mark=None if mark is None else UUID(mark),
        at=datetime.fromisoformat(fields.pop("at")),
        concern=Concern(fields.pop("concern")),
        **fields,
    )
