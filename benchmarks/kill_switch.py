"""From a customer's DisableKey to the last of eight service processes failing closed: how long?

    python -m benchmarks.kill_switch                        # 2 minutes
    python -m benchmarks.kill_switch --case redis-hangs --case worker-down
    python -m benchmarks.kill_switch --processes 4 --json

Real processes on the embedded stack: services that encrypt and decrypt every 10 ms, a worker, a Beat.
Each case has a customer and service processes of its own. Time 0 is the simulator's answer to DisableKey;
a process's figure is the start of its last operation that succeeded. DisableKey comes right after a
Decrypt, which is the worst moment for a probe that has just been and for a lease that was just renewed.

    push          all is well
    push-lost     the cache's server refuses pub/sub, and all else works
    redis-down    the cache's server is killed just before DisableKey
    redis-hangs   it is frozen just before DisableKey
    worker-down   no worker and no Beat: only the end of the lease stops the services

Once all have stopped the fault is lifted, the key stays disabled, and the services try on: one that serves
again has not failed closed. ``told`` counts from AWS's refusal to the last process that had dropped its
leases, as ``byok tenant show`` prints it. The exit code is 1 if any case was beyond its bound or served
again.
"""

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from unittest import mock
from uuid import uuid4

import redis
from rich.console import Console
from rich.table import Table

from benchmarks.kill_switch_service import Run, now_seconds
from byok.cli.processes import start_beat, start_worker, wait_for_worker
from byok.core.stops import probe_period, revocation_bound
from byok.embedded.stack import Stack
from byok.embedded.supervisor import Child, stop_signals
from byok.settings import child_environment, load_settings, use_environment
from byok.simulator.control import SimulatorControl
from byok.store import migrate
from byok.wiring import Runtime, build
from tests.customers import Customer, add_key, join

PROCESSES = 8
KEY = "pii"
PROBE_SECONDS = 2.0
RECHECK_SECONDS = 1.0
TTL_SECONDS = 60.0
SHORT_TTL_SECONDS = 6.0
PACE = {
    "BYOK_PROBE_INTERVAL_SECONDS": str(PROBE_SECONDS),
    "BYOK_RECHECK_SECONDS": str(RECHECK_SECONDS),
    "BYOK_DATABASE_POOL_SIZE": "4",  # of many processes on one PostgreSQL
}

START_SECONDS = 60.0  # until all processes serve, on a busy machine
DECRYPT_SECONDS = 20.0  # until a probe or a renewal is seen
STRAGGLERS_SECONDS = 0.3  # after the first renewal of a lease that ends for all processes at once
GRACE_SECONDS = 3.0  # how far beyond the bound we look
SETTLE_SECONDS = 2.5  # from the last stop to the end of the fault: a purge has given up by then
AFTERMATH_SECONDS = 2.5 * RECHECK_SECONDS  # how long a service may try to serve again after that


# --- results --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ProcessResult:
    """How one service process stopped."""

    stopped_seconds: float  # from time 0 to the start of the last operation that succeeded
    has_stopped: bool  # its last operation failed
    served_again: int  # operations that succeeded after one had failed
    codes: tuple[str, ...]  # of the errors, in order
    slowest_seconds: float  # the operation since time 0 that took longest; 0 where none was slow


