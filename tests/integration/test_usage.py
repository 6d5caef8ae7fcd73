"""The usage ledger over a real PostgreSQL: what was done is what it says, added up over processes."""

import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from byok.core.stops import Member
from byok.core.usage import FLUSH_PERIOD, VersionId
from byok.embedded.stack import Stack
from byok.errors import StoreUnavailable
from byok.settings import child_environment
from byok.store.postgres import PostgresStore
from byok.wiring import Runtime, Services
from tests.customers import add_key, join
from tests.world import TTL, World, flush

CONTEXT = b"users.email:1"


@pytest.fixture(autouse=True)
def a_key(request: pytest.FixtureRequest) -> None:
    if "world" in request.fixturenames:
        world: World = request.getfixturevalue("world")
        world.add_tenant()
        world.add_key()


def use(services: Services, times: int = 1, key: str = "pii") -> bytes:
    cipher = services.vault.cipher("acme", key)
    token = b""
    for _ in range(times):
        token = cipher.encrypt(b"ada", context=CONTEXT)
    return token


def ledger(world: World, key: str = "pii") -> dict[int, int]:
    return {number: usage.uses for number, usage in world.show(key=key).usage.items()}


@contextmanager
def locked_ledger(engine: sa.Engine) -> Iterator[None]:
    with engine.begin() as connection:
        connection.execute(sa.text("LOCK TABLE version_usage"))
        yield


def test_encryptions_and_decryptions_count_alike_the_first_included(world: World) -> None:
    token = use(world.services, 3)
    for _ in range(2):
        world.services.vault.cipher("acme", "pii").decrypt(token, context=CONTEXT)
    assert flush(world.services) == 5
    assert flush(world.services) == 0
    assert ledger(world) == {1: 5}
    assert world.metrics.counts["uses"] == 5


def test_each_of_many_counts_once_however_many_ivs_that_takes(world: World) -> None:
    use(world.services, 3)
    flush(world.services)
    world.services.vault.cipher("acme", "pii").encrypt_many([(b"x", CONTEXT)] * 2000)
    assert flush(world.services) == 2000


def test_uses_of_a_key_without_caching_count_too(world: World) -> None:
    world.add_key(key="cards", ttl=timedelta(0))
    use(world.services, 3, "cards")
    flush(world.services)
    assert ledger(world, "cards") == {1: 3}


def test_the_times_are_those_of_the_flushes(world: World) -> None:
    use(world.services)
    world.clock.advance(seconds=30)
    began = world.clock.now()
    flush(world.services)
    world.clock.advance(minutes=5)
    flush(world.services)  # nothing was used
    usage = world.show().usage[1]
    assert (usage.first_used_at, usage.last_used_at) == (began, began)
    use(world.services)
    flush(world.services)
    usage = world.show().usage[1]
    assert (usage.first_used_at, usage.last_used_at) == (began, world.clock.now())


def test_what_is_dropped_evicted_or_renewed_is_counted_all_the_same(world: World) -> None:
    use(world.services, 2)
    world.services.watch._held.drop(world.tenant().id)
    use(world.services, 3)
    world.clock.advance(seconds=TTL.total_seconds() * 0.95)
    use(world.services)  # renews it in the background
    use(world.services)
    world.services.watch._held.forget()
    flush(world.services)
    assert ledger(world) == {1: 7}


def test_a_lease_that_was_used_too_often_is_counted_once_for_each_use(world: World) -> None:
    process = world.another_process(max_lease_uses=3)
    use(process, 10)
    flush(process)
    assert ledger(world) == {1: 10}


def test_validations_are_no_uses(world: World) -> None:
    world.services.vault.request_rotation("acme", "pii")
    world.run_published()
    for _ in range(3):
        world.services.checkups.validate("acme", "pii", actor="test")
    assert flush(world.services) == 0
    assert ledger(world) == {}


def test_counts_stay_while_postgresql_does_not_take_them(world: World, engine: sa.Engine) -> None:
    use(world.services, 2)
    with locked_ledger(engine), pytest.raises(StoreUnavailable):
        flush(world.services)
    use(world.services, 1)
    assert flush(world.services) == 3
    assert ledger(world) == {1: 3}


