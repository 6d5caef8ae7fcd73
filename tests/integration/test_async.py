"""The async twin: the same answers as the synchronous API, and an event loop that never stands still."""

import asyncio
import inspect
import io
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from byok import aconnect, connect
from byok.embedded.stack import Stack
from byok.errors import ByokError, KmsUnavailable, TenantNotActive
from byok.services.async_vault import AsyncCipher, AsyncVault
from byok.services.fields import Cipher
from byok.services.vault import Vault
from byok.simulator.control import SimulatorControl
from byok.wiring import Runtime, Services
from tests.customers import add_key, join
from tests.world import PERIOD, TTL, World, kms_key_arn

CONTEXT = b"users.email:42"
VALUE = b"ada@example.com"


class Synchronous:
    """The synchronous vault, awaited as if it were the other."""

    def __init__(self, services: Services) -> None:
        self.vault = services.vault

    async def call(self, tenant: str, key: str, method: str, *args: Any, **named: Any) -> Any:
        return getattr(self.vault.cipher(tenant, key), method)(*args, **named)


class Asynchronous:
    def __init__(self, services: Services) -> None:
        self.vault = services.async_vault

    async def call(self, tenant: str, key: str, method: str, *args: Any, **named: Any) -> Any:
        return await getattr(self.vault.cipher(tenant, key), method)(*args, **named)


Api = Synchronous | Asynchronous


async def encrypts_and_decrypts(api: Api, token: bytes) -> object:
    fresh = await api.call("acme", "pii", "encrypt", VALUE, context=CONTEXT)
    return await api.call("acme", "pii", "decrypt", fresh, context=CONTEXT)


async def opens_an_old_token(api: Api, token: bytes) -> object:
    return await api.call("acme", "pii", "decrypt", token, context=CONTEXT)


async def encrypts_many(api: Api, token: bytes) -> object:
    tokens = await api.call("acme", "pii", "encrypt_many", [(b"a", b"1"), (b"b", b"2")])
    return [
        await api.call("acme", "pii", "decrypt", token, context=context)
        for token, context in zip(tokens, (b"1", b"2"), strict=True)
    ]


async def encrypts_none(api: Api, token: bytes) -> object:
    return await api.call("acme", "pii", "encrypt_many", [])


async def rewraps(api: Api, token: bytes) -> object:
    fresh = await api.call("acme", "pii", "rewrap", token, context=CONTEXT)
    again = await api.call("acme", "pii", "rewrap", fresh, context=CONTEXT)
    return fresh == token, again == fresh


async def rewraps_many(api: Api, token: bytes) -> object:
    fresh = await api.call("acme", "pii", "rewrap_many", [(token, CONTEXT), (b"ada", CONTEXT)])
    return len(fresh[0]), fresh[1]


async def searches(api: Api, token: bytes) -> object:
    index = await api.call("acme", "pii", "blind_index", VALUE, context=b"users.email")
    stale = await api.call("acme", "pii", "needs_reindex", index)
    return index, stale, await api.call("acme", "pii", "blind_indexes", VALUE, context=b"users.email")


async def does_not_search_without_an_index(api: Api, token: bytes) -> object:
    return await api.call("acme", "uncached", "blind_index", VALUE, context=b"users.email")


async def encrypts_a_stream_and_decrypts_it(api: Api, token: bytes) -> object:
    made, opened = io.BytesIO(), io.BytesIO()
    await api.call("acme", "pii", "encrypt_stream", io.BytesIO(VALUE * 100), made, context=CONTEXT)
    made.seek(0)
    await api.call("acme", "pii", "decrypt_stream", made, opened, context=CONTEXT)
    return opened.getvalue()


async def tells_what_needs_rewrapping(api: Api, token: bytes) -> object:
    return await api.call("acme", "pii", "needs_rewrap", token)


async def refuses_another_context(api: Api, token: bytes) -> object:
    return await api.call("acme", "pii", "decrypt", token, context=b"users.email:43")


async def refuses_an_empty_context(api: Api, token: bytes) -> object:
    return await api.call("acme", "pii", "encrypt", VALUE, context=b"")


async def refuses_damage(api: Api, token: bytes) -> object:
    return await api.call("acme", "pii", "decrypt", token[:-1] + bytes([token[-1] ^ 1]), context=CONTEXT)


async def refuses_what_is_no_token(api: Api, token: bytes) -> object:
    return await api.call("acme", "pii", "decrypt", b"ada", context=CONTEXT)


