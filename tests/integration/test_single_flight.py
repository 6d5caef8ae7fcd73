"""Many threads of many processes miss at once, over a real Valkey and the simulator: one asks KMS."""

import threading
from collections.abc import Iterator

import pytest
import redis

from byok.embedded.stack import Stack
from byok.errors import ByokError
from byok.settings import Settings
from byok.simulator.control import SimulatorControl
from byok.wiring import Runtime, build
from tests.customers import Customer, add_key, join

CONTEXT = b"users.email:1"
THREADS = 4


@pytest.fixture
def acme(stack: Stack, runtime: Runtime) -> Customer:
    customer = join(stack, runtime, "acme")
    add_key(runtime, "acme")
    return customer


@pytest.fixture
def fleet(acme: Customer, settings: Settings, stack: Stack) -> Iterator[list[Runtime]]:
    """Three sets of services that share nothing but the servers, and an empty cache."""
    runtimes = [build(settings) for _ in range(3)]
    with redis.Redis.from_url(stack.environment["BYOK_CACHE_URL"]) as cache:
        cache.flushall()
    yield runtimes
    for one in runtimes:
        one.close()


def all_at_once(fleet: list[Runtime]) -> list[str]:
    """What each thread got: ``served``, or an error's code."""
    barrier, got = threading.Barrier(len(fleet) * THREADS), []

    def use(one: Runtime) -> None:
        cipher = one.services.vault.cipher("acme", "pii")
        barrier.wait()
        try:
            cipher.encrypt(b"x", context=CONTEXT)
            got.append("served")
        except ByokError as error:
            got.append(error.code)

    threads = [threading.Thread(target=use, args=(one,)) for one in fleet for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return got


def decrypts(simulator: SimulatorControl, acme: Customer) -> int:
    return len(simulator.calls(account=acme.account.account_id, operation="Decrypt"))


def test_one_request_serves_them_all(
    fleet: list[Runtime], acme: Customer, simulator: SimulatorControl
) -> None:
    simulator.hang(0.3, operation="Decrypt")
    assert all_at_once(fleet) == ["served"] * len(fleet) * THREADS
    assert decrypts(simulator, acme) == 1


def test_one_refusal_stops_them_all(
    fleet: list[Runtime], acme: Customer, simulator: SimulatorControl
) -> None:
    acme.account.disable_key(acme.kms_key)
    simulator.hang(0.3, operation="Decrypt")
    got = all_at_once(fleet)
    assert set(got) == {"kms-access-revoked", "tenant-not-active"}
    assert got.count("kms-access-revoked") == 1
    assert decrypts(simulator, acme) == 1


def test_without_redis_each_process_asks_once(
    fleet: list[Runtime], acme: Customer, simulator: SimulatorControl, stack: Stack
) -> None:
    with redis.Redis.from_url(stack.environment["BYOK_CACHE_URL"]) as cache:
        cache.client_pause(4000)  # it takes connections and answers nothing
        assert all_at_once(fleet) == ["served"] * len(fleet) * THREADS
    assert decrypts(simulator, acme) == len(fleet)
