"""A fleet to be maltreated: real servers, real workers, customers with keys, and a ledger of requests."""

import itertools
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import redis
import sqlalchemy as sa
from celery import Celery

from byok.cli import processes
from byok.core.model import OpenWork, Rotation, RotationReason
from byok.embedded.servers import Valkey
from byok.embedded.stack import Stack
from byok.embedded.supervisor import Child
from byok.errors import StoreUnavailable
from byok.failpoints import FailPoint
from byok.queue import CeleryQueue
from byok.settings import load_settings, use_environment
from byok.simulator.control import SimulatorControl
from byok.store import migrate
from byok.store.postgres import create_engine
from byok.wiring import Runtime, build
from tests.customers import join

SWEEP_SECONDS = 2.0
PACE = {
    "BYOK_ENV": "test",
    "BYOK_DISPATCH_INTERVAL_SECONDS": "1",
    "BYOK_SWEEP_INTERVAL_SECONDS": str(SWEEP_SECONDS),
    "BYOK_PROBE_INTERVAL_SECONDS": "3600",
    "BYOK_RECHECK_SECONDS": "1",
    "BYOK_WORKER_CONCURRENCY": "4",
    "BYOK_DATABASE_POOL_SIZE": "6",
}
# A settled fleet ends a rotation in a second or two; what a fault delays waits for sweeps and for
# retries, whose waits double from 2 s on.
SETTLE_SECONDS = 90.0
CONTEXT = b"users.email:1"

# A clock of PostgreSQL's that can be set: it stands in the search path before the real one.
_SETTABLE_CLOCK = """
CREATE SCHEMA chaos;
CREATE TABLE chaos.shift (amount interval NOT NULL);
INSERT INTO chaos.shift VALUES ('0');
CREATE FUNCTION chaos.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
  'SELECT pg_catalog.clock_timestamp() + (SELECT amount FROM chaos.shift)';
ALTER DATABASE byok SET search_path = chaos, pg_catalog, public;
"""


@dataclass(frozen=True)
class KeyName:
    """A key of a customer."""

    tenant: str
    key: str


@dataclass(frozen=True)
class Token:
    """A ciphertext from before, and what it must open to."""

    of: KeyName
    token: bytes
    plaintext: bytes


@dataclass(frozen=True)
class Asked:
    """A request that we made. ``rotation_id`` is None where only a message was sent."""

    of: KeyName
    idempotency_key: str
    rotation_id: UUID | None