async def refuses_an_unknown_version(api: Api, token: bytes) -> object:
    return await api.call("acme", "pii", "decrypt", b"\x01\x00\x00\x00\x09" + token[5:], context=CONTEXT)


async def knows_no_such_tenant(api: Api, token: bytes) -> object:
    return await api.call("nobody", "pii", "encrypt", VALUE, context=CONTEXT)


async def knows_no_such_key(api: Api, token: bytes) -> object:
    return await api.call("acme", "other", "encrypt", VALUE, context=CONTEXT)


async def asks_for_each_use_where_nothing_is_cached(api: Api, token: bytes) -> object:
    fresh = await api.call("acme", "uncached", "encrypt", VALUE, context=CONTEXT)
    return await api.call("acme", "uncached", "decrypt", fresh, context=CONTEXT)


async def has_no_version_yet(api: Api, token: bytes) -> object:
    return await api.call("acme", "unborn", "encrypt", VALUE, context=CONTEXT)


CASES: list[Callable[[Api, bytes], Awaitable[object]]] = [
    encrypts_and_decrypts,
    opens_an_old_token,
    encrypts_many,
    encrypts_none,
    rewraps,
    rewraps_many,
    searches,
    does_not_search_without_an_index,
    encrypts_a_stream_and_decrypts_it,
    tells_what_needs_rewrapping,
    refuses_another_context,
    refuses_an_empty_context,
    refuses_damage,
    refuses_what_is_no_token,
    refuses_an_unknown_version,
    knows_no_such_tenant,
    knows_no_such_key,
    asks_for_each_use_where_nothing_is_cached,
    has_no_version_yet,
]


def outcome(case: Callable[[Api, bytes], Awaitable[object]], api: Api, token: bytes) -> object:
    async def main() -> object:
        try:
            return await case(api, token)
        except ByokError as error:
            return error.code, error.message, error.remedy

    return asyncio.run(main())


@pytest.fixture
def rotated(world: World) -> tuple[World, bytes]:
    """Keys of all kinds, and a token under the first of two versions."""
    world.add_tenant()
    world.add_key()
    token = world.services.vault.cipher("acme", "pii").encrypt(VALUE, context=CONTEXT)
    world.services.vault.request_rotation("acme", "pii")
    world.run_published()
    world.services.indexes.enable("acme", "pii", actor="test")
    world.add_key(key="uncached", ttl=timedelta(0))
    world.services.registry.create_key("acme", "unborn", rotation_period=PERIOD, lease_ttl=TTL, actor="test")
    return world, token


@contextmanager
def in_trouble(world: World, trouble: str) -> Iterator[None]:
    """Trouble for the length of a call, after which all is as it was. Nothing is in Redis, so cold is KMS."""
    world.cache.entries.clear()
    arn = kms_key_arn()
    if trouble == "stopped":
        world.services.kill_switch.suspend("acme", reason="test", actor="test")
    elif trouble == "revoked":
        world.kms.disable(arn)
    elif trouble == "outage":
        world.kms.fail_next(KmsUnavailable("down"), times=20)
    yield
    world.kms.clear_faults()
    world.kms.enable(arn)
    world.cache.failing.clear()
    if world.tenant().suspension is not None:
        world.services.kill_switch.resume("acme", actor="test")


