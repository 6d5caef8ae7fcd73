"""Resealing over a real PostgreSQL: deaths at each step, races on one row, two at once, the fleet's rings."""

from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import pytest
import sqlalchemy as sa

from byok.core.model import RotationReason, VersionEvent
from byok.core.resealing import RecordKind, RecordPlace, Reseal, ResealState
from byok.crypto.hazmat import SecretBytes
from byok.crypto.keyring import MasterKeyRing
from byok.errors import NotReady
from byok.failpoints import FailPoint, arm, disarm
from byok.services import resealing
from byok.services.records import open_sealed
from byok.services.ring import RingReview
from byok.wiring import Services
from tests.integration.acts import Killed, die, pass_time
from tests.world import World

VERSIONS = RecordKind.VERSION


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resealing, "PAGE_RECORDS", 4)


@pytest.fixture
def versions(world: World, key: None) -> None:
    """Eleven versions of two keys, two of them destroyed, all sealed under mk-1."""
    for _ in range(6):
        world.services.vault.request_rotation("acme", "pii")
        world.run_published()
    world.add_key(key="other")
    for _ in range(3):
        world.services.vault.request_rotation("acme", "other")
        world.run_published()
    with world.store.transaction() as tx:
        retired = world.versions()[:2]
        tx.versions.transition(retired, VersionEvent.DESTROY, world.clock.now())


def ring_of(world: World, *ids: str) -> MasterKeyRing:
    """A ring in this order. mk-1 is the world's; the others are made of their names."""
    known = world.master_keys._keys | {
        name: SecretBytes(name.encode().ljust(32, b".")) for name in ("mk-2", "mk-3")
    }
    return MasterKeyRing([(name, known[name]) for name in ids], world.random.bytes)


def process(world: World, *ids: str) -> Services:
    """One more process of the fleet, with this ring."""
    before, world.master_keys = world.master_keys, ring_of(world, *ids)
    try:
        return world.another_process()
    finally:
        world.master_keys = before


@pytest.fixture
def fleet(world: World, versions: None) -> Services:
    """The procedure up to its last step: every process has both keys, the new one first."""
    world.services.watch.close()
    services = process(world, "mk-2", "mk-1")
    services.watch.join()
    return services


def counts(world: World) -> dict[str, int]:
    with world.store.transaction() as tx:
        return dict(tx.sealed[VERSIONS].count_by_master_key())


def run_published(world: World, services: Services) -> Reseal | None:
    """Run batches as a worker would, until none is published without a pause."""
    last = None
    while world.queue.reseals:
        reseal, delay = world.queue.reseals.pop(0)
        last = services.resealing.run(reseal.id, reseal.batch) or last
        if delay:
            break
    return last


def test_every_record_goes_under_the_first_key_and_opens_as_before(world: World, fleet: Services) -> None:
    before = {(one.key_id, one.number): one for one in world.versions() + world.versions(key="other")}
    asked = fleet.reseals.start(requested_by="operator")
    assert (asked.is_new, asked.reseal.total) == (True, 9)
    done = run_published(world, fleet)
    assert done is not None
    assert (done.state, done.tally.resealed, done.tally.conflicts) == (ResealState.DONE, 9, 0)
    assert counts(world) == {"mk-2": 9}
    only_new = ring_of(world, "mk-2")
    assert [(one.records, one.opened) for one in RingReview(world.store, only_new).review()] == [(9, 5)]
    for one in world.versions() + world.versions(key="other"):
        old = before[one.key_id, one.number]
        assert replace(one, sealed_wrapped_key=old.sealed_wrapped_key) == old
        assert one.sealed_wrapped_key.iv != old.sealed_wrapped_key.iv or not old.sealed_wrapped_key.iv


def test_no_kms_is_asked(world: World, fleet: Services) -> None:
    asked = len(world.kms.calls)
    fleet.reseals.start(requested_by="operator")
    run_published(world, fleet)
    assert counts(world) == {"mk-2": 9}
    assert len(world.kms.calls) == asked


def test_a_second_request_joins_and_a_second_run_does_nothing(world: World, fleet: Services) -> None:
    first = fleet.reseals.start(requested_by="a")
    again = fleet.reseals.start(requested_by="b")
    assert (again.is_new, again.reseal.id) == (False, first.reseal.id)
    run_published(world, fleet)
    assert fleet.resealing.run(first.reseal.id) is None
    assert fleet.resealing.run(first.reseal.id, 0) is None
    nothing = fleet.reseals.start(requested_by="c")
    done = run_published(world, fleet)
    assert done is not None
    assert (done.id, done.state, done.total) == (nothing.reseal.id, ResealState.DONE, 0)