class Fleet:
    """Servers, workers, Beats and services, with ways to hurt them."""

    def __init__(self, stack: Stack, runtime: Runtime, engine: sa.Engine) -> None:
        self.stack = stack
        self.runtime = runtime
        self.engine = engine
        self.simulator = SimulatorControl(stack.simulator.url)
        self.environment: Mapping[str, str] = stack.environment | PACE
        self.keys: list[KeyName] = []
        self.tokens: list[Token] = []
        self.ledger: list[Asked] = []
        self.random = random.Random(3)
        self._names = itertools.count(1)
        self.workers: list[Child] = []  # those that nobody means to kill
        self.beat: Child

    # --- processes --------------------------------------------------------------------------------

    def start_workers(self, *points: FailPoint | None, options: Sequence[str] = ()) -> list[Child]:
        """Start a worker for each entry, armed with that fail point, and wait until all are ready."""
        started = []
        for point in points:
            armed = {} if point is None else {"BYOK_FAIL_POINT": point.value}
            name = f"worker-{next(self._names)}"
            started.append(processes.start_worker(self.stack, {**self.environment, **armed}, name, options))
        for worker in started:
            if worker.process.poll() is None:  # an armed one may have met its point already
                self._wait_for_ready(worker)
        return started

    def _wait_for_ready(self, worker: Child) -> None:
        deadline = time.monotonic() + 60
        while "ready." not in worker.log_file.read_text(errors="replace"):
            if worker.process.poll() is not None:
                return
            assert time.monotonic() < deadline, worker.log_tail(20)
            time.sleep(0.05)

    def start(self) -> None:
        """Start what a fleet has by day: two workers and a Beat."""
        self.workers = self.start_workers(None, None)
        self.beat = self.start_beat()

    def died(self) -> list[Child]:
        """Workers and the Beat that ended although nobody killed them."""
        return [child for child in [*self.workers, self.beat] if child.process.poll() is not None]

    def replace_a_worker(self) -> None:
        """Stop the older of the two workers and start another."""
        self.stop([self.workers.pop(0)])
        self.workers += self.start_workers(None)

    def start_beat(self) -> Child:
        """Start a Beat."""
        return processes.start_beat(self.stack, self.environment, f"beat-{next(self._names)}")

    def stop(self, children: Sequence[Child]) -> None:
        """Stop those that still run, and forget the others."""
        for child in children:
            if child in self.stack.supervisor.children:
                self.stack.supervisor.stop([child])

    def wait_for_end(self, child: Child, timeout_seconds: float = 30.0) -> int:
        """Wait for a process's end; return its status."""
        return child.process.wait(timeout_seconds)

    # --- work -------------------------------------------------------------------------------------

    def add_customers(self, tenants: int, keys: int) -> None:
        """Register customers, make their keys in this process, and encrypt a value under each."""
        for _ in range(tenants):
            customer = join(self.stack, self.runtime, f"t-{uuid4().hex[:8]}")
            for number in range(keys):
                name = KeyName(customer.name, f"key-{number}")
                _, requested = self.runtime.services.registry.create_key(
                    name.tenant,
                    name.key,
                    rotation_period=timedelta(days=30),
                    lease_ttl=timedelta(minutes=5),
                    actor="chaos",
                )
                self.runtime.services.rotations.run(requested.rotation.id)
                self.keys.append(name)
        self.encrypt()

    def encrypt(self) -> None:
        """A new ciphertext under each key, to be opened at every later check."""
        for name in self.keys:
            plaintext = f"{uuid4()}@example.com".encode()
            cipher = self.runtime.services.vault.cipher(name.tenant, name.key)
            self.tokens.append(Token(name, cipher.encrypt(plaintext, context=CONTEXT), plaintext))

    def storm(self, keys: Sequence[KeyName] | None = None) -> list[Asked]:
        """Ask for a rotation of each key, as a service does that keeps asking until it gets an answer."""
        asked = [self.ask(name) for name in (self.keys if keys is None else keys)]
        self.ledger += asked
        return asked

    def ask(self, name: KeyName) -> Asked:
        """Ask once, with an idempotency key, through outages of PostgreSQL."""
        idempotency_key = f"chaos-{uuid4()}"
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            try:
                requested = self.runtime.services.vault.request_rotation(
                    name.tenant, name.key, idempotency_key=idempotency_key, requested_by="chaos"
                )
            except StoreUnavailable:
                assert time.monotonic() < deadline, "PostgreSQL does not come back"
                time.sleep(0.1)
            else:
                return Asked(name, idempotency_key, requested.rotation.id)

    def record_without_publishing(self, keys: Sequence[KeyName]) -> None:
        """Requests whose requester died before it published them: only a sweeper finds them."""
        for name in keys:
            idempotency_key = f"chaos-{uuid4()}"
            requested = self.runtime.services.requests.record(
                name.tenant, name.key, reason=RotationReason.FORCED, requested_by="chaos",
                idempotency_key=idempotency_key,
            )  # fmt: skip
            self.ledger.append(Asked(name, idempotency_key, requested.rotation.id))

    def ask_by_name(self, name: KeyName) -> Asked:
        """Ask as an application does that knows Celery and not byok."""
        asked = Asked(name, f"chaos-{uuid4()}", None)
        application = Celery("stranger", broker=self.stack.broker.url, set_as_current=False)
        application.send_task(
            "byok.keys.rotate",
            kwargs={"tenant": name.tenant, "key": name.key, "idempotency_key": asked.idempotency_key},
            queue="rotate.forced",
        )
        application.close()
        self.ledger.append(asked)
        return asked

    def in_flight(self) -> int:
        """How many rotations have begun and not ended."""
        return self.count("SELECT count(*) FROM rotations WHERE finished_at IS NULL")

    def count(self, query: str) -> int:
        """A number from the database."""
        with self.engine.connect() as connection:
            return int(connection.execute(sa.text(query)).scalar_one())

    def wait_until(self, condition: Callable[[], bool], timeout_seconds: float = 30.0) -> bool:
        """Whether the condition came true in time."""
        deadline = time.monotonic() + timeout_seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.03)
        return True

    def wait_for_work(self) -> None:
        """Wait until workers have taken something up."""
        begun = "SELECT count(*) FROM rotations WHERE finished_at IS NULL AND attempts > 0"
        self.wait_until(lambda: self.count(begun) > 0, 10)

    def end_quarantines(self) -> None:
        """Let the seconds pass, without waiting, for which a version in quarantine is left alone."""
        with redis.Redis.from_url(self.stack.cache.url) as cache:
            for mark in cache.scan_iter("byok:failing:*"):
                cache.delete(mark)

    def settle(self) -> bool:
        """Wait until every request made by message has been recorded and no rotation is open.

        In this order: a request recorded between the two looks is an open rotation at the second.
        """
        return self.wait_until(lambda: not self.unrecorded() and self.in_flight() == 0, SETTLE_SECONDS)

    def unrecorded(self) -> list[Asked]:
        """Requests that no rotation serves."""
        with self.engine.connect() as connection:
            found = connection.execute(sa.text("SELECT idempotency_key FROM rotation_requests"))
            recorded = set(found.scalars())
        return [asked for asked in self.ledger if asked.idempotency_key not in recorded]

    def make_due(self, keys: Sequence[KeyName]) -> None:
        """Let keys be due now."""
        for name in keys:
            self.runtime.services.registry.set_rotation(
                name.tenant, name.key, actor="chaos", next_in=timedelta(0)
            )

    def overdue(self) -> int:
        """How many keys are due and have no open rotation yet."""
        return self.count(
            "SELECT count(*) FROM keys k WHERE next_rotation_at <= clock_timestamp() AND NOT EXISTS"
            " (SELECT 1 FROM rotations r WHERE r.key_id = k.id AND r.finished_at IS NULL)"
        )

    # --- servers ----------------------------------------------------------------------------------

    def restart_valkey(self, server: Valkey) -> None:
        """Kill a Valkey and start it again without its data."""
        assert server.child is not None
        server.child.process.send_signal(signal.SIGKILL)
        server.child.process.wait()
        self.stop([server.child])
        for kept in ("appendonlydir", "dump.rdb"):
            path = self.stack.home.path / server.name / kept
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        server.start()
        server.wait()

    def restart_postgres(self, how: signal.Signals) -> None:
        """Restart PostgreSQL: SIGINT ends all sessions, SIGQUIT is a crash that it recovers from."""
        self.stop_postgres(how)
        self.start_postgres()

    def stop_postgres(self, how: signal.Signals) -> None:
        """Stop PostgreSQL, the one way or the other."""
        assert self.stack.postgres.child is not None
        self.stack.postgres.child.process.send_signal(how)
        self.stack.postgres.child.process.wait(20)
        self.stop([self.stack.postgres.child])

    def start_postgres(self) -> None:
        """Start PostgreSQL again, and wait for it."""
        self.stack.postgres.start()
        self.stack.postgres.wait()

    def set_clock(self, shift: str) -> None:
        """Set PostgreSQL's clock ahead of the real one, or behind."""
        with self.engine.begin() as connection:
            connection.execute(
                sa.text("UPDATE chaos.shift SET amount = CAST(:shift AS interval)"), {"shift": shift}
            )

    def publish_again(self, rotations: Sequence[Rotation]) -> None:
        """Publish rotations that were published before."""
        queue = CeleryQueue.connect(self.stack.broker.url)
        for rotation in rotations:
            queue.rotate([OpenWork("whoever", "whatever", rotation)])
        queue.close()

    def works(self) -> Sequence[OpenWork]:
        """All rotations, newest first."""
        return self.runtime.services.observer.rotations(failed=False, limit=100_000)


@contextmanager
def chaos_fleet(folder: Path, tenants: int, keys: int) -> Iterator[Fleet]:
    """A durable stack with customers. Without durability a crash of PostgreSQL could lose a commit."""
    with Stack(folder / "home", durable=True) as stack:
        environment = stack.environment | PACE
        engine = create_engine(environment["BYOK_DATABASE_URL"], 4)
        migrate.upgrade(engine)
        with engine.begin() as connection:
            connection.execute(sa.text(_SETTABLE_CLOCK))
        engine.dispose()
        use_environment(environment)
        runtime = build(load_settings())
        fleet = Fleet(stack, runtime, engine)
        try:
            fleet.add_customers(tenants, keys)
            yield fleet
        finally:
            runtime.close()
            engine.dispose()
