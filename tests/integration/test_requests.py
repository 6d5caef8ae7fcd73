"""Requests for rotations: each is answered once, whoever asks how often."""

import threading
from typing import Any

import pytest

from byok.core.model import (
    RequestOutcome,
    Rotation,
    RotationReason,
)
from byok.errors import (
    GaveUp,
    LostRace,
    NotReady,
    UnknownKey,
    UnknownTenant,
)
from byok.services.requests import Requested
from byok.services.setbacks import MAX_ATTEMPTS
from byok.store.rotations import RotationTable
from tests.integration.acts import FORCED, Killed, die, pass_time, request
from tests.world import World


def test_same_idempotency_key_never_rotates_twice(world: World, key: None) -> None:
    first = request(world, "deploy-7")
    world.run_published()
    again = world.services.requests.request(
        "acme", "pii", reason=FORCED, requested_by="test", idempotency_key="deploy-7"
    )
    assert str(again.rotation.id) == first
    assert again.outcome is RequestOutcome.REPEATED
    assert world.queue.rotations == []
    assert world.states() == ["retired", "active"]


def test_a_request_that_joined_gets_the_same_answer_when_it_is_repeated(world: World, key: None) -> None:
    first = request(world, "deploy-7")
    assert request(world, "deploy-8") == first
    world.run_published()
    for again in ("deploy-8", "deploy-7"):
        repeated = world.services.requests.request(
            "acme", "pii", reason=FORCED, requested_by="test", idempotency_key=again
        )
        assert (str(repeated.rotation.id), repeated.outcome) == (first, RequestOutcome.REPEATED)
    assert world.states() == ["retired", "active"]
    assert world.audit_actions().count("rotation.joined") == 1


@pytest.mark.parametrize("same", [True, False])
def test_requests_at_once_make_one_rotation(world: World, key: None, same: bool) -> None:
    """Several rounds, since it takes a moment to lose a race."""
    for round_ in range(5):
        start = threading.Barrier(6)
        outcomes: list[RequestOutcome] = []

        def ask(
            number: int, start: threading.Barrier = start, outcomes: Any = outcomes, n: int = round_
        ) -> None:
            services = world.another_process()
            start.wait()
            requested = services.requests.request(
                "acme", "pii", reason=FORCED, requested_by="test",
                idempotency_key=f"{n}" if same else f"{n}-{number}",
            )  # fmt: skip
            outcomes.append(requested.outcome)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        others = RequestOutcome.REPEATED if same else RequestOutcome.JOINED
        assert sorted(outcomes) == sorted([RequestOutcome.NEW] + [others] * 5)
        world.run_published()
    assert len(world.versions()) == 6


def test_a_compromise_that_joins_makes_the_open_rotation_one(world: World, key: None) -> None:
    first = request(world)
    _, _, rotation = world.queue.rotations[0]

    def report_a_compromise() -> None:
        world.kms.hooks.clear()
        joined = world.another_process().requests.request(
            "acme", "pii", reason=RotationReason.COMPROMISE, requested_by="security"
        )
        assert joined.joined
        assert str(joined.rotation.id) == first

    world.kms.hooks["Decrypt"] = report_a_compromise  # in the middle of it
    world.run_published()
    ((_, _, published),) = world.queue.rotations  # again, since compromises have the first queue
    assert published.reason is RotationReason.COMPROMISE
    assert world.states() == ["compromised", "active"]
    assert world.rotation(rotation.id).reason is RotationReason.COMPROMISE


def test_request_joins_an_open_rotation(world: World, key: None) -> None:
    first = request(world)
    second = world.services.requests.request("acme", "pii", reason=FORCED, requested_by="other")
    assert second.joined
    assert str(second.rotation.id) == first
    assert len(world.queue.rotations) == 1


def test_unknown_tenant_and_key_change_nothing(world: World, key: None) -> None:
    with pytest.raises(UnknownTenant):
        world.services.requests.request("nobody", "pii", reason=FORCED, requested_by="test")
    with pytest.raises(UnknownKey):
        world.services.requests.request("acme", "nothing", reason=FORCED, requested_by="test")
    assert world.queue.rotations == []


def test_poison_ends_as_failed_with_its_reason_is_counted_and_can_be_retried(world: World, key: None) -> None:
    rotation_id = request(world)
    world.kms.hooks["GenerateDataKeyWithoutPlaintext"] = die
    for _ in range(MAX_ATTEMPTS):
        with pytest.raises(Killed):
            world.run_published()
        pass_time(world, sweeps=1)
        assert world.services.scheduling.sweep() == 1
    with pytest.raises(GaveUp, match="8 attempts came to no end"):
        world.run_published()
    (failed,) = world.services.observer.overview().failed
    assert (str(failed.rotation.id), failed.tenant, failed.key) == (rotation_id, "acme", "pii")
    assert failed.rotation.failure == "gave-up: 8 attempts came to no end"
    assert world.metrics.counts["ended", "forced", "failed"] == 1
    assert world.metrics.counts["found", "republished"] == MAX_ATTEMPTS
    world.kms.hooks.clear()
    retried = world.services.requests.retry(failed.rotation.id, requested_by="operator")
    assert retried.outcome is RequestOutcome.NEW
    world.run_published()
    again = world.services.requests.retry(failed.rotation.id, requested_by="operator")
    assert (again.outcome, again.rotation.id) == (RequestOutcome.REPEATED, retried.rotation.id)
    assert world.states() == ["retired", "active"]
    assert world.services.observer.overview().failed == []
    with pytest.raises(NotReady, match="only a failed one is retried"):
        world.services.requests.retry(retried.rotation.id, requested_by="operator")


def test_a_compromise_that_joins_in_the_last_moment_is_asked_again(world: World, key: None) -> None:
    first = request(world)
    _, _, rotation = world.queue.rotations.pop()
    asked: list[Requested] = []
    compromise = RotationReason.COMPROMISE

    class Overtaking(RotationTable):
        """The open rotation ends between the joining and the change of its reason."""

        def set_reason(self, joined: Rotation, reason: RotationReason) -> Rotation:
            monkey.undo()
            raise LostRace("it ended just now")

    with pytest.MonkeyPatch.context() as monkey:
        monkey.setattr("byok.store.postgres.RotationTable", Overtaking)
        asked.append(
            world.services.requests.request("acme", "pii", reason=compromise, requested_by="security")
        )
    assert str(asked[0].rotation.id) == first == str(rotation.id)
    assert world.rotation(rotation.id).reason is compromise
    assert world.audit_actions().count("rotation.joined") == 1  # the first try was rolled back whole
