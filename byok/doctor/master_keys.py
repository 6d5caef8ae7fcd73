"""The master key ring against what is stored. A wrong key under the right name is found, too."""

from collections.abc import Iterator, Sequence

from byok.core.rings import list_lacking
from byok.core.stops import Member, alive_since
from byok.doctor.result import Result, failed, note, passed, warning
from byok.services.ring import RingReview, Sealed
from byok.wiring import Runtime


def check_master_keys(runtime: Runtime) -> Iterator[Result]:
    """Compare the ring with the records; raises StoreUnavailable."""
    ring = runtime.master_keys
    others = f", opening with {', '.join(ring.ids[1:])}" if ring.ids[1:] else ""
    yield passed("master-keys", f"sealing with {ring.primary_id}{others}")
    reviewed = RingReview(runtime.store, ring).review()
    if not reviewed:
        yield note("records", "there are none: the ring was not tried on any")
    for sealed in reviewed:
        yield judge(sealed)


def check_rings(runtime: Runtime) -> Iterator[Result]:
    """Compare the ring with those that the fleet's processes tell of; raises StoreUnavailable."""
    with runtime.store.transaction() as tx:
        members = tx.members.list_seen(alive_since(runtime.store.now()))
    yield judge_rings(runtime.master_keys.ids, members)


def judge_rings(ids: Sequence[str], members: Sequence[Member]) -> Result:
    """Whether the living processes have the same master keys as this one, and seal under the same."""
    lacking = list_lacking(members, ids[0])
    others = [member for member in members if member.master_key_ids != tuple(ids)]
    if lacking:
        return failed(
            "rings",
            f"{', '.join(lacking)} can't open what {ids[0]} seals, or are of an older release",
            "add it to BYOK_MASTER_KEYS there, behind the first, and restart: docs/master-keys.md",
        )
    if others:
        return warning(
            "rings",
            f"another ring, or another order: {', '.join(map(str, others))}",
            "during a rotation of the master key that is so; else give all processes the same ring",
        )
    return passed("rings", f"living processes: {len(members)}, all with this ring")


def judge(sealed: Sealed) -> Result:
    """What is to be said of one master key."""
    name = f"master-key {sealed.master_key_id}"
    named = f"sealed {sealed.records} record{'' if sealed.records == 1 else 's'}"
    if not sealed.is_in_ring:
        return failed(
            name,
            f"{named}; it is not in the ring, and none of them opens",
            "put it back into BYOK_MASTER_KEYS, behind the first; until then nothing is lost",
        )
    if sealed.opened == 0 and sealed.tried:
        return failed(
            name,
            f"{named}; of {sealed.tried} tried none opens: the ring has another key under this name",
            "stop the workers; put the right key in its place, and give the other a name of its own",
        )
    if sealed.opened < sealed.tried:
        return failed(
            name,
            f"{named}; of {sealed.tried} tried {sealed.tried - sealed.opened} don't open",
            "somebody changed rows: docs/runbook.md, seal-broken",
        )
    if not sealed.tried:
        return note(name, f"{named}; none was there any more to try it on")
    return passed(name, f"{named}; {sealed.opened} tried, all open")