@dataclass(frozen=True)
class Result:
    """How a case went."""

    case: str
    bound_seconds: float
    processes: tuple[ProcessResult, ...]
    members: int  # processes that owed an acknowledgement of the stop
    answered: int
    told_seconds: float  # from AWS's refusal to the last process that had dropped its leases

    @property
    def stopped_seconds(self) -> tuple[float, ...]:
        """When each process stopped, the first one first."""
        return tuple(sorted(process.stopped_seconds for process in self.processes))

    @property
    def is_within(self) -> bool:
        """Whether all processes stopped, and in time."""
        all_stopped = all(process.has_stopped for process in self.processes)
        return all_stopped and self.stopped_seconds[-1] <= self.bound_seconds

    @property
    def served_again(self) -> int:
        """How many operations succeeded after their process had failed."""
        return sum(process.served_again for process in self.processes)

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes of all errors."""
        return tuple(sorted({code for process in self.processes for code in process.codes}))

    @property
    def passed(self) -> bool:
        """Whether the kill switch did what it is for."""
        return self.is_within and not self.served_again


@dataclass(frozen=True)
class Account:
    """What a service process tells of its operations."""

    runs: tuple[Run, ...]
    slow: tuple[tuple[float, float], ...]  # start and end of operations that took long
    is_complete: bool

    @classmethod
    def read(cls, file: Path) -> "Account":
        """The account so far."""
        if not file.exists():
            return cls((), (), is_complete=False)
        told = json.loads(file.read_text())
        runs = tuple(Run(**run) for run in told["runs"])
        return cls(runs, tuple((start, end) for start, end in told["slow"]), told["complete"])


def judge(account: Account, time_zero_seconds: float) -> ProcessResult:
    """What a process's account says of the time since ``time_zero_seconds``."""
    since = [run for run in account.runs if run.ended_seconds >= time_zero_seconds]
    successes = [run.last_seconds for run in since if run.code is None]
    first_failure = next((index for index, run in enumerate(since) if run.code is not None), len(since))
    return ProcessResult(
        stopped_seconds=max([0.0, *(seconds - time_zero_seconds for seconds in successes)]),
        has_stopped=bool(since) and since[-1].code is not None,
        served_again=sum(run.count for run in since[first_failure:] if run.code is None),
        codes=tuple(dict.fromkeys(run.code for run in since if run.code is not None)),
        slowest_seconds=max(
            (end - start for start, end in account.slow if end >= time_zero_seconds), default=0.0
        ),
    )


# --- the fleet ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Service:
    """A started service process and the file of its account."""

    child: Child
    report_file: Path

    def account(self) -> Account:
        """What it has told so far."""
        return Account.read(self.report_file)

    def serves(self, since_seconds: float = 0.0) -> bool:
        """Whether its last operation succeeded, and began after that moment."""
        runs = self.account().runs
        return bool(runs) and runs[-1].code is None and runs[-1].last_seconds > since_seconds

    def fails(self) -> bool:
        """Whether its last operation failed."""
        runs = self.account().runs
        return bool(runs) and runs[-1].code is not None


class Fleet:
    """The servers, with or without worker and Beat, and services for one case at a time."""

    def __init__(self, stack: Stack, runtime: Runtime) -> None:
        self.stack = stack
        self.runtime = runtime
        self.simulator = SimulatorControl(stack.simulator.url)
        self.environment = {**stack.environment, **PACE}
        self._workers: list[Child] = []

    def start_workers(self) -> None:
        """Have a worker and a Beat that ticks."""
        if self._workers:
            return
        worker = start_worker(self.stack, self.environment)
        self._workers = [worker, start_beat(self.stack, self.environment)]
        wait_for_worker(self.stack, worker)

    def stop_workers(self) -> None:
        """Have no worker and no Beat."""
        self.stack.supervisor.stop(self._workers)
        self._workers = []

    @contextmanager
    def services(self, tenant: str, count: int) -> Iterator[list[Service]]:
        """Service processes that serve; they are stopped, at the latest, at the end."""
        started: list[Service] = []
        try:
            started.extend(self._start_service(tenant, number) for number in range(count))
            self.wait_for_service(started)
            yield started
        finally:
            self.stop_services(started)

    def _start_service(self, tenant: str, number: int) -> Service:
        name = f"service-{tenant}-{number}"
        report_file = self.stack.home.path / f"{name}.json"
        argv = [sys.executable, "-m", "benchmarks.kill_switch_service", tenant, KEY, str(report_file)]
        child = self.stack.supervisor.spawn(name, argv, child_environment(self.environment))
        return Service(child, report_file)

    def stop_services(self, services: Sequence[Service]) -> None:
        """Let all end at once, and wait for each."""
        running = [one.child for one in services if one.child in self.stack.supervisor.children]
        for child in running:
            if child.process.poll() is None:
                child.process.send_signal(signal.SIGTERM)
        self.stack.supervisor.stop(running)

    def wait_until(self, condition: Callable[[], bool], timeout_seconds: float) -> None:
        """Wait; raise where that is in vain."""
        if not self.came_true(condition, timeout_seconds):
            raise TimeoutError(f"waited {timeout_seconds:.0f} s in vain; {self._log_tails()}")

    def came_true(self, condition: Callable[[], bool], timeout_seconds: float) -> bool:
        """Whether the condition came true in time. No process may end meanwhile."""
        deadline_seconds = now_seconds() + timeout_seconds
        while not condition():
            ended = self.stack.supervisor.ended_child()
            if ended is not None:
                raise RuntimeError(f"{ended.name} ended: {ended.log_tail()}")
            if now_seconds() > deadline_seconds:
                return False
            time.sleep(0.03)
        return True

    def _log_tails(self) -> str:
        return "; ".join(f"{child.name}: {child.log_tail(2)}" for child in self.stack.supervisor.children)

    def wait_for_service(self, services: Sequence[Service], since_seconds: float = 0.0) -> None:
        """Wait until each has served since then, and none fails."""
        self.wait_until(lambda: all(one.serves(since_seconds) for one in services), START_SECONDS)

    def wait_for_decrypt(self, customer: Customer) -> None:
        """Wait for a probe, or for the renewal of a lease."""
        self.simulator.forget_calls()
        self.wait_until(lambda: self._decrypts(customer) > 0, DECRYPT_SECONDS)

    def _decrypts(self, customer: Customer) -> int:
        account = customer.account.account_id
        return len(self.simulator.calls(account=account, operation="Decrypt", outcome="ok"))


