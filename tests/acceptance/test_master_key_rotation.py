"""A rotation of the master key with real workers: killed in the middle, while services read and rotate."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from benchmarks.bulk import load
from byok.cli import processes
from byok.core.resealing import RecordKind, RecordPlace, Reseal, ResealState, SealedRecord
from byok.crypto.keyring import MasterKeyRing
from byok.crypto.ring_entries import format_entry
from byok.embedded.stack import Stack
from byok.embedded.supervisor import Child
from byok.failpoints import FailPoint
from byok.services.records import RECORD_PURPOSE, open_sealed
from byok.settings import load_settings, use_environment
from byok.store import migrate
from byok.wiring import Runtime, build
from tests.customers import add_key, join, new_account

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PACE = {"BYOK_ENV": "test", "BYOK_SWEEP_INTERVAL_SECONDS": "1", "BYOK_RECHECK_SECONDS": "0.5"}
OLD, NEW = (format_entry(name, name.encode().ljust(32, b".")) for name in ("mk-old", "mk-new"))
RECORDS = 3_000
POINTS = (FailPoint.CLAIMED, FailPoint.RECORDS_RESEALED, FailPoint.CURSOR_MOVED)


def process(stack: Stack, ring: str) -> Runtime:
    """A process of the fleet, here."""
    use_environment(stack.environment | PACE | {"BYOK_MASTER_KEYS": ring})
    runtime = build(load_settings())
    runtime.services.watch.join()
    return runtime


def records(runtime: Runtime) -> Iterator[SealedRecord]:
    after: RecordPlace | None = None
    while True:
        with runtime.store.transaction() as tx:
            page = tx.sealed[RecordKind.VERSION].page(after, 1000)
        yield from page.records
        if page.last is None:
            return
        after = page.last


def seal_for_real(runtime: Runtime) -> None:
    """The bulk loader's records are random: give each one a seal of something that tells where it belongs."""
    ring = runtime.master_keys
    seals = [
        (one, ring.seal(str(one.place).encode(), RECORD_PURPOSE, str(one.tenant_id), str(one.place.key_id),
                        one.place.number, one.kms_key_arn))
        for one in records(runtime)
    ]  # fmt: skip
    with runtime.store.transaction() as tx:
        assert tx.sealed[RecordKind.VERSION].replace_seals(seals) == len(seals)


@dataclass
class Reader:
    """A service that opens a record and asks KMS for each use, and now and then has its key rotated."""

    runtime: Runtime
    token: bytes
    opened: int = 0
    error: Exception | None = None
    stopped: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        cipher = self.runtime.services.vault.cipher("acme", "pii")
        try:
            while not self.stopped.wait(0.01):
                assert cipher.decrypt(self.token, context=b"c") == b"ada"
                self.opened += 1
                if self.opened % 20 == 0:
                    asked = self.runtime.services.vault.request_rotation("acme", "pii")
                    self.runtime.services.rotations.run(asked.rotation.id)
        except Exception as error:  # noqa: BLE001  # told to the thread that waits
            self.error = error


@contextmanager
def reading(runtime: Runtime, token: bytes) -> Iterator[Reader]:
    reader = Reader(runtime, token)
    thread = threading.Thread(target=reader.run, daemon=True)
    thread.start()
    yield reader
    reader.stopped.set()
    thread.join()
    runtime.close()
    assert reader.error is None


def wait_until(condition: Callable[[], bool], runtime: Runtime, timeout_seconds: float = 90.0) -> None:
    """Wait, and sweep meanwhile: no Beat runs here."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, "it takes too long"
        runtime.services.reseals.sweep()
        time.sleep(0.1)


def test_workers_that_die_leave_nothing_undone_and_everything_opens_meanwhile(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    with Stack(tmp_path / "home", durable=False) as stack:
        use_environment(stack.environment | PACE | {"BYOK_MASTER_KEYS": OLD})
        first = build(load_settings())
        migrate.upgrade(first.engine)
        load(first.engine, keys=RECORDS, keys_per_tenant=RECORDS, due_share=0.0, real_chains=0)
        seal_for_real(first)
        with first.engine.begin() as connection:
            connection.execute(sa.text("DELETE FROM members"))
        for _ in range(3):
            new_account(stack)  # those that the loader's tenant may have
        join(stack, first, "acme")
        add_key(first, "acme", ttl=timedelta(0))
        token = first.services.vault.cipher("acme", "pii").encrypt(b"ada", context=b"c")
        first.close()

        straggler = process(stack, f"{OLD},{NEW}")
        rotated = process(stack, f"{NEW},{OLD}")
        with reading(rotated, token) as reader:
            with reading(straggler, token) as old_reader:
                reseal = rotated.services.reseals.start(requested_by="test").reseal
                killed = [kill_a_worker(stack, rotated, point) for point in POINTS]
                survivor = processes.start_worker(stack, worker_environment(stack), "survivor")
                wait_until(lambda: now(rotated, reseal).waits_for is not None, rotated)
                assert now(rotated, reseal).is_running  # for the straggler seals under the old key
            wait_until(lambda: not now(rotated, reseal).is_running, rotated)
            assert survivor.process.poll() is None
            ended = now(rotated, reseal)
            check_all_are_under_the_new_key(rotated, ended)
        assert killed == [-signal.SIGKILL] * len(POINTS)
        assert reader.opened > 20
        assert old_reader.opened > 20


def worker_environment(stack: Stack) -> dict[str, str]:
    return stack.environment | PACE | {"BYOK_MASTER_KEYS": f"{NEW},{OLD}"}


def kill_a_worker(stack: Stack, runtime: Runtime, point: FailPoint) -> int | None:
    """Have a worker take a batch and die at this point."""
    armed = worker_environment(stack) | {"BYOK_FAIL_POINT": point.value}
    worker: Child = processes.start_worker(stack, armed, f"worker-{point.value}")
    wait_until(lambda: worker.process.poll() is not None, runtime)
    return worker.process.returncode


def now(runtime: Runtime, reseal: Reseal) -> Reseal:
    return runtime.services.reseals.get(reseal.id)


def check_all_are_under_the_new_key(runtime: Runtime, ended: Reseal) -> None:
    assert (ended.state, ended.unreadable_records) == (ResealState.DONE, ())
    # Each once, and what the straggler sealed meanwhile.
    assert ended.tally.resealed >= ended.total >= RECORDS
    only_new = MasterKeyRing.parse(NEW, os.urandom)
    of_the_loader = 0
    for one in records(runtime):
        assert one.box.master_key_id == "mk-new"
        of_the_loader += open_sealed(only_new, RecordKind.VERSION, one) == str(one.place).encode()
    assert of_the_loader >= RECORDS
