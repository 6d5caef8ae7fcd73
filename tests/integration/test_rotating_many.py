"""Many rotations at a time: each fares by itself, whatever happens to the others."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

import pytest
import sqlalchemy as sa

from byok.core.audit import verify_chain
from byok.core.lifecycle import check_versions
from byok.core.model import RotationReason, RotationState, TenantState
from byok.errors import KmsIntegrityError, KmsUnavailable, StoreUnavailable
from byok.failpoints import FailPoint, arm, disarm
from byok.ports import Transaction
from byok.services.setbacks import Setbacks
from byok.services.work import Work
from tests.integration.acts import Killed, die, pass_time
from tests.world import World

TENANTS = ("acme", "globex", "initech")
GENERATE = "GenerateDataKeyWithoutPlaintext"


@pytest.fixture
def due(world: World) -> list[UUID]:
    """The rotations of two keys each of three tenants, published."""
    for tenant in TENANTS:
        world.add_tenant(tenant)
        for key in ("pii", "cards"):
            world.add_key(tenant, key)
    world.clock.advance(days=31)
    assert world.services.scheduling.dispatch_due() == 6
    return published(world)


def published(world: World) -> list[UUID]:
    """What was published, as one message would name it."""
    works, world.queue.rotations = world.queue.rotations, []
    return [rotation.id for _, _, rotation in works]


def ends(works: Sequence[Work]) -> Counter[str]:
    return Counter(_end(work) for work in works)


def _end(work: Work) -> str:
    return work.rotation.state.value if work.error is None else getattr(work.error, "code", "bug")


def states(world: World) -> dict[str, list[str]]:
    return {f"{t}/{k}": world.states(t, k) for t in TENANTS for k in ("pii", "cards")}


def finish(world: World) -> None:
    """Sweep and run until nothing is left to do."""
    for _ in range(5):
        pass_time(world, sweeps=30)
        world.services.scheduling.sweep()
        world.services.rotations.run_many(published(world))


def all_rotated_once(world: World) -> None:
    assert set(map(tuple, states(world).values())) == {("retired", "active")}
    for tenant in TENANTS:
        for key in ("pii", "cards"):
            check_versions(world.versions(tenant, key))
        events = world.services.registry.audit_log(tenant)
        verify_chain(events)
        assert sum(event.action == "version.activated" for event in events) == 4


def test_all_come_to_their_ends_by_two_kms_calls_each(world: World, due: list[UUID]) -> None:
    world.kms.calls.clear()
    assert ends(world.services.rotations.run_many(due)) == {"done": 6}
    assert Counter(world.kms.calls) == {GENERATE: 6, "Decrypt": 6}
    all_rotated_once(world)
    assert world.metrics.counts["ended", "scheduled", "done"] == 6
    version = world.versions("globex", "cards")[1]
    assert [check.name for check in version.checks if check.passed] == [
        "versions-are-consistent",
        "kms-key-is-usable",
        "record-opens",
        "kms-decrypts-under-stored-key",
        "secret-is-sound",
        "fingerprint",
        "canary",
    ]
    assert world.services.rotations.run_many(due) == []


def test_the_new_versions_are_in_the_shared_cache(world: World, due: list[UUID]) -> None:
    world.services.rotations.run_many(due)
    world.kms.calls.clear()
    world.services.vault.cipher("globex", "pii").encrypt(b"x", context=b"c")
    assert world.kms.calls == []


def test_statements_and_commits_do_not_grow_with_the_number(
    world: World, due: list[UUID], engine: sa.Engine
) -> None:
    counts: Counter[str] = Counter()

    sa.event.listen(engine, "before_cursor_execute", lambda *_: counts.update(["statements"]))
    sa.event.listen(engine, "commit", lambda *_: counts.update(["commits"]))
    world.services.rotations.run_many(due[:1])
    alone = Counter(counts)
    counts.clear()
    world.services.rotations.run_many(due[1:])
    assert counts == alone
    assert counts["statements"] <= 6 * 5, "six each in a message of five, about one in one of twenty-five"
    assert counts["commits"] <= 2 * 5


def test_a_revoked_tenants_rotations_fail_and_the_others_are_done(world: World, due: list[UUID]) -> None:
    world.kms.disable(world.versions("globex")[0].kms_key_arn)
    assert ends(world.services.rotations.run_many(due)) == {
        "done": 4, "kms-access-revoked": 2
    }  # fmt: skip
    assert world.tenant("globex").state is TenantState.SUSPENDED
    assert world.states("globex") == ["active"]
    assert world.states("initech") == ["retired", "active"]


def test_an_outage_of_one_gives_that_one_back(world: World, due: list[UUID]) -> None:
    world.kms.fail_next(KmsUnavailable("ThrottlingException"))
    assert ends(world.services.rotations.run_many(due)) == {"done": 5, "kms-unavailable": 1}
    finish(world)
    all_rotated_once(world)


def test_a_version_that_fails_its_gate_is_rejected_alone(world: World, due: list[UUID]) -> None:
    def mix_up() -> None:
        world.kms.hooks.clear()
        world.kms.fail_next(KmsIntegrityError("InvalidCiphertextException"))

    world.kms.hooks["Decrypt"] = mix_up
    assert ends(world.services.rotations.run_many(due)) == {"done": 5, "validation-failed": 1}
    assert sorted(map(tuple, states(world).values()))[0] == ("active", "rejected")


def test_a_secret_that_an_older_version_had_is_refused_by_the_database_alone(
    world: World, due: list[UUID]
) -> None:
    """The gate of a scheduled rotation reads the active version only; the constraint knows them all."""
    secret = b"s" * 32
    world.services.rotations.run_many(due)
    world.kms.secrets = [secret]
    for _ in range(2):
        world.clock.advance(days=31)
        world.services.scheduling.dispatch_due()
        world.services.rotations.run_many(published(world))
    world.clock.advance(days=31)
    world.services.scheduling.dispatch_due()
    rotations = published(world)
    world.kms.secrets = [secret]
    first = world.services.rotations.run_many(rotations)
    assert ends(first) == {"done": 5, "validation-failed": 1}
    (twin,) = [work for work in first if work.error is not None]
    assert "earlier version" in str(twin.error)
    assert world.states(twin.tenant.name, twin.key.name)[-2:] == ["active", "rejected"]


def test_a_bug_of_ours_in_one_is_not_the_others(world: World, due: list[UUID]) -> None:
    def break_down() -> None:
        world.kms.hooks.clear()
        raise ZeroDivisionError

    world.kms.hooks["Decrypt"] = break_down
    assert ends(world.services.rotations.run_many(due)) == {"done": 5, "bug": 1}
    finish(world)
    all_rotated_once(world)


def test_what_waits_behind_a_slow_kms_is_put_off_without_counting_as_an_attempt(
    world: World, due: list[UUID]
) -> None:
    def be_slow() -> None:
        world.kms.hooks.clear()
        world.clock.advance(seconds=21)

    world.kms.hooks[GENERATE] = be_slow
    assert ends(world.services.rotations.run_many(due)) == {"done": 1, "kms-backing-off": 5}
    put_off = [world.rotation(id_) for id_ in due if world.rotation(id_).state is RotationState.REQUESTED]
    assert {rotation.tries for rotation in put_off} == {0}
    assert world.services.scheduling.sweep() == 5, "at once"
    world.services.rotations.run_many(published(world))
    all_rotated_once(world)


def test_a_rotation_that_another_worker_is_ahead_with_is_left_to_it(world: World, due: list[UUID]) -> None:
    overtaken = due[3]

    def overtake() -> None:
        world.kms.hooks.clear()
        world.clock.advance(seconds=16)  # our claims run out
        world.another_process().rotations.run_many([overtaken])

    world.kms.hooks["Decrypt"] = overtake
    works = world.services.rotations.run_many(due)
    assert {work.rotation.id for work in works} == set(due)
    finish(world)
    all_rotated_once(world)


def test_a_rotation_that_another_worker_is_ahead_with_before_it_is_generated(
    world: World, due: list[UUID]
) -> None:
    def overtake() -> None:
        world.kms.hooks.clear()
        world.clock.advance(seconds=16)  # our claims run out
        world.another_process().rotations.run_many(due)

    world.kms.hooks[GENERATE] = overtake
    first, *_ = works = world.services.rotations.run_many(due)
    assert first.is_lost
    assert first.rotation.state is RotationState.DONE, "as the other made it"
    assert ends(works) == {"done": 1, "kms-backing-off": 5}, "and time is up for ours"
    all_rotated_once(world)


def test_a_database_that_goes_away_costs_no_rotation(world: World, due: list[UUID]) -> None:
    broken: list[bool] = []
    transaction = world.store.transaction

    @contextmanager
    def go_away() -> Iterator[Transaction]:
        if world.kms.calls and not broken:
            broken.append(True)
            raise StoreUnavailable("PostgreSQL does not answer")
        with transaction() as tx:
            yield tx

    world.kms.calls.clear()
    world.store.transaction = go_away  # type: ignore[method-assign]
    try:
        assert ends(world.services.rotations.run_many(due)) == {"store-unavailable": 6}
    finally:
        del world.store.transaction
    assert {world.rotation(id_).state for id_ in due} == {RotationState.REQUESTED}
    finish(world)
    all_rotated_once(world)


def test_a_lock_that_is_held_on_one_key_does_not_hold_up_the_others(
    world: World, due: list[UUID], engine: sa.Engine
) -> None:
    """The transaction for all gives up; each alone comes through, but for the one."""
    held = world.show("globex", "pii").key.id

    def shorten(connection: sa.Connection) -> None:
        connection.exec_driver_sql("SET LOCAL lock_timeout = '100ms'")

    sa.event.listen(engine, "begin", shorten)
    try:
        with engine.connect() as other, other.begin():
            other.execute(sa.text("SELECT id FROM keys WHERE id = :id FOR UPDATE"), {"id": held})
            works = world.services.rotations.run_many(due)
    finally:
        sa.event.remove(engine, "begin", shorten)
    assert ends(works) == {"done": 5, "store-busy": 1}
    finish(world)
    all_rotated_once(world)


def test_a_setback_that_cannot_be_written_down_leaves_the_others_alone(
    world: World, due: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(*_: object) -> None:
        raise StoreUnavailable("PostgreSQL does not answer")

    monkeypatch.setattr(Setbacks, "record", break_down)
    world.kms.fail_next(KmsUnavailable("ThrottlingException"))
    assert ends(world.services.rotations.run_many(due)) == {"done": 5, "kms-unavailable": 1}
    monkeypatch.undo()
    finish(world)
    all_rotated_once(world)


@pytest.mark.parametrize(
    "point",
    [
        FailPoint.CLAIMED,
        FailPoint.KMS_GENERATED,
        FailPoint.GENERATED,
        FailPoint.GATE_PASSED,
        FailPoint.VALIDATED,
        FailPoint.PROMOTING,
        FailPoint.PROMOTED,
    ],
)
def test_a_worker_that_dies_with_many_in_hand_leaves_them_to_the_next(
    world: World, due: list[UUID], point: FailPoint
) -> None:
    arm(point, die)
    with pytest.raises(Killed):
        world.services.rotations.run_many(due)
    disarm()
    world.services.rotations.run_many(due)  # the message comes again, too early or too late
    finish(world)
    all_rotated_once(world)


def test_no_secret_outlives_the_run(world: World, due: list[UUID]) -> None:
    works = world.services.rotations.run_many(due)
    for work in works:
        assert work.validated is not None
        with work.validated.secret.borrow() as raw:
            assert not any(raw)


def test_a_compromise_before_the_claim_has_every_check(world: World, due: list[UUID]) -> None:
    world.services.requests.request(
        "acme", "pii", reason=RotationReason.COMPROMISE, requested_by="test", idempotency_key="now"
    )
    world.services.rotations.run_many(due)
    assert world.states("acme", "pii") == ["compromised", "active"]
    assert len(world.versions("acme", "pii")[1].checks) == 9, "somebody asked: every check"
    assert world.states("acme", "cards") == ["retired", "active"]