def test_another_first_key_supersedes_a_reseal(world: World, fleet: Services) -> None:
    first = fleet.reseals.start(requested_by="a").reseal
    fleet.watch.close()
    newest = process(world, "mk-3", "mk-2", "mk-1")
    newest.watch.join()
    newest.reseals.start(requested_by="b")
    assert fleet.reseals.get(first.id).state is ResealState.SUPERSEDED
    run_published(world, newest)
    assert counts(world) == {"mk-3": 9}


@pytest.mark.parametrize(
    "point",
    [
        FailPoint.RESEAL_RECORDED,
        FailPoint.CLAIMED,
        FailPoint.RECORDS_RESEALED,
        FailPoint.CURSOR_MOVED,
        FailPoint.BATCH_ENDED,
        FailPoint.FINISHING,
    ],
)
def test_a_worker_that_dies_is_followed_by_another(world: World, fleet: Services, point: FailPoint) -> None:
    straggler = process(world, "mk-1", "mk-2")
    if point is FailPoint.BATCH_ENDED:  # this small one ends within a batch, unless it waits for somebody
        straggler.watch.join()
    arm(point, die)

    def reseal_all() -> None:
        fleet.reseals.start(requested_by="operator")
        run_published(world, fleet)

    with pytest.raises(Killed):
        reseal_all()
    disarm()
    straggler.watch.close()
    world.queue.reseals.clear()  # what was published died with the worker
    pass_time(world, sweeps=2.1)
    keep_alive(fleet)
    assert fleet.scheduling.sweep() == 1
    done = run_published(world, fleet)
    assert done is not None
    # Exactly once, whatever died: a page and its count are one commit.
    assert (done.state, done.tally.resealed, done.tally.conflicts) == (ResealState.DONE, 9, 0)
    assert counts(world) == {"mk-2": 9}


def keep_alive(services: Services) -> None:
    services.watch._seen_ticks = None
    services.watch.look()


def reseal_with(world: World, services: Services, meanwhile: Callable[[], object]) -> Reseal:
    """Reseal, with something done between the reading of the first page and its writing."""
    seal = services.resealing._seal_anew
    done: list[object] = []

    def seal_anew(*arguments: object) -> object:
        sealed = seal(*arguments)  # type: ignore[arg-type]  # passed on as they come
        if not done:
            done.append(meanwhile())
        return sealed

    services.resealing._seal_anew = seal_anew  # type: ignore[method-assign, assignment]
    services.reseals.start(requested_by="operator")
    ended = run_published(world, services)
    assert ended is not None
    return ended


def first_place(world: World) -> RecordPlace:
    with world.store.transaction() as tx:
        return tx.sealed[VERSIONS].page(None, 4).records[0].place


def test_a_version_that_is_destroyed_meanwhile_stays_destroyed(world: World, fleet: Services) -> None:
    place = first_place(world)
    with world.store.transaction() as tx:
        version = tx.versions.get(place.key_id, place.number)
        if version.state.value == "active":
            pytest.fail("the first record is an active version: choose another")

    def destroy() -> None:
        with world.store.transaction() as tx:
            tx.versions.transition([version], VersionEvent.DESTROY, world.clock.now())

    ended = reseal_with(world, fleet, destroy)
    assert (ended.state, ended.tally.resealed, ended.tally.conflicts) == (ResealState.DONE, 8, 1)
    with world.store.transaction() as tx:
        assert tx.versions.get(*place_of(place)).sealed_wrapped_key.body == b""


def place_of(place: RecordPlace) -> tuple[UUID, int]:
    return place.key_id, place.number


def test_a_seal_that_somebody_wrote_meanwhile_is_kept_and_resealed_in_the_next_pass(
    world: World, fleet: Services, engine: sa.Engine
) -> None:
    """As a move to another KMS key writes it: another wrapped key, sealed for another ARN."""
    place = first_place(world)
    old = ring_of(world, "mk-1", "mk-2")

    def move() -> None:
        with world.store.transaction() as tx:
            record = tx.sealed[VERSIONS].page(None, 4).records[0]
        moved = replace(record, kms_key_arn=record.kms_key_arn.replace("0000-4000", "0000-4001"))
        box = old.seal(b"moved", "byok/record/1", str(record.tenant_id), str(place.key_id), place.number,
                       moved.kms_key_arn)  # fmt: skip
        with engine.begin() as connection:
            connection.execute(
                sa.text(
                    "UPDATE key_versions SET encrypted_key = :body, iv = :iv, master_key_id = 'mk-1',"
                    " kms_key_arn = :arn WHERE key_id = :key_id AND number = :number"
                ),
                {"body": box.body, "iv": box.iv, "arn": moved.kms_key_arn, "key_id": place.key_id,
                 "number": place.number},
            )  # fmt: skip

    ended = reseal_with(world, fleet, move)
    assert (ended.state, ended.pass_number, ended.tally.resealed, ended.tally.conflicts) == (
        ResealState.DONE, 2, 9, 1,
    )  # fmt: skip
    with world.store.transaction() as tx:
        record = tx.sealed[VERSIONS].page(None, 4).records[0]
    assert open_sealed(ring_of(world, "mk-2"), VERSIONS, record) == b"moved"