@pytest.mark.parametrize("trouble", ["none", "stopped", "revoked", "outage"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_both_answer_alike_cold_and_warm(
    rotated: tuple[World, bytes], case: Callable[[Api, bytes], Awaitable[object]], trouble: str
) -> None:
    world, token = rotated
    both: list[Api] = [Synchronous(world.another_process()), Asynchronous(world.another_process())]
    for _ in ("cold", "warm"):
        answers = []
        for api in both:
            with in_trouble(world, trouble):
                answers.append(outcome(case, api, token))
        assert answers[0] == answers[1]


def test_the_twin_has_every_call_with_the_same_arguments() -> None:
    for sync, twin, own in (
        (Cipher, AsyncCipher, {"unasking", "encrypting_writer", "decrypting_reader"}),  # files that block
        (Vault, AsyncVault, {"close_with", "measure_with"}),
    ):
        wanted = {name for name in vars(sync) if not name.startswith("_")} - own - {"is_closed"}
        assert wanted == {name for name in vars(twin) if not name.startswith("_")} - {"is_closed"}
        for name in wanted - {"cipher", "metrics_collector"}:  # which wait for nothing
            theirs, ours = (inspect.signature(getattr(kind, name)) for kind in (sync, twin))
            assert theirs == ours, name
            assert inspect.iscoroutinefunction(getattr(twin, name)), name


def test_with_a_lease_in_hand_no_thread_is_begun(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.add_tenant()
    world.add_key()

    def refuse(thread: threading.Thread) -> None:
        raise AssertionError("a thread was begun")

    async def main() -> None:
        cipher = world.services.async_vault.cipher("acme", "pii")
        token = await cipher.encrypt(VALUE, context=CONTEXT)
        monkeypatch.setattr(threading.Thread, "start", refuse)
        assert await cipher.decrypt(token, context=CONTEXT) == VALUE
        assert len(await cipher.encrypt_many([(VALUE, CONTEXT)] * 3)) == 3
        assert await cipher.rewrap(token, context=CONTEXT) == token
        world.clock.advance(seconds=6)  # time to look again at the tenant
        with pytest.raises(AssertionError, match="a thread was begun"):
            await cipher.encrypt(VALUE, context=CONTEXT)

    asyncio.run(main())


def test_a_stop_is_obeyed_at_once(world: World) -> None:
    world.add_tenant()
    world.add_key()

    async def main() -> None:
        cipher = world.services.async_vault.cipher("acme", "pii")
        token = await cipher.encrypt(VALUE, context=CONTEXT)
        world.services.kill_switch.suspend("acme", reason="test", actor="test")
        for call in (cipher.decrypt(token, context=CONTEXT), cipher.encrypt(VALUE, context=CONTEXT)):
            with pytest.raises(TenantNotActive):
                await call

    asyncio.run(main())


# --- over the real servers ------------------------------------------------------------------------------


async def longest_stall_seconds(while_running: Awaitable[object]) -> float:
    """How long the event loop stood still at most, meanwhile."""
    task, worst = asyncio.ensure_future(while_running), 0.0
    while not task.done():
        before = time.monotonic()
        await asyncio.sleep(0.005)
        worst = max(worst, time.monotonic() - before - 0.005)
    await task
    return worst


@pytest.fixture
def cold(stack: Stack, runtime: Runtime) -> Runtime:
    """A customer with a key, and a process that holds nothing."""
    customer = join(stack, runtime, "acme")
    add_key(runtime, "acme")
    runtime.cache.purge(customer.tenant.id)
    runtime.services.desk.forget()
    return runtime


def test_the_loop_goes_on_while_kms_hangs_and_a_thousand_misses_make_one_request(
    cold: Runtime, simulator: SimulatorControl
) -> None:
    simulator.hang(2.5, operation="Decrypt")
    cipher = cold.services.async_vault.cipher("acme", "pii")

    async def main() -> None:
        calls = asyncio.gather(*(cipher.encrypt(VALUE, context=CONTEXT) for _ in range(1000)))
        assert await longest_stall_seconds(calls) < 1.5
        assert len(set(calls.result())) == 1000

    asyncio.run(main())
    assert len(simulator.calls(operation="Decrypt")) == 1


def test_what_is_cancelled_returns_at_once_and_the_lease_is_kept(
    cold: Runtime, simulator: SimulatorControl
) -> None:
    simulator.hang(0.7, operation="Decrypt")
    cipher = cold.services.async_vault.cipher("acme", "pii")

    async def main() -> None:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(cipher.encrypt(VALUE, context=CONTEXT), 0.2)
        assert time.monotonic() - began < 0.6
        await cipher.encrypt(VALUE, context=CONTEXT)

    asyncio.run(main())
    assert len(simulator.calls(operation="Decrypt")) == 1


def test_both_doors_lead_to_one_vault_and_either_closes_it(cold: Runtime) -> None:
    async def main() -> None:
        async with aconnect() as vault:
            assert vault is aconnect()
            token = await vault.cipher("acme", "pii").encrypt(VALUE, context=CONTEXT)
            assert connect().cipher("acme", "pii").decrypt(token, context=CONTEXT) == VALUE
            shared = connect()
        assert vault.is_closed
        assert shared.is_closed
        await vault.close()

    asyncio.run(main())


def test_a_rotation_is_requested(world: World) -> None:
    world.add_tenant()
    world.add_key()
    requested = asyncio.run(world.services.async_vault.request_rotation("acme", "pii", idempotency_key="k"))
    again = asyncio.run(world.services.async_vault.request_rotation("acme", "pii", idempotency_key="k"))
    assert requested.rotation == again.rotation