@contextmanager
def running_fleet() -> Iterator[Fleet]:
    """A stack of its own; this process has its settings meanwhile."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Stack(Path(folder) / "home", durable=False) as stack,
        mock.patch.dict("os.environ"),
    ):
        use_environment({**stack.environment, **PACE})
        runtime = build(load_settings())
        try:
            migrate.upgrade(runtime.engine)
            yield Fleet(stack, runtime)
        finally:
            runtime.close()


# --- faults ---------------------------------------------------------------------------------------


def _cache_process_id(fleet: Fleet) -> int:
    assert fleet.stack.cache.child is not None
    return fleet.stack.cache.child.process.pid


@contextmanager
def deny_pubsub(fleet: Fleet) -> Iterator[None]:
    """Let the cache's server refuse every channel; it disconnects those who listen."""
    with redis.Redis.from_url(fleet.stack.cache.url) as connection:
        connection.execute_command("ACL", "SETUSER", "default", "resetchannels")
        try:
            connection.publish("byok:probe", "")
        except redis.exceptions.NoPermissionError:
            pass
        else:
            raise RuntimeError("the cache's server still lets us publish")
        try:
            yield
        finally:
            connection.execute_command("ACL", "SETUSER", "default", "allchannels")


@contextmanager
def kill_cache(fleet: Fleet) -> Iterator[None]:
    """Kill the cache's server; at the end there is an empty one."""
    child = fleet.stack.cache.child
    assert child is not None
    os.kill(_cache_process_id(fleet), signal.SIGKILL)
    child.process.wait()
    fleet.stack.supervisor.stop([child])
    try:
        yield
    finally:
        fleet.stack.cache.start()
        fleet.stack.cache.wait()


@contextmanager
def freeze_cache(fleet: Fleet) -> Iterator[None]:
    """Let the cache's server take connections and answer nothing."""
    process_id = _cache_process_id(fleet)
    os.kill(process_id, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process_id, signal.SIGCONT)


@dataclass(frozen=True)
class Case:
    """What is broken, and what it leaves of the ways by which a stop reaches a process."""

    name: str
    fault: Callable[[Fleet], AbstractContextManager[None]]
    is_pushed: bool = True
    is_probed: bool = True
    ttl_seconds: float = TTL_SECONDS

    @property
    def bound_seconds(self) -> float:
        """How soon all services must have stopped: the bound that byok declares."""
        ttl = timedelta(seconds=self.ttl_seconds)
        period = probe_period(timedelta(seconds=PROBE_SECONDS), [ttl])
        bound = revocation_bound(ttl, period, timedelta(seconds=RECHECK_SECONDS))
        declared = bound.pushed if self.is_pushed else bound.polled
        return (declared if self.is_probed else bound.unprobed).total_seconds()


def _no_fault(_: Fleet) -> AbstractContextManager[None]:
    return nullcontext()


CASES = {
    case.name: case
    for case in (
        Case("push", _no_fault),
        Case("push-lost", deny_pubsub, is_pushed=False),
        Case("redis-down", kill_cache, is_pushed=False),
        Case("redis-hangs", freeze_cache, is_pushed=False),
        Case("worker-down", _no_fault, is_probed=False, ttl_seconds=SHORT_TTL_SECONDS),
    )
}


