"""Verifying audit chains of any length, of any number of tenants, page by page."""

from collections.abc import Callable, Iterator
from uuid import UUID

from byok.core.audit import BEFORE_THE_FIRST, AuditChain, ChainPlace, walk_chain
from byok.core.model import AuditEvent
from byok.errors import AuditChainBroken
from byok.ports import Store

# Each page is a transaction of its own, so that none is open for minutes and holds back vacuum.
_EVENTS_PER_PAGE = 2000
_CHAINS_PER_PAGE = 1000


def _ignore(count: int) -> None:
    """Tell nobody."""


class Auditor:
    """Walks the chains; it never holds more than a page of events."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def chain(self, tenant_name: str) -> AuditChain:
        """One tenant's chain.

        Raises:
            UnknownTenant.
        """
        with self._store.transaction() as tx:
            return tx.audit.chain(tx.tenants.get(tenant_name))

    def chains(self) -> Iterator[AuditChain]:
        """All tenants' chains, by the tenant's id: in the order in which they joined."""
        after: UUID | None = None
        while True:
            with self._store.transaction() as tx:
                page = tx.audit.list_chains(after, _CHAINS_PER_PAGE)
            if not page:
                return
            yield from page
            after = page[-1].tenant_id

    def verify(self, chain: AuditChain, on_page: Callable[[int], None] = _ignore) -> int:
        """Walk a chain from its first event to its last; return how many there are, those included that
        were added meanwhile. ``on_page`` is told how many more were read.

        Raises:
            AuditChainBroken: naming the first event that does not follow from the one before, or that is
                missing at the end.
        """
        return self.walk(chain, BEFORE_THE_FIRST, on_page).sequence

    def walk(
        self, chain: AuditChain, after: ChainPlace, on_page: Callable[[int], None] = _ignore
    ) -> ChainPlace:
        """As `verify`, from behind a place that was verified before; return the last event's place.

        What was changed before that place is not found, but for the event at it: who wrote the chain anew
        from some earlier event on can't have kept its hash.

        Raises:
            AuditChainBroken.
        """
        if after != BEFORE_THE_FIRST:
            self._require_unchanged(chain, after)
        last = walk_chain(self._events(chain, after.sequence, on_page), after)
        if last.sequence < chain.length:
            raise AuditChainBroken(
                f"event {last.sequence + 1} is missing; the head of the chain says {chain.length}"
            )
        return last

    def _require_unchanged(self, chain: AuditChain, place: ChainPlace) -> None:
        with self._store.transaction() as tx:
            events = tx.audit.list_after(chain.tenant_id, place.sequence - 1, 1)
        before = ChainPlace(place.sequence - 1, events[0].previous_hash if events else b"")
        if walk_chain(events, before) != place:
            raise AuditChainBroken(f"event {place.sequence} is not what it was when it was last verified")

    def _events(self, chain: AuditChain, last: int, on_page: Callable[[int], None]) -> Iterator[AuditEvent]:
        while True:
            with self._store.transaction() as tx:
                page = tx.audit.list_after(chain.tenant_id, last, _EVENTS_PER_PAGE)
            yield from page
            on_page(len(page))
            if len(page) < _EVENTS_PER_PAGE:
                return
            last = page[-1].sequence
