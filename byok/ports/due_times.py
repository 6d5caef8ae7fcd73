"""What the services need to spread periodic work: each row has the time at which it is due next."""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID


class DueTimes(Protocol):
    """The times of one kind of work: of validations, one a key, or of syncs or watches, one a tenant."""

    def claim(self, now: datetime, period: timedelta, limit: int) -> Mapping[UUID, tuple[str, ...]]:
        """Take up to ``limit`` rows that are due, longest first, and move each on by ``period``, less up to
        5 %; skip what others are taking.

        Returns the ids of those whose tenant is active, each with the names that its task takes: tenant and
        key, or tenant; for watches, of every tenant that has not left, or left open findings. The others were
        moved on like them: they must not be looked at again each time.
        """

    def give_back(self, ids: Collection[UUID], now: datetime) -> None:
        """Make what was claimed in vain due again."""

    def draw_in(self, now: datetime, period: timedelta, limit: int) -> int:
        """Spread up to ``limit`` rows over the coming period which are due only after it: the period was
        longer when their time was set, or the clock was ahead. Returns how many there were."""