# --- measuring ------------------------------------------------------------------------------------


def measure(case: str, *, processes: int = PROCESSES) -> Result:
    """Measure one case on a stack of its own."""
    with running_fleet() as fleet:
        return measure_on(fleet, CASES[case], processes)


def measure_on(fleet: Fleet, case: Case, processes: int) -> Result:
    """Measure one case with a customer and services of its own."""
    if case.is_probed:
        fleet.start_workers()
    else:
        fleet.stop_workers()
    customer = join(fleet.stack, fleet.runtime, f"t-{uuid4().hex[:8]}")
    add_key(fleet.runtime, customer.name, KEY, timedelta(seconds=case.ttl_seconds))
    with fleet.services(customer.name, processes) as services:
        fleet.wait_for_decrypt(customer)
        fleet.wait_for_service(services, now_seconds() + STRAGGLERS_SECONDS)
        time_zero_seconds = _disable_key(fleet, case, customer, services)
        fleet.stop_services(services)
        judged = tuple(judge(_whole_account(service), time_zero_seconds) for service in services)
    (report,) = fleet.runtime.services.kill_switch.reports(customer.tenant)
    return Result(
        case.name,
        case.bound_seconds,
        judged,
        members=len(report.acknowledgements),
        answered=report.answered,
        told_seconds=report.latency.total_seconds(),
    )


def _whole_account(service: Service) -> Account:
    account = service.account()
    if not account.is_complete:
        raise RuntimeError(f"{service.child.name} gave no account of its end: {service.child.log_tail()}")
    return account


def _disable_key(fleet: Fleet, case: Case, customer: Customer, services: Sequence[Service]) -> float:
    """Break, disable, look on, mend, look on; return time 0."""
    with case.fault(fleet):
        customer.account.disable_key(customer.kms_key)
        time_zero_seconds = now_seconds()
        fleet.came_true(
            lambda: all(service.fails() for service in services), case.bound_seconds + GRACE_SECONDS
        )
        time.sleep(SETTLE_SECONDS)
    time.sleep(AFTERMATH_SECONDS)
    return time_zero_seconds


# --- telling --------------------------------------------------------------------------------------


def to_table(results: Sequence[Result]) -> Table:
    """The results for people."""
    table = Table(title="from DisableKey to the last process that serves plaintext", title_justify="left")
    table.add_column("case")
    for column in ("processes", "first (s)", "median (s)", "last (s)", "bound (s)"):
        table.add_column(column, justify="right")
    table.add_column("answered", justify="right")
    table.add_column("told (ms)", justify="right")
    table.add_column("verdict")
    table.add_column("served again", justify="right")
    table.add_column("error codes")
    for result in results:
        seconds = result.stopped_seconds
        figures = (seconds[0], statistics.median(seconds), seconds[-1], result.bound_seconds)
        table.add_row(
            result.case,
            str(len(seconds)),
            *(f"{figure:.2f}" for figure in figures),
            f"{result.answered} of {result.members}",
            f"{1000 * result.told_seconds:.0f}",
            "within" if result.is_within else "BEYOND",
            str(result.served_again),
            ", ".join(result.codes),
        )
    return table


def to_json(results: Sequence[Result]) -> str:
    """The results for programs."""
    derived = [
        {
            **asdict(result),
            "first_seconds": result.stopped_seconds[0],
            "median_seconds": statistics.median(result.stopped_seconds),
            "last_seconds": result.stopped_seconds[-1],
            "verdict": "within" if result.is_within else "BEYOND",
            "served_again": result.served_again,
            "codes": result.codes,
        }
        for result in results
    ]
    return json.dumps(derived, indent=2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", action="append", choices=CASES, help="may be repeated; default: all")
    parser.add_argument("--processes", type=int, default=PROCESSES)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.processes < 1:
        parser.error("--processes: at least 1")
    results: list[Result] = []
    try:
        with stop_signals(), running_fleet() as fleet:
            for name in arguments.case or CASES:
                with Console(stderr=True).status(f"{name} …"):
                    results.append(measure_on(fleet, CASES[name], arguments.processes))
    except KeyboardInterrupt:
        return 130
    if arguments.json:
        print(to_json(results))
    else:
        Console(width=140).print(to_table(results))
    return 0 if all(result.passed for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
