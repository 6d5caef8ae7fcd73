"""Whose doing a refusal is, where our own identity signed the request: the customer's, or our own.

Such a request proves something of our identity, and nothing else does: while sessions of a role live, calls
signed by them go well though no role can be assumed any more. So refusals are counted in a row, up to the
next request of the same kind that goes well for whomever.
"""

from collections import OrderedDict
from uuid import UUID

from byok.logs import get_logger

log = get_logger(__name__)

_MIN_TENANTS = 5
# Each tenant in use needs a new session within the life of one, and a probe asks for one more often.
_ROW_SECONDS = 900.0


class Refusals:
    """Who was refused since a request of this kind last went well. The caller's lock is held."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._row: OrderedDict[UUID, float] = OrderedDict()
        self._in_doubt = False

    def end(self) -> None:
        """A request of this kind went well: our identity is good, and who was refused is refused."""
        self._row.clear()
        if self._in_doubt:
            self._in_doubt = False
            log.warning("own_identity_recovered", request=self._kind)

    def note(self, tenant_id: UUID, now: float, *, known: bool) -> bool:
        """A tenant's request was refused. Returns whether so many are that the fault may be ours.

        ``known``: it was refused before and stopped for it, so that it says nothing new.
        """
        while self._row and next(iter(self._row.values())) <= now - _ROW_SECONDS:
            self._row.popitem(last=False)
        if known and tenant_id not in self._row:
            return False
        self._row[tenant_id] = now
        self._row.move_to_end(tenant_id)
        doubt = len(self._row) >= _MIN_TENANTS
        if doubt and not self._in_doubt:
            log.error("own_identity_in_doubt", request=self._kind, refused_by=len(self._row))
        self._in_doubt = doubt
        return doubt
