"""What the services need to count the fleet, in a time that does not grow with it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

from byok.core.counts import Count
from byok.core.model import RotationState, TenantState


class Counts(Protocol):
    """Numbers for a glance: exact while they are small, else estimated, or counted so far and no further."""

    def tenants(self) -> Mapping[TenantState, Count]:
        """Tenants by state."""

    def keys(self) -> Count:
        """All keys."""

    def overdue(self, now: datetime) -> Count:
        """Keys of active tenants that are due by ``now``."""

    def oldest_overdue(self, now: datetime) -> datetime | None:
        """Since when that key of an active tenant is due which has waited longest; None: no key is. With very
        many due, of those that have waited longest."""

    def open_rotations(self) -> Mapping[RotationState, Count]:
        """Rotations that are not at their end, by state."""

    def oldest_open_rotation(self) -> datetime | None:
        """When the oldest rotation was requested that is not at its end. With very many open, of those that
        are to wake first."""

    def rotations(self, since: datetime) -> Mapping[RotationState, Count]:
        """Open rotations by state; of those that have ended, the failed ones since then, and the done ones
        that were requested since then."""
