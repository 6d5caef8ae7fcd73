"""Verifying audit chains of any length, of any number of tenants, page by page."""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from byok.core.audit import BEFORE_THE_FIRST, AuditChain, ChainPlace, checked, place_of, walk_chain
from byok.core.checkpoints import (
    KeptCheckpoint,
    KeptComparison,
    SignedCheckpoint,
    StoredComparison,
)
from byok.core.model import AuditEvent
from byok.crypto.checkpoints import is_signed
from byok.crypto.keyring import MasterKeyRing
from byok.crypto.reports import PURPOSE
from byok.errors import AuditChainBroken
from byok.ports import Store

# Each page is a transaction of its own, so that none is open for minutes and holds back vacuum.
_EVENTS_PER_PAGE = 2000
_CHAINS_PER_PAGE = 1000
_CHECKPOINTS_PER_PAGE = 500


def _ignore(count: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A chain that is whole: its last event, the checkpoints that it was compared with, and how many of
    those were signed by keys that are in the ring no more and that nobody said are to be trusted."""

    last: ChainPlace
    checkpoints: int
    unknown_signers: int


class Auditor:
    """Walks the chains; it never holds more than a page of events."""

    def __init__(self, store: Store, master_keys: MasterKeyRing) -> None:
        self._store = store
        self._master_keys = master_keys

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

    def log(
        self, chain: AuditChain, *, last: int | None = None, since: datetime | None = None
    ) -> Iterator[Sequence[AuditEvent]]:
        """The events of a chain in pages, oldest first, as they are stored; of the ``last`` ones, or all,
        those from ``since`` on."""
        after = 0 if last is None else max(0, chain.length - last)
        while True:
            with self._store.transaction() as tx:
                page = tx.audit.list_after(chain.tenant_id, after, _EVENTS_PER_PAGE, since=since)
            if page:
                yield page
            if len(page) < _EVENTS_PER_PAGE:
                return
            after = page[-1].sequence

    def verify(
        self,
        chain: AuditChain,
        on_page: Callable[[int], None] = _ignore,
        *,
        kept: Sequence[KeptCheckpoint] = (),
        trusted: Collection[bytes] = (),
    ) -> Verified:
        """Walk a chain from its first event to its last, those included that were added meanwhile.

        It is compared with all stored checkpoints, and with those that somebody else ``kept``. ``on_page`` is
        told how many more events were read; ``trusted`` are public keys besides those of the ring.

        Raises:
            AuditChainBroken: naming the first event that does not follow from the one before, that is
                missing, or that is not what a checkpoint says.
        """
        outside = KeptComparison(kept)
        signers = Signers(self._master_keys, trusted)
        event = None
        for event, _ in self.compared(chain, signers, on_page):
            outside.see(event)
        last = BEFORE_THE_FIRST if event is None else place_of(event)
        outside.end(last.sequence)
        return Verified(last, chain.checkpoints, signers.unknown)

    def compared(
        self, chain: AuditChain, signers: "Signers", on_page: Callable[[int], None] = _ignore
    ) -> Iterator[tuple[AuditEvent, Sequence[SignedCheckpoint]]]:
        """The events of a chain, each with the stored checkpoints that speak of it, as they are verified.

        Raises:
            AuditChainBroken.
        """
        stored = StoredComparison(self._checkpoints(chain, signers), chain.length)
        for event in self.read(chain, BEFORE_THE_FIRST, on_page):
            yield event, stored.see(event)
        stored.end()

    def walk(self, chain: AuditChain, after: ChainPlace) -> ChainPlace:
        """Walk what is behind a place that was verified before; return the last event's place.

        What was changed before that place is not found, but for the events at it and at the last signed
        checkpoint: who wrote the chain anew from some earlier event on can't have kept their hashes.

        Raises:
            AuditChainBroken.
        """
        if after != BEFORE_THE_FIRST:
            self._require_unchanged(chain, after, "what it was when it was last verified")
        with self._store.transaction() as tx:
            latest = tx.signed_checkpoints.find_latest(chain.tenant_id)
        if latest is not None:
            Signers(self._master_keys).require_signed(latest)
            number, place = latest.checkpoint.number, latest.checkpoint.place
            self._require_unchanged(chain, place, f"what checkpoint {number} signed")
        last = deque(self.read(chain, after), maxlen=1)
        return place_of(last[0]) if last else after

    def _require_unchanged(self, chain: AuditChain, place: ChainPlace, what: str) -> None:
        with self._store.transaction() as tx:
            events = tx.audit.list_after(chain.tenant_id, place.sequence - 1, 1)
        before = ChainPlace(place.sequence - 1, events[0].previous_hash if events else b"")
        if walk_chain(events, before) != place:
            raise AuditChainBroken(f"event {place.sequence} is not {what}")

    def read(
        self, chain: AuditChain, after: ChainPlace, on_page: Callable[[int], None] = _ignore
    ) -> Iterator[AuditEvent]:
        """The events behind a place to the head of the chain, each once it is known to follow.

        Raises:
            AuditChainBroken.
        """
        last, expected = after, chain.length
        while True:
            with self._store.transaction() as tx:
                page = tx.audit.list_after(chain.tenant_id, last.sequence, _EVENTS_PER_PAGE)
                # After them: the head that belongs to the last event, or a later one.
                head = tx.audit.find_head(chain.tenant_id)
            yield from checked(page, last)
            last = place_of(page[-1]) if page else last
            on_page(len(page))
            if len(page) == _EVENTS_PER_PAGE:
                continue
            if last.sequence >= max(expected, head.sequence):
                _require_head(last, head)
                return
            if not page and last.sequence < expected:
                raise AuditChainBroken(
                    f"event {last.sequence + 1} is missing; the head of the chain says {expected}"
                )
            expected = max(expected, head.sequence)

    def _checkpoints(self, chain: AuditChain, signers: "Signers") -> Iterator[SignedCheckpoint]:
        """Those that there were when ``chain`` was read, each once its signature is known to be right."""
        number = 0
        while number < chain.checkpoints:
            with self._store.transaction() as tx:
                page = tx.signed_checkpoints.list_after(chain.tenant_id, number, _CHECKPOINTS_PER_PAGE)
            for signed in page:
                if signed.checkpoint.number <= chain.checkpoints:
                    signers.require_signed(signed)
                    yield signed
            number = page[-1].checkpoint.number if page else chain.checkpoints


def _require_head(last: ChainPlace, head: ChainPlace) -> None:
    if last.sequence > head.sequence:
        raise AuditChainBroken(
            f"event {head.sequence + 1} is behind the head of the chain, which says {head.sequence}"
        )
    if last == BEFORE_THE_FIRST:
        raise AuditChainBroken("event 1 is missing, and all others: each log begins with tenant.added")
    if last != head:
        raise AuditChainBroken(f"event {last.sequence} is not the one that the head of the chain names")


class Signers:
    """Who signed the checkpoints that are looked at. ``unknown``: how many by keys that are neither in the
    ring nor trusted besides."""

    def __init__(self, ring: MasterKeyRing, trusted: Collection[bytes] = ()) -> None:
        self._ring = ring.signing_keys(PURPOSE)
        self._trusted = {*trusted, *self._ring.values()}
        self.unknown = 0

    def require_signed(self, signed: SignedCheckpoint) -> None:
        """Require that a stored checkpoint is what was signed.

        Raises:
            AuditChainBroken.
        """
        is_ours = self._ring.get(signed.master_key_id, signed.public_key) == signed.public_key
        if not (is_ours and is_signed(signed)):
            checkpoint = signed.checkpoint
            raise AuditChainBroken(
                f"checkpoint {checkpoint.number} of event {checkpoint.place.sequence}"
                " was changed after it was signed"
            )
        self.unknown += signed.public_key not in self._trusted
