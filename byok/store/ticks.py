"""The table of ticks: what Beat set off, and when, so that two Beats set it off once."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from byok.core.model import Job, Tick
from byok.store import schema
from byok.store.rows import to_tick

_ticks = schema.ticks
# A run that has not ended after this long is taken for dead.
_MAX_RUN = timedelta(seconds=60)


class TickTable:
    """Implements `byok.ports.Ticks`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def begin(self, job: Job, now: datetime, period: timedelta) -> bool:
        # Beats tick a little early or late: a tenth of a period is no reason to leave one out.
        due = sa.and_(
            _ticks.c.ended_at.is_not(None), sa.or_(_ticks.c.began_at <= now - 0.9 * period, _ticks.c.more)
        )
        dead = sa.and_(_ticks.c.ended_at.is_(None), _ticks.c.began_at <= now - min(period, _MAX_RUN))
        # The clock was ahead then. Less than a period may also be a Beat whose time was read a moment later
        # than ours and was written down before: that tick is not to come twice.
        from_the_future = _ticks.c.began_at > now + period
        statement = (
            insert(_ticks)
            .values(job=job, began_at=now)
            .on_conflict_do_update(
                index_elements=[_ticks.c.job],
                set_={"began_at": now, "ended_at": None, "more": False},
                where=sa.or_(due, dead, from_the_future),
            )
            .returning(_ticks.c.job)
        )
        return self._connection.execute(statement).one_or_none() is not None

    def end(self, job: Job, began_at: datetime, now: datetime) -> None:
        self._connection.execute(
            _ticks.update().where(_ticks.c.job == job, _ticks.c.began_at == began_at).values(ended_at=now)
        )

    def read_cursor(self, job: Job) -> str | None:
        return self._connection.execute(
            sa.select(_ticks.c.cursor).where(_ticks.c.job == job)
        ).scalar_one_or_none()

    def set_cursor(self, job: Job, cursor: str | None, *, more: bool) -> None:
        self._connection.execute(_ticks.update().where(_ticks.c.job == job).values(cursor=cursor, more=more))

    def list(self) -> Sequence[Tick]:
        return [to_tick(row) for row in self._connection.execute(sa.select(_ticks).order_by(_ticks.c.job))]
