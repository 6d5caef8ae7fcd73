"""The slowest stops, as operators are told: who does not answer is no reason to be proud."""

from datetime import timedelta

import pytest

from byok.core.metric_list import WORST_REVOCATION_SECONDS
from byok.services.fleet_metrics import read_store
from byok.services.vault import Vault
from byok.wiring import Services
from tests.world import World


@pytest.fixture
def fleet(world: World, key: None) -> list[Services]:
    """Three processes that are members, of which none hears pushes."""
    world.board.loses_all = True
    fleet = [world.services, world.another_process(), world.another_process()]
    for services in fleet:
        hold_lease(services.vault)
    return fleet


def hold_lease(vault: Vault) -> None:
    vault.cipher("acme", "pii").encrypt(b"x", context=b"c")


def worst(world: World) -> dict[str, timedelta]:
    """What the exporter and `byok status` say, which is the same."""
    samples = read_store(world.store, world.clock)
    told = {
        sample.labels[0]: timedelta(seconds=sample.value)
        for sample in samples
        if sample.metric is WORST_REVOCATION_SECONDS
    }
    assert dict(world.services.observer.overview().worst_stops) == told
    return told


def test_a_process_that_never_answered_counts_until_its_leases_end(
    world: World, fleet: list[Services]
) -> None:
    world.services.kill_switch.suspend("acme", "stop", actor="test")
    world.clock.advance(seconds=2)
    fleet[0].watch.look()
    world.clock.advance(seconds=598)
    assert worst(world) == {"acme": timedelta(minutes=10)}
    world.clock.advance(hours=5)
    assert worst(world) == {"acme": timedelta(hours=1)}, "the TTL: no lease is older"
    (told,) = world.services.kill_switch.reports(world.tenant())
    assert (told.latency, len(told.silent)) == (timedelta(seconds=2), 2)
    for silent in fleet[1:]:
        silent.watch.look()
    assert worst(world)["acme"] > timedelta(hours=5), "and late answers tell when it really was"


def test_when_all_have_answered_it_is_the_last_answer(world: World, fleet: list[Services]) -> None:
    world.services.kill_switch.suspend("acme", "stop", actor="test")
    for services in fleet:
        world.clock.advance(seconds=2)
        services.watch.look()
    world.clock.advance(hours=5)
    assert worst(world) == {"acme": timedelta(seconds=6)}


def test_a_stop_that_nobody_had_to_obey_took_no_time(world: World, key: None) -> None:
    world.clock.advance(hours=1)  # by which whoever was a member is taken for dead
    world.services.kill_switch.suspend("acme", "stop", actor="test")
    world.clock.advance(hours=1)
    assert worst(world) == {"acme": timedelta(0)}


def test_what_is_long_ago_is_not_shown(world: World, fleet: list[Services]) -> None:
    world.services.kill_switch.suspend("acme", "stop", actor="test")
    world.clock.advance(days=89)
    assert worst(world) == {"acme": timedelta(hours=1)}
    world.clock.advance(days=2)
    assert worst(world) == {}
