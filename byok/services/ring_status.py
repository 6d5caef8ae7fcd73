"""What an operator wants to know of the master keys: what each sealed, who has it, whether it may go."""

from collections.abc import Sequence
from dataclasses import dataclass

from byok.core.resealing import Reseal
from byok.core.rings import find_reason_to_keep, free_of_leases_at, list_lacking, list_sealing, list_unsaid
from byok.core.stops import Member, alive_since
from byok.crypto.keyring import MasterKeyRing
from byok.ports import Clock, Store
from byok.services.ring import RingReview, Sealed


@dataclass(frozen=True, slots=True)
class Standing:
    """A master key. ``sealed``: what of the records is under it. ``lacking`` are the processes that can't
    open what it seals, ``sealing`` those that seal under it. ``keep``: why it can't be removed; None: it can.
    """

    sealed: Sealed
    lacking: Sequence[str]
    sealing: Sequence[str]
    keep: str | None

    @property
    def may_seal(self) -> bool:
        """Whether it may be put first: every living process opens what it seals."""
        return self.sealed.is_in_ring and not self.lacking


@dataclass(frozen=True, slots=True)
class RingStanding:
    """The ring of this process, its first key first, then what else records name; and the last reseal."""

    first: str
    processes: int
    keys: Sequence[Standing]
    reseal: Reseal | None


class RingStatus:
    """Reads it all. Changes nothing and asks no KMS."""

    def __init__(self, store: Store, master_keys: MasterKeyRing, clock: Clock) -> None:
        self._store = store
        self._master_keys = master_keys
        self._clock = clock

    def read(self) -> RingStanding:
        """How every master key of the ring, or named by a record, stands.

        Raises:
            StoreUnavailable; StoreBusy: to count the records took longer than a minute.
        """
        reviewed = {one.master_key_id: one for one in RingReview(self._store, self._master_keys).review()}
        now, first = self._clock.now(), self._master_keys.primary_id
        with self._store.transaction() as tx:
            members = tx.members.list_seen(alive_since(now))
            latest, done = tx.reseals.find_latest(), tx.reseals.find_done(first)
            longest_lease = tx.keys.longest_lease_ttl()
        free_at = None
        if done is not None and done.finished_at is not None:
            free_at = free_of_leases_at(done.finished_at, longest_lease)
        unused = {key_id: Sealed(key_id, 0, True, 0, 0) for key_id in self._master_keys.ids}
        keys = []
        for key_id, sealed in (unused | reviewed).items():
            keep = find_reason_to_keep(
                key_id,
                first=first,
                records=sealed.records,
                sealing=list_sealing(members, key_id),
                unsaid=list_unsaid(members),
                free_of_leases_at=free_at,
                now=now,
            )
            keys.append(_standing(sealed, members, keep))
        return RingStanding(first, len(members), keys, latest)


def _standing(sealed: Sealed, members: Sequence[Member], keep: str | None) -> Standing:
    key_id = sealed.master_key_id
    return Standing(sealed, list_lacking(members, key_id), list_sealing(members, key_id), keep)
