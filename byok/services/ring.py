"""Whether the master key ring of this process opens what is stored."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from byok.core.resealing import KINDS, RecordKind, RecordPlace, SealedRecord, add_counts
from byok.crypto.keyring import MasterKeyRing
from byok.errors import SealBroken, UnknownMasterKey
from byok.ports import Store, Transaction
from byok.services.records import open_sealed

# A row that somebody changed does not open either: one in a few says which of the two it is.
_SAMPLES = 5
_PAGE_RECORDS = 1000


@dataclass(frozen=True, slots=True)
class Sealed:
    """What a master key sealed: how many records name it, whether the ring has it, how many of a few open."""

    master_key_id: str
    records: int
    is_in_ring: bool
    tried: int
    opened: int


class RingReview:
    """Compares the ring with the records, and tries it on a few."""

    def __init__(self, store: Store, master_keys: MasterKeyRing) -> None:
        self._store = store
        self._master_keys = master_keys
        self._is_familiar = False

    def review(self) -> Sequence[Sealed]:
        """Each master key that records name, by its id. Asks no KMS.

        Raises:
            StoreUnavailable.
        """
        with self._store.transaction() as tx:
            counts = add_counts([tx.sealed[kind].count_by_master_key() for kind in KINDS])
        return [self._try(master_key_id, records) for master_key_id, records in counts.items()]

    def try_all(self, seen: Callable[[int], None]) -> Sequence[Sealed]:
        """As `review`, with every record tried. ``seen`` is told how many there were of each page.

        Raises:
            StoreUnavailable.
        """
        records: Counter[str] = Counter()
        opened: Counter[str] = Counter()
        for kind in KINDS:
            after: RecordPlace | None = None
            while True:
                with self._store.transaction() as tx:
                    page = tx.sealed[kind].page(after, _PAGE_RECORDS)
                for record in page.records:
                    records[record.box.master_key_id] += 1
                    opened[record.box.master_key_id] += self._refusal(kind, record) is None
                seen(len(page.records))
                if page.last is None:
                    break
                after = page.last
        return [
            Sealed(key_id, count, key_id in self._master_keys.ids, count, opened[key_id])
            for key_id, count in sorted(records.items())
        ]

    def require_familiar(self) -> None:
        """Refuse a ring that opens none of a few records; asked once a process, and well where there is none.

        Raises:
            SealBroken, UnknownMasterKey, StoreUnavailable.
        """
        if self._is_familiar:
            return
        with self._store.transaction() as tx:
            samples = _sample(tx)
        refusals = [self._refusal(*sample) for sample in samples]
        self._is_familiar = None in refusals
        if refusals and refusals[-1] is not None and not self._is_familiar:
            raise refusals[-1]

    def _try(self, master_key_id: str, records: int) -> Sealed:
        with self._store.transaction() as tx:
            samples = _sample(tx, master_key_id)
        opened = [self._refusal(*sample) for sample in samples].count(None)
        return Sealed(master_key_id, records, master_key_id in self._master_keys.ids, len(samples), opened)

    def _refusal(self, kind: RecordKind, record: SealedRecord) -> SealBroken | UnknownMasterKey | None:
        """Why the ring does not open a record; None if it does."""
        try:
            open_sealed(self._master_keys, kind, record)
        except (SealBroken, UnknownMasterKey) as error:
            return error
        return None


def _sample(tx: Transaction, master_key_id: str | None = None) -> Sequence[tuple[RecordKind, SealedRecord]]:
    return [
        (kind, record)
        for kind in KINDS
        for record in tx.sealed[kind].sample(_SAMPLES, master_key_id=master_key_id)
    ]