def test_a_rotation_meanwhile_is_resealed_too(world: World, fleet: Services) -> None:
    straggler = process(world, "mk-1", "mk-2")  # seals under the old first key still

    def rotate() -> None:
        for name in ("pii", "other"):
            requested = straggler.requests.request(
                "acme", name, reason=RotationReason.FORCED, requested_by="test"
            )
            straggler.rotations.run(requested.rotation.id)

    ended = reseal_with(world, fleet, rotate)
    straggler.watch.close()
    if ended.is_running:  # it waited for the straggler
        pass_time(world, sweeps=1)
        ended = fleet.resealing.run(ended.id) or ended
    assert ended.state is ResealState.DONE
    assert counts(world) == {"mk-2": 11}
    assert world.states(key="other")[-2:] == ["retired", "active"]


def test_a_row_that_somebody_holds_is_not_waited_for(
    world: World, fleet: Services, engine: sa.Engine
) -> None:
    place = first_place(world)
    with engine.connect() as holder:
        holder.execute(
            sa.text("SELECT 1 FROM key_versions WHERE key_id = :k AND number = :n FOR UPDATE"),
            {"k": place.key_id, "n": place.number},
        )
        reseal = fleet.reseals.start(requested_by="operator").reseal
        run_published(world, fleet)
        now = fleet.reseals.get(reseal.id)
        assert (now.tally.resealed, now.this_pass.conflicts) == (8, 1)
        assert now.waits_for == "records that others hold: 1"
        holder.rollback()
    done = fleet.resealing.run(reseal.id)
    assert done is not None
    assert (done.state, done.tally.resealed) == (ResealState.DONE, 9)


@pytest.mark.parametrize("is_done_meanwhile", [True, False])
def test_two_that_reseal_at_once_do_it_once(
    world: World, fleet: Services, *, is_done_meanwhile: bool
) -> None:
    """The claim of the first lapsed while it stalled: both go on, and the batch fences it off."""
    reseal = fleet.reseals.start(requested_by="operator").reseal
    second = process(world, "mk-2", "mk-1")
    straggler = process(world, "mk-1", "mk-2")

    def stall() -> None:
        disarm()
        world.clock.advance(seconds=31)
        keep_alive(fleet)
        if not is_done_meanwhile:
            straggler.watch.join()  # for it the second waits
        second.resealing.run(reseal.id)

    arm(FailPoint.CLAIMED, stall)
    fleet.resealing.run(reseal.id, 0)
    now = fleet.reseals.get(reseal.id)
    assert now.is_running is not is_done_meanwhile
    assert (now.batch, now.tally.resealed, now.tally.conflicts) == (2, 9, 0)
    assert counts(world) == {"mk-2": 9}
    straggler.watch.close()


def test_records_that_dont_open_are_left_named_counted_and_alarmed(
    world: World, fleet: Services, engine: sa.Engine
) -> None:
    place = first_place(world)
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                "UPDATE key_versions SET encrypted_key = set_byte(encrypted_key, 3,"
                " get_byte(encrypted_key, 3) # 1) WHERE key_id = :k AND number = :n"
            ),
            {"k": place.key_id, "n": place.number},
        )
    fleet.reseals.start(requested_by="operator")
    failed = run_published(world, fleet)
    assert failed is not None
    assert (failed.state, failed.tally.resealed) == (ResealState.FAILED, 8)
    assert failed.failure == "records that don't open, and stay as they are: 1"
    assert [(one.place, one.why) for one in failed.unreadable_records] == [(place, "seal-broken")]
    assert counts(world) == {"mk-1": 1, "mk-2": 8}
    assert world.metrics.counts["integrity-alarm"] == 1


def test_it_is_refused_while_a_living_process_lacks_the_key(world: World, fleet: Services) -> None:
    old = process(world, "mk-1")
    old.watch.join()
    with pytest.raises(NotReady, match="'mk-2' is not in the ring of service") as refused:
        fleet.reseals.start(requested_by="operator")
    assert str(old.watch.member) in refused.value.message
    assert str(fleet.watch.member) in refused.value.message  # the same host and process, in a test
    assert world.queue.reseals == []
    old.watch.close()
    assert fleet.reseals.start(requested_by="operator").is_new


