"""A process with a wrong master key: what it can't do, it says; what is there, it leaves alone."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from byok.core.model import RotationReason, RotationState, TenantState
from byok.crypto.hazmat import SecretBytes
from byok.crypto.keyring import MasterKeyRing
from byok.errors import ByokError, SealBroken, UnknownMasterKey, failure_text
from byok.services.ring import RingReview, Sealed
from byok.wiring import Services
from tests.world import PERIOD, TTL, World

WRONG = SecretBytes(bytes(32))


@pytest.fixture(params=["mk-1", "mk-2"], ids=["under the right name", "under another name"])
def ring(request: pytest.FixtureRequest, world: World) -> MasterKeyRing:
    return MasterKeyRing([(request.param, WRONG)], world.random.bytes)


@pytest.fixture
def wrong(world: World, key: None, ring: MasterKeyRing) -> Services:
    """A process of the fleet that was started with the wrong ring."""
    right, world.master_keys = world.master_keys, ring
    process = world.another_process()
    world.master_keys = right
    return process


@pytest.fixture
def error(ring: MasterKeyRing) -> type[ByokError]:
    return SealBroken if ring.primary_id == "mk-1" else UnknownMasterKey


def test_it_suspends_nobody_and_destroys_nothing(
    world: World, wrong: Services, error: type[ByokError]
) -> None:
    token = world.services.vault.cipher("acme", "pii").encrypt(b"ada", context=b"c")
    before = [replace(one, checks=()) for one in world.versions()]
    world.cache.purge(world.tenant().id)
    acts: list[Callable[[], object]] = [
        lambda: wrong.vault.cipher("acme", "pii").decrypt(token, context=b"c"),
        lambda: wrong.vault.cipher("acme", "pii").encrypt(b"ada", context=b"c"),
        lambda: wrong.checkups.validate("acme", "pii", actor="test"),
        lambda: wrong.checkups.probe("acme"),
    ]
    for act in acts:
        with pytest.raises(ByokError):
            act()
    wrong.scheduling.sweep()
    assert world.tenant().state is TenantState.ACTIVE
    # The report of the validation that failed is all that is new.
    assert [replace(one, checks=()) for one in world.versions()] == before
    assert world.services.vault.cipher("acme", "pii").decrypt(token, context=b"c") == b"ada"


@pytest.mark.parametrize("reason", [RotationReason.SCHEDULED, RotationReason.FORCED])
def test_it_makes_no_version_that_only_it_could_open(
    world: World, wrong: Services, error: type[ByokError], reason: RotationReason
) -> None:
    requested = world.services.requests.request("acme", "pii", reason=reason, requested_by="test")
    made = world.kms.count("GenerateDataKeyWithoutPlaintext")
    with pytest.raises(error) as raised:
        wrong.rotations.run(requested.rotation.id)
    assert world.kms.count("GenerateDataKeyWithoutPlaintext") == made
    assert world.states() == ["active"]
    (failed,) = world.services.observer.overview().failed
    assert failed.rotation.failure == failure_text(raised.value)
    world.services.requests.retry(requested.rotation.id, requested_by="operator")
    assert [one.state for one in world.run_published() if one][-1] is RotationState.DONE
    assert world.states() == ["retired", "active"]


def test_it_makes_no_first_version_either(world: World, wrong: Services, error: type[ByokError]) -> None:
    world.services.registry.create_key("acme", "second", rotation_period=PERIOD, lease_ttl=TTL, actor="test")
    ((_, _, rotation),) = world.queue.rotations
    made = world.kms.count("GenerateDataKeyWithoutPlaintext")
    with pytest.raises(error):
        wrong.rotations.run(rotation.id)
    assert world.kms.count("GenerateDataKeyWithoutPlaintext") == made
    world.services.requests.retry(rotation.id, requested_by="operator")
    assert [one.state for one in world.run_published() if one][-1] is RotationState.DONE


def test_the_first_ring_of_all_is_as_good_as_any(world: World) -> None:
    world.add_tenant()
    world.add_key()
    assert world.states() == ["active"]


def test_the_review_finds_it(world: World, wrong: Services, ring: MasterKeyRing) -> None:
    (right,) = RingReview(world.store, world.master_keys).review()
    assert right == Sealed("mk-1", records=1, is_in_ring=True, tried=1, opened=1)
    (found,) = RingReview(world.store, ring).review()
    assert (found.master_key_id, found.opened, found.is_in_ring) == ("mk-1", 0, ring.primary_id == "mk-1")