def test_the_watch_thread_flushes_once_a_period_and_survives_a_failure(
    world: World, engine: sa.Engine
) -> None:
    use(world.services, 2)
    member = world.services.watch.member
    assert member is not None
    with locked_ledger(engine):
        world.services.usage.flush_if_due(member.id)
    world.services.usage.flush_if_due(member.id)
    assert ledger(world) == {}, "not due again"
    world.clock.advance(seconds=FLUSH_PERIOD.total_seconds())
    world.services.usage.flush_if_due(member.id)
    assert ledger(world) == {1: 2}


def test_a_process_that_leaves_writes_what_it_has(world: World) -> None:
    process = world.another_process()
    use(process, 4)
    process.watch.close()
    assert ledger(world) == {1: 4}


def test_a_member_is_noted_with_the_time_before_its_counts_were_read(
    world: World, store: PostgresStore, engine: sa.Engine
) -> None:
    use(world.services)
    member = world.services.watch.member
    with store.transaction() as tx:
        assert tx.usage.list_unflushed(world.clock.now(), None) == [str(member)]
    flushed_at = world.clock.now()
    flush(world.services)
    world.clock.advance(minutes=10)
    with store.transaction() as tx:
        assert tx.usage.list_unflushed(flushed_at, None) == []
        later = flushed_at + timedelta(microseconds=1)
        assert tx.usage.list_unflushed(later, None) == [str(member)]
        assert tx.usage.list_unflushed(later, seen_since=world.clock.now()) == []


def test_a_version_that_does_not_exist_spoils_nothing(world: World, store: PostgresStore) -> None:
    key_id = world.show().key.id
    with store.transaction() as tx:
        tx.usage.add(
            {VersionId(uuid4(), 1): 1, VersionId(key_id, 9): 1, VersionId(key_id, 1): 2}, world.clock.now()
        )
    assert ledger(world) == {1: 2}


def results(futures: Sequence["Future[None]"]) -> list[None]:
    return [each.result() for each in futures]


def test_processes_that_flush_at_once_add_up_exactly(world: World) -> None:
    """Threads of several processes use four keys while each process flushes all the time."""
    keys = ["pii", "a", "b", "c"]
    for key in keys[1:]:
        world.add_key(key=key)
    processes, uses_each = [world.another_process() for _ in range(4)], 300
    ended = threading.Event()

    def work(process: Services, order: list[str]) -> None:
        for key in order * uses_each:
            use(process, 1, key)

    def flush_on(process: Services) -> None:
        while not ended.is_set():
            if process.watch.member is not None:
                flush(process)

    with ThreadPoolExecutor(12) as pool:
        flushing = [pool.submit(flush_on, process) for process in processes]
        working = [pool.submit(work, one, order) for one in processes for order in (keys, keys[::-1])]
        results(working)
        ended.set()
        results(flushing)
    for process in processes:
        flush(process)
    assert {key: ledger(world, key) for key in keys} == {key: {1: 4 * 2 * uses_each} for key in keys}


SCRIPT = """
import os
from byok import connect

vault = connect()
cipher = vault.cipher("acme", "pii")
for _ in range(5):
    cipher.encrypt(b"x", context=b"c")
pid = os.fork()
for _ in range(3 if pid else 2):
    cipher.encrypt(b"x", context=b"c")
vault.close()
if pid:
    assert os.waitpid(pid, 0)[1] == 0
else:
    os._exit(0)
"""


def test_a_forked_child_counts_its_own_uses_and_not_its_parents(stack: Stack, runtime: Runtime) -> None:
    join(stack, runtime, "acme")
    add_key(runtime, "acme")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=child_environment(stack.environment),
        check=False,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert runtime.services.registry.show_key("acme", "pii").usage[1].uses == 5 + 3 + 2


def test_ten_thousand_versions_are_one_statement(world: World, store: PostgresStore) -> None:
    known = VersionId(world.show().key.id, 1)
    uses = {VersionId(UUID(int=number), 1): 1 for number in range(10_000)} | {known: 7}
    with store.transaction() as tx:
        tx.usage.add(uses, world.clock.now())
    assert ledger(world) == {1: 7}


def test_a_member_without_uses_is_noted(world: World, store: PostgresStore) -> None:
    member = Member(uuid4(), "service", "h", 1)
    with store.transaction() as tx:
        tx.members.enrol(member, world.clock.now())
    assert world.services.usage.flush(member.id) == 0
    with store.transaction() as tx:
        assert tx.usage.list_unflushed(world.clock.now(), None) == []
