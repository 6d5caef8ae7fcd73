"""The master key rings of the fleet's processes, by the ids that they tell. Pure."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from byok.core.stops import Member


def list_lacking(members: Iterable[Member], master_key_id: str) -> Sequence[str]:
    """The processes that can't open what this key seals. Who does not say, of an older release, counts."""
    return [str(member) for member in members if master_key_id not in (member.master_key_ids or ())]


def list_sealing_elsewhere(members: Iterable[Member], master_key_id: str) -> Sequence[str]:
    """The processes that seal under another key than this, or do not say."""
    return [str(member) for member in members if tuple(member.master_key_ids or ())[:1] != (master_key_id,)]


def list_sealing(members: Iterable[Member], master_key_id: str) -> Sequence[str]:
    """The processes that seal under this key."""
    return [str(member) for member in members if tuple(member.master_key_ids or ())[:1] == (master_key_id,)]


def list_unsaid(members: Iterable[Member]) -> Sequence[str]:
    """The processes that do not say what they seal under: those of an older release."""
    return [str(member) for member in members if not member.master_key_ids]


def free_of_leases_at(resealed_at: datetime, longest_lease: timedelta) -> datetime:
    """When Redis holds no lease any more under the keys that a reseal replaced: at its end every process
    sealed under the new one."""
    return resealed_at + longest_lease


def find_reason_to_keep(
    master_key_id: str,
    *,
    first: str,
    records: int,
    sealing: Sequence[str],
    unsaid: Sequence[str],
    free_of_leases_at: datetime | None,
    now: datetime,
) -> str | None:
    """Why a master key can't be taken out of the rings yet; None: it can.

    ``first`` is the first key of the ring that asks, ``sealing`` are the processes that seal under the key
    in question, ``unsaid`` those that may, and ``free_of_leases_at`` is when the last lease ends that was
    sealed before all records were under the first key; None: they never were.
    """
    if master_key_id == first:
        return "it is the first: it seals"
    if records:
        return f"records under it: {records}; byok master-key rotate"
    if sealing:
        return f"{sealing[0]} seals under it: restart it with {first} first"
    if unsaid:
        return f"{unsaid[0]} is of an older release, and may seal under it: restart it with {first} first"
    if free_of_leases_at is None:
        return "no rotation of the master key has ended: byok master-key rotate"
    if free_of_leases_at > now:
        return f"leases under it may live until {free_of_leases_at:%Y-%m-%d %H:%M:%SZ}"
    return None
