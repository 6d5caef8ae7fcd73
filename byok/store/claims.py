"""Conditions on the columns ``claimed_until`` and ``wake_at``, the same for rotations and for campaigns."""

from datetime import datetime, timedelta

import sqlalchemy as sa


def unclaimed(table: sa.Table, now: datetime, duration: timedelta) -> sa.ColumnElement[bool]:
    """Nobody has it, where claims are made for ``duration``."""
    claimed_until = table.c.claimed_until
    return sa.or_(
        claimed_until.is_(None),
        claimed_until <= now,
        # No claim lasts that long: the clock was ahead when it was made.
        claimed_until > now + 2 * duration,
    )


def lock_waking(
    table: sa.Table,
    is_open: sa.ColumnElement[bool] | sa.TextClause,
    now: datetime,
    limit: int,
    latest_wake_at: datetime,
) -> sa.Select[tuple[object]]:
    """The ids, locked, of what is to be published again: its time has come, or is later than any can be."""
    wake_at = table.c.wake_at
    return (
        sa.select(table.c.id)
        .where(is_open, sa.or_(wake_at <= now, wake_at > latest_wake_at))
        .order_by(wake_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
