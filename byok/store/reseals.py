"""The table of reseals."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from byok.core.resealing import (
    RecordKind,
    RecordPlace,
    Reseal,
    ResealState,
    Tally,
    UnreadableRecord,
)
from byok.errors import LostRace, NotFound
from byok.store import schema
from byok.store.claims import lock_waking, unclaimed

_reseals = schema.reseals
_JOIN_ATTEMPTS = 10  # the running one that is in a new one's way can end before we read it


class ResealTable:
    """Implements `byok.ports.Reseals`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def start(self, reseal: Reseal, wake_at: datetime) -> tuple[Reseal, bool]:
        self._supersede(reseal)
        statement = (
            insert(_reseals)
            .values(_from_reseal(reseal) | {"wake_at": wake_at})
            .on_conflict_do_nothing()
            .returning(_reseals)
        )
        for _ in range(_JOIN_ATTEMPTS):
            row = self._connection.execute(statement).one_or_none()
            if row is not None:
                return _to_reseal(row), True
            running = self._find(
                _reseals.c.state == ResealState.RUNNING, _reseals.c.master_key_id == reseal.master_key_id
            )
            if running is not None:
                return running, False
            self._supersede(reseal)
        raise LostRace("reseals end as fast as one can ask", remedy="ask again")

    def _supersede(self, by: Reseal) -> None:
        self._connection.execute(
            _reseals.update()
            .where(_reseals.c.state == ResealState.RUNNING, _reseals.c.master_key_id != by.master_key_id)
            .values(
                state=ResealState.SUPERSEDED,
                finished_at=by.requested_at,
                claimed_until=None,
                wake_at=None,
                failure=f"{by.requested_by} asked for {by.master_key_id}",
            )
        )

    def get(self, reseal_id: UUID) -> Reseal:
        reseal = self._find(_reseals.c.id == reseal_id)
        if reseal is None:
            raise NotFound(f"there is no reseal {reseal_id}", remedy="byok master-key status shows the last")
        return reseal

    def find_latest(self) -> Reseal | None:
        return self._find(sa.true())

    def find_done(self, master_key_id: str) -> Reseal | None:
        return self._find(_reseals.c.state == ResealState.DONE, _reseals.c.master_key_id == master_key_id)

    def _find(self, *conditions: sa.ColumnElement[bool]) -> Reseal | None:
        row = self._connection.execute(
            sa.select(_reseals)
            .where(*conditions)
            .order_by(_reseals.c.requested_at.desc(), _reseals.c.id.desc())
            .limit(1)
        ).one_or_none()
        return None if row is None else _to_reseal(row)

    def claim(self, reseal_id: UUID, batch: int | None, now: datetime, duration: timedelta) -> Reseal | None:
        until = now + duration
        row = self._connection.execute(
            _reseals.update()
            .where(
                _reseals.c.id == reseal_id,
                _reseals.c.state == ResealState.RUNNING,
                unclaimed(_reseals, now, duration),
                sa.true() if batch is None else _reseals.c.batch == batch,
            )
            .values(claimed_until=until, wake_at=until, batch=_reseals.c.batch + 1)
            .returning(_reseals)
        ).one_or_none()
        return None if row is None else _to_reseal(row)

    def advance(self, reseal: Reseal, until: datetime) -> Reseal:
        values = _from_reseal(replace(reseal, failures=0, failure=None))
        return self._update(reseal, values | {"claimed_until": until, "wake_at": until})

    def release(self, reseal: Reseal, wake_at: datetime, failure: str | None) -> Reseal:
        values: dict[str, Any] = {"claimed_until": None, "wake_at": wake_at}
        if failure is not None:
            values |= {"failure": failure, "failures": _reseals.c.failures + 1}
        return self._update(reseal, values)

    def end(self, reseal: Reseal, state: ResealState, at: datetime, failure: str | None) -> Reseal:
        ended = replace(reseal, state=state, finished_at=at, failure=failure, waits_for=None)
        return self._update(reseal, _from_reseal(ended) | {"claimed_until": None, "wake_at": None})

    def _update(self, reseal: Reseal, values: dict[str, Any]) -> Reseal:
        """Compare the batch, and swap."""
        row = self._connection.execute(
            _reseals.update()
            .where(
                _reseals.c.id == reseal.id,
                _reseals.c.state == ResealState.RUNNING,
                _reseals.c.batch == reseal.batch,
            )
            .values(values)
            .returning(_reseals)
        ).one_or_none()
        if row is None:
            raise LostRace(f"reseal {reseal.id} is at another batch by now, or has ended")
        return _to_reseal(row)

    def lock_waking(
        self, now: datetime, limit: int, next_wake_at: datetime, latest_wake_at: datetime
    ) -> Sequence[Reseal]:
        waking = lock_waking(_reseals, schema.RUNNING_RESEAL, now, limit, latest_wake_at)
        rows = self._connection.execute(
            _reseals.update()
            .where(_reseals.c.id.in_(waking))
            .values(wake_at=next_wake_at)
            .returning(_reseals)
        )
        return [_to_reseal(row) for row in rows]


def _to_reseal(row: sa.Row[Any]) -> Reseal:
    return Reseal(
        id=row.id,
        master_key_id=row.master_key_id,
        state=ResealState(row.state),
        requested_by=row.requested_by,
        requested_at=row.requested_at,
        total=row.total,
        kind=None if row.kind is None else RecordKind(row.kind),
        cursor=None if row.cursor is None else RecordPlace.parse(row.cursor),
        batch=row.batch,
        pass_number=row.pass_number,
        tally=Tally(row.resealed, row.conflicts, row.unreadable),
        this_pass=Tally(row.pass_resealed, row.pass_conflicts, row.pass_unreadable),
        unreadable_records=tuple(
            UnreadableRecord(RecordKind(one["kind"]), RecordPlace.parse(one["place"]), one["why"])
            for one in row.unreadable_records
        ),
        waits_for=row.waits_for,
        failures=row.failures,
        failure=row.failure,
        finished_at=row.finished_at,
    )


def _from_reseal(reseal: Reseal) -> dict[str, Any]:
    """The row of a reseal, without its claim and its time to wake."""
    tally, this_pass = reseal.tally, reseal.this_pass
    return {
        "id": reseal.id,
        "master_key_id": reseal.master_key_id,
        "state": reseal.state,
        "requested_by": reseal.requested_by,
        "requested_at": reseal.requested_at,
        "total": reseal.total,
        "kind": reseal.kind,
        "cursor": None if reseal.cursor is None else str(reseal.cursor),
        "batch": reseal.batch,
        "pass_number": reseal.pass_number,
        "resealed": tally.resealed,
        "conflicts": tally.conflicts,
        "unreadable": tally.unreadable,
        "pass_resealed": this_pass.resealed,
        "pass_conflicts": this_pass.conflicts,
        "pass_unreadable": this_pass.unreadable,
        "unreadable_records": [
            {"kind": one.kind, "place": str(one.place), "why": one.why} for one in reseal.unreadable_records
        ],
        "waits_for": reseal.waits_for,
        "failures": reseal.failures,
        "failure": reseal.failure,
        "finished_at": reseal.finished_at,
    }
