"""A move under load: services go on encrypting and decrypting, and a worker is killed at each step.

    python -m tests.chaos.moves

After each change-over the old KMS key is disabled, and every ciphertext opened by a process that held none.
"""

import json
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from byok.cli import processes
from byok.core import policies
from byok.core.moves import MoveState
from byok.embedded.stack import Stack
from byok.embedded.supervisor import Child
from byok.errors import AccessStopped
from byok.failpoints import FailPoint
from byok.services.moves import MoveStatus
from byok.settings import child_environment, load_settings, use_environment
from byok.simulator.control import SimulatorControl
from byok.store import migrate
from byok.store.postgres import create_engine
from byok.wiring import Runtime, build
from tests.customers import Customer, add_key, join

PACE = {
    "BYOK_ENV": "test",  # allows fail points
    "BYOK_SWEEP_INTERVAL_SECONDS": "1",
    "BYOK_RECHECK_SECONDS": "0.5",
    "BYOK_PROBE_INTERVAL_SECONDS": "0.5",
}
TTL = timedelta(seconds=2)  # so that KMS is asked all the time
KEYS, ROTATIONS = 4, 3
IN_A_WORKER = (
    FailPoint.MOVE_WRAPPING,
    FailPoint.MOVE_WRAPPED,
    FailPoint.MOVE_BATCH_ENDED,
    FailPoint.MOVE_COMMITTING,
    FailPoint.MOVE_COMMITTED,
    FailPoint.MOVE_ROTATING,
)
CONTEXT = b"users.email:42"


@dataclass
class Reader:
    """A service's thread: it encrypts, and decrypts what it or another encrypted whenever."""

    runtime: Runtime
    tokens: list[tuple[str, bytes]]
    operations: int = 0
    errors: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0
    stopped: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        chance = random.Random(7)
        while not self.stopped.wait(0.002):
            began = time.monotonic()
            try:
                key, token = chance.choice(self.tokens)
                cipher = self.runtime.services.vault.cipher("acme", key)
                assert cipher.decrypt(token, context=CONTEXT) == b"x"
                self.tokens.append((key, cipher.encrypt(b"x", context=CONTEXT)))
            except Exception as error:  # noqa: BLE001  # told to the thread that looks
                self.errors.append(f"{type(error).__name__}: {error}")
            self.operations += 1
            self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - began)


@dataclass
class Scene:
    """A customer with some KMS keys, and a fleet."""

    stack: Stack
    environment: dict[str, str]
    runtime: Runtime
    customer: Customer
    tokens: list[tuple[str, bytes]]

    def start_worker(self, name: str, point: FailPoint | None = None) -> Child:
        armed = {} if point is None else {"BYOK_FAIL_POINT": point.value}
        return processes.start_worker(self.stack, self.environment | armed, name)

    def new_kms_key(self) -> str:
        """A KMS key more, which the customer's role may use and move to."""
        new = self.customer.account.create_key()
        tenant = self.customer.tenant.id
        keys = [*self.kms_keys, new]
        policy = policies.role_permissions(keys, tenant)
        policy["Statement"] += [
            policies.migration_source_statement(keys, tenant),
            policies.migration_target_statement(keys, tenant),
        ]
        self.customer.account.put_role_policy("byok", policy)
        return new

    @property
    def kms_keys(self) -> list[str]:
        connection = self.runtime.services.registry.show_tenant("acme")[0].connection
        assert connection is not None
        return [str(connection.kms_key_arn)]

    def status(self) -> MoveStatus:
        return self.runtime.services.moves.status("acme")

    def is_finished(self) -> bool:
        return self.status().move.state is MoveState.DONE

    def rotate_one(self) -> None:
        """A rotation in the move's way."""
        self.runtime.services.vault.request_rotation("acme", f"key-{random.randrange(KEYS)}")

    def all_readable(self) -> bool:
        """Whether every token opens in a process that held nothing before."""
        fresh = build(load_settings())
        try:
            return all(
                fresh.services.vault.cipher("acme", key).decrypt(token, context=CONTEXT) == b"x"
                for key, token in list(self.tokens)
            )
        finally:
            fresh.close()


def wait_until(condition: Callable[[], bool], timeout_seconds: float, what: Callable[[], object]) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)


@contextmanager
def moving_scene(folder: Path) -> Iterator[Scene]:
    """A customer with versions of some keys, a Beat, and no worker."""
    with Stack(folder / "home", durable=False) as stack:
        environment = stack.environment | PACE
        engine = create_engine(environment["BYOK_DATABASE_URL"], 1)
        migrate.upgrade(engine)
        engine.dispose()
        use_environment(environment)
        runtime = build(load_settings())
        customer = join(stack, runtime, "acme")
        tokens = []
        for number in range(KEYS):
            add_key(runtime, "acme", f"key-{number}", ttl=TTL)
            for _ in range(ROTATIONS):
                tokens.append(_token(runtime, f"key-{number}"))
                asked = runtime.services.vault.request_rotation("acme", f"key-{number}")
                runtime.services.rotations.run(asked.rotation.id)
        processes.start_beat(stack, environment)
        yield Scene(stack, environment, runtime, customer, tokens)
        runtime.close()


