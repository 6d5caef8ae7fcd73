"""PostgreSQL's clock, carried on between two readings by a clock that nobody can set."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial

import sqlalchemy as sa

# Counts through a sleep of the machine and is not moved by whoever sets the time of day. macOS has no
# CLOCK_BOOTTIME; its CLOCK_MONOTONIC counts through sleep.
_TICKING = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_RESYNC_SECONDS = 30.0


# Seconds since some fixed moment. Not a function of Python's: it is called for each value that is
# encrypted, and costs no system call (vDSO).
ticking_seconds: Callable[[], float] = partial(time.clock_gettime, _TICKING)


class DatabaseClock:
    """Implements `byok.ports.Clock`.

    Claims, wake-up times and due times are compared between machines whose clocks differ and jump: they
    are all told in the database's time. The store takes a reading at the beginning of a transaction
    when the last one is old; without the database the clock goes on from the last reading.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._reading: tuple[datetime, float] | None = None
        self.ticks = ticking_seconds

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def now(self) -> datetime:
        """Raises whatever the first reading raises; later ones are not waited for."""
        if self._reading is None:
            with self._engine.connect() as connection:
                return self.read(connection)
        at, ticks = self._reading
        return at + timedelta(seconds=ticking_seconds() - ticks)

    def read_if_old(self, connection: sa.Connection) -> None:
        """Take a reading over this connection if the last one is older than 30 s."""
        if self._reading is None or ticking_seconds() - self._reading[1] > _RESYNC_SECONDS:
            self.read(connection)

    def read(self, connection: sa.Connection) -> datetime:
        """Take a reading."""
        asked = ticking_seconds()
        at: datetime = connection.execute(sa.text("SELECT clock_timestamp()")).scalar_one()
        answered = ticking_seconds()
        self._reading = (at, (asked + answered) / 2)
        return at
