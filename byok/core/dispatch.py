"""Which of the keys that are due are rotated now: no tenant's many hold up another's few. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

# A tenant has at most this part of all rotations in flight, however many of its keys are due.
_SHARE = 10


@dataclass(frozen=True, slots=True)
class DueKey:
    """A key that is due, at its place among all that are.

    ``is_free``: its tenant is active, and no rotation of it is open.
    """

    place: "Place"
    tenant_id: UUID
    is_free: bool


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a key stands among those that are due."""

    next_rotation_at: datetime
    key_id: UUID

    def __str__(self) -> str:
        return f"{self.next_rotation_at.isoformat()} {self.key_id}"

    @classmethod
    def parse(cls, text: str) -> "Place":
        """The place that ``str()`` wrote."""
        at, key_id = text.split()
        return cls(datetime.fromisoformat(at), UUID(key_id))


@dataclass(frozen=True, slots=True)
class DueWork:
    """A key that is due and locked, with what its rotation is published under."""

    key_id: UUID
    tenant_id: UUID
    tenant: str
    key: str
    has_version: bool


@dataclass(frozen=True, slots=True)
class InFlight:
    """A tenant's open rotations. ``waiting``: those among them that wait for their next attempt."""

    open: int
    waiting: int


class Window:
    """How many more rotations may be set going, of all tenants and of each.

    What waits for its next attempt takes no room: a region that is down must not hold up the others. It
    counts in its tenant's share.
    """

    def __init__(self, size: int, in_flight: Mapping[UUID, InFlight]) -> None:
        self._share = max(1, size // _SHARE)
        # What a tenant has beyond its share, asked for by somebody, is its own affair.
        self.room = size - sum(min(one.open - one.waiting, self._share) for one in in_flight.values())
        self._open = {tenant_id: one.open for tenant_id, one in in_flight.items()}

    def choose(self, page: Sequence[DueKey]) -> tuple[Sequence[UUID], Place | None]:
        """The keys of a page that there is room for, which they take up; and the last place looked at."""
        chosen: list[UUID] = []
        last = None
        for key in page:
            if self.room <= 0:
                break
            last = key.place
            open_of_tenant = self._open.get(key.tenant_id, 0)
            if key.is_free and open_of_tenant < self._share:
                self._open[key.tenant_id] = open_of_tenant + 1
                self.room -= 1
                chosen.append(key.place.key_id)
        return chosen, last