def _token(runtime: Runtime, key: str) -> tuple[str, bytes]:
    return key, runtime.services.vault.cipher("acme", key).encrypt(b"x", context=CONTEXT)


@contextmanager
def under_load(scene: Scene) -> Iterator[list[Reader]]:
    """Two services: threads of this process, and a process that keeps its account in a file."""
    report = scene.stack.home.path / "service.json"
    add_key(scene.runtime, "acme", ttl=TTL)
    service = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.kill_switch_service", "acme", "pii", str(report)],
        env=child_environment({**scene.environment, "PYTHONPATH": str(Path(__file__).parents[2])}),
    )
    readers = [Reader(scene.runtime, scene.tokens) for _ in range(2)]
    threads = [threading.Thread(target=reader.run, daemon=True) for reader in readers]
    for thread in threads:
        thread.start()
    try:
        yield readers
    finally:
        for reader in readers:
            reader.stopped.set()
        for thread in threads:
            thread.join(30)
        service.send_signal(signal.SIGTERM)
        service.wait(30)
    runs = json.loads(report.read_text())["runs"]
    assert [run["code"] for run in runs] == [None], runs
    assert runs[0]["count"] > 100


@dataclass
class Report:
    """What became of the services while tenants moved, by the point at which a worker was killed."""

    moves: list[FailPoint]
    operations: int
    slowest_seconds: float
    errors: list[str]


def kill_at(scene: Scene, points: Sequence[FailPoint]) -> Report:
    """Move the customer on for each point: a worker dies there, another goes on to the end."""
    SimulatorControl(scene.stack.simulator.url).hang(0.05, operation="ReEncrypt")  # one batch is not enough
    moved: list[FailPoint] = []
    with under_load(scene) as readers:
        for point in points:
            _move_on(scene, point)
            moved.append(point)
    return Report(
        moved,
        sum(reader.operations for reader in readers),
        max(reader.slowest_seconds for reader in readers),
        [error for reader in readers for error in reader.errors],
    )


def _move_on(scene: Scene, point: FailPoint) -> None:
    (old,), new = scene.kms_keys, scene.new_kms_key()
    armed = scene.start_worker(f"armed-{point}", point)
    command = _migrate(scene, new)
    scene.rotate_one()
    wait_until(lambda: armed.process.poll() is not None, 90, lambda: armed.log_tail(30))
    assert armed.process.returncode == -signal.SIGKILL, armed.log_tail(20)
    scene.rotate_one()
    whole = scene.start_worker(f"whole-{point}")
    wait_until(scene.is_finished, 120, lambda: (scene.status(), whole.log_tail(30)))
    assert command.wait(60) == 0
    assert scene.status().progress.old_key_may_go
    scene.customer.account.disable_key(old)
    assert scene.all_readable(), point
    scene.stack.supervisor.stop([whole])


def stops_with_the_new_key(scene: Scene) -> bool:
    """Disable the KMS key in use, and see whether everything stops."""
    scene.customer.account.disable_key(scene.kms_keys[0])
    cipher = scene.runtime.services.vault.cipher("acme", "key-0")
    scene.start_worker("prober")
    wait_until(lambda: _is_stopped(lambda: cipher.encrypt(b"x", context=CONTEXT)), 30, lambda: "it goes on")
    return True


def _is_stopped(act: Callable[[], object]) -> bool:
    try:
        act()
    except AccessStopped:
        return True
    return False


def _migrate(scene: Scene, new: str) -> "subprocess.Popen[bytes]":
    """The command, which waits for the commit; killed once after it recorded the move."""
    command = [sys.executable, "-m", "byok.cli", "tenant", "migrate", "acme", "--kms-key-arn", new]
    environment = {**scene.environment, "PYTHONPATH": str(Path(__file__).parents[2])}
    armed = environment | {"BYOK_FAIL_POINT": FailPoint.MOVE_RECORDED.value}
    killed = subprocess.run(command, env=child_environment(armed), check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    return subprocess.Popen(command, env=child_environment(environment), stdout=subprocess.DEVNULL)


def main() -> int:
    """Kill a worker at each point; print what the services saw."""
    with tempfile.TemporaryDirectory() as folder, moving_scene(Path(folder)) as scene:
        report = kill_at(scene, IN_A_WORKER)
        stops_with_the_new_key(scene)
    print(
        f"{len(report.moves)} moves, {report.operations} operations meanwhile, {len(report.errors)} failed,"
        f" the slowest took {report.slowest_seconds:.2f} s"
    )
    print(*report.errors, sep="\n")
    return 1 if report.errors else 0


if __name__ == "__main__":
    sys.exit(main())