def test_a_process_of_an_older_release_counts_as_lacking_it(
    world: World, fleet: Services, engine: sa.Engine
) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE members SET master_key_ids = NULL"))
    with pytest.raises(NotReady, match="not in the ring of service"):
        fleet.reseals.start(requested_by="operator")


def test_no_key_may_go_while_a_process_does_not_say_what_it_seals_under(
    world: World, fleet: Services, engine: sa.Engine
) -> None:
    fleet.reseals.start(requested_by="operator")
    run_published(world, fleet)
    world.clock.advance(seconds=40 * 86400)
    fleet.watch.look()
    assert kept(fleet) == {"mk-1": False, "mk-2": True}
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE members SET master_key_ids = NULL"))
    assert kept(fleet) == {"mk-1": True, "mk-2": True}


def kept(fleet: Services) -> dict[str, bool]:
    return {one.sealed.master_key_id: one.keep is not None for one in fleet.ring_status.read().keys}


def test_it_goes_on_while_a_process_seals_under_the_old_key(world: World, fleet: Services) -> None:
    straggler = process(world, "mk-1", "mk-2")
    straggler.watch.join()
    reseal = fleet.reseals.start(requested_by="operator").reseal
    run_published(world, fleet)
    waiting = fleet.reseals.get(reseal.id)
    assert waiting.is_running
    assert counts(world) == {"mk-2": 9}
    assert waiting.waits_for == f"{straggler.watch.member}: seals under another master key, restart it"
    requested = straggler.requests.request("acme", "pii", reason=RotationReason.FORCED, requested_by="t")
    straggler.rotations.run(requested.rotation.id)
    assert counts(world) == {"mk-1": 1, "mk-2": 9}
    straggler.watch.close()
    done = fleet.resealing.run(reseal.id)
    assert done is not None
    assert (done.state, done.tally.resealed) == (ResealState.DONE, 10)
    assert counts(world) == {"mk-2": 10}


def test_a_worker_that_seals_under_another_key_leaves_it_to_others(world: World, fleet: Services) -> None:
    reseal = fleet.reseals.start(requested_by="operator").reseal
    assert process(world, "mk-1", "mk-2").resealing.run(reseal.id, 0) is None
    assert fleet.reseals.get(reseal.id).batch == 0
    assert counts(world) == {"mk-1": 9}


def test_without_a_broker_the_sweeper_publishes_it(world: World, fleet: Services) -> None:
    world.queue.is_down = True
    fleet.reseals.start(requested_by="operator")
    world.queue.is_down = False
    pass_time(world, sweeps=1)
    keep_alive(fleet)
    assert fleet.scheduling.sweep() == 1
    run_published(world, fleet)
    assert counts(world) == {"mk-2": 9}


def test_trouble_is_written_down_and_left_to_the_sweeper(world: World, fleet: Services) -> None:
    def burst() -> None:
        raise ZeroDivisionError

    reseal = fleet.reseals.start(requested_by="operator").reseal
    arm(FailPoint.RECORDS_RESEALED, burst)
    with pytest.raises(ZeroDivisionError):
        fleet.resealing.run(reseal.id, 0)
    disarm()
    held_up = fleet.reseals.get(reseal.id)
    assert (held_up.failure, held_up.failures) == ("unexpected: ZeroDivisionError", 1)
    assert counts(world) == {"mk-1": 9}


def test_everything_opens_throughout(world: World, fleet: Services) -> None:
    old = process(world, "mk-1", "mk-2")
    token = old.vault.cipher("acme", "pii").encrypt(b"ada", context=b"c")
    opened = []

    def use() -> None:
        world.cache.purge(world.tenant().id)
        for one in (process(world, "mk-1", "mk-2"), process(world, "mk-2", "mk-1")):
            opened.append(one.vault.cipher("acme", "pii").decrypt(token, context=b"c"))
            one.watch.close()

    old.watch.close()
    for point in (FailPoint.RECORDS_RESEALED, FailPoint.CURSOR_MOVED):
        arm(point, use)
    fleet.reseals.start(requested_by="operator")
    run_published(world, fleet)
    assert counts(world) == {"mk-2": 9}
    assert len(opened) > 4
    assert set(opened) == {b"ada"}


def test_a_process_that_starts_with_a_first_key_which_others_lack_says_so(
    world: World, fleet: Services, caplog: pytest.LogCaptureFixture
) -> None:
    process(world, "mk-3", "mk-2", "mk-1").watch.join()
    (record,) = [one for one in caplog.records if one.getMessage().startswith("others_lack_master_key")]
    assert (record.levelname, record.__dict__["master_key"]) == ("ERROR", "mk-3")
    assert record.__dict__["processes"] == [str(fleet.watch.member)]
