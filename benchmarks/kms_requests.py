"""How often does each library ask KMS? 8 processes × 50 tenants × 200 encryptions within one TTL, then reads.

    python -m benchmarks.kms_requests  # a minute; --json in place of the table
    python -m venv PEERS && PEERS/bin/pip install 'aws-encryption-sdk[MPL]'
    python -m benchmarks.kms_requests --peer-python PEERS/bin/python  # hierarchical too: 9 minutes of CPU

The same simulated KMS on loopback counts for all, and each tenant has equivalent KMS keys, in an AWS account
of its own. The processes are real and start together on empty caches, all tenants in the same order, so that
they miss at the same moment. Then every process reads, for every tenant, one value of every other process,
and then more of each: the cost of a read depends on how many values lie under one data key.

- byok: `byok.connect()` in each process. Before the start the shared cache is flushed, since making a key
  warms it. Target: one request a tenant for the whole fleet.
- AWS Encryption SDK with a caching materials manager for each process and tenant, unsigned suite, limits that
  don't expire in the run, a fixed encryption context a tenant: under one for each value it never hits.
- AWS Encryption SDK with the hierarchical keyring: a branch key a tenant, key store in simulated DynamoDB.
  Its packages want an older pytz than this project's pins, so it has an environment of its own.

Counted are requests to KMS, answered or refused. Requests to STS are told apart.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import redis
from rich.console import Console
from rich.table import Table

from benchmarks.kms_requests_worker import Tenant
from byok.core import policies
from byok.embedded.stack import Stack
from byok.settings import child_environment, load_settings, use_environment
from byok.simulator import ADMIN_ACCESS_KEY_PREFIX, VENDOR_ACCOUNT_ID, VENDOR_ROLE_ARN
from byok.simulator.control import SimulatorControl
from byok.store import migrate
from byok.wiring import build
from tests.customers import Customer, add_key, join

STS = frozenset({"AssumeRole", "GetCallerIdentity"})
HEAD_START_SECONDS = 0.3  # from the order to the common start
PEER_ENVIRONMENT = (
    "pip install 'aws-encryption-sdk[MPL]' into an environment of its own, name it by --peer-python"
)
SYSTEMS = {"byok": "byok", "caching-cmm": "AWS caching CMM", "hierarchical": "AWS hierarchical keyring"}
TO_INSTALL = {"caching-cmm": "pip install 'byok[bench]'", "hierarchical": PEER_ENVIRONMENT}
console = Console()
progress = Console(stderr=True)


class NotInstalled(Exception):
    """The environment lacks a package of the system that is asked for."""


@dataclass(frozen=True)
class Scale:
    """How much is done: ``reads`` values of every other process by each process, for each tenant."""

    processes: int
    tenants: int
    encryptions: int
    reads: int


@dataclass(frozen=True)
class Count:
    """Operations of all processes in one phase, and what they asked of KMS and STS."""

    operations: int
    kms_requests: int
    kms_requests_by_operation: dict[str, int]
    sts_requests: int

    @property
    def per_ten_thousand(self) -> float:
        return self.kms_requests / self.operations * 10_000

    def __add__(self, other: Self) -> "Count":
        by_operation = Counter(self.kms_requests_by_operation) + Counter(other.kms_requests_by_operation)
        return Count(
            self.operations + other.operations,
            self.kms_requests + other.kms_requests,
            dict(by_operation),
            self.sts_requests + other.sts_requests,
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"per_10000": round(self.per_ten_thousand, 2)}


@dataclass(frozen=True)
class Result:
    """Of one system: ``first_reads`` is a part of ``reads``."""

    system: str
    encryptions: Count | None = None
    first_reads: Count | None = None
    reads: Count | None = None
    not_measured: str | None = None

    def counts(self) -> list[Count]:
        return [one for one in (self.encryptions, self.first_reads, self.reads) if one is not None]

    def to_json(self) -> dict[str, Any]:
        if self.not_measured is not None:
            return {"system": self.system, "not_measured": self.not_measured}
        names = ("encryptions", "first_reads", "reads")
        counted = {name: one.to_json() for name, one in zip(names, self.counts(), strict=True)}
        return {"system": self.system, **counted}


class WorkerProcess:
    """A process of `benchmarks.kms_requests_worker`."""

    def __init__(self, python: str, system: str, environment: dict[str, str]) -> None:
        self._popen = subprocess.Popen(
            [python, "-m", "benchmarks.kms_requests_worker", system],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._orders, self._replies = self._popen.stdin, self._popen.stdout

    def order(self, do: str, **details: object) -> None:
        self._orders.write(json.dumps({"do": do, **details}) + "\n")
        self._orders.flush()

    def reply(self) -> dict[str, Any]:
        line = self._replies.readline()
        if not line:
            raise SystemExit(f"a process ended with exit code {self._popen.wait()}; its error is above")
        reply: dict[str, Any] = json.loads(line)
        if "missing" in reply:
            raise NotInstalled(reply["missing"])
        return reply

    def end(self) -> None:
        self._popen.kill()
        self._popen.wait()


class Fleet:
    """The processes of one system, which start each phase together."""

    def __init__(self, python: str, system: str, scale: Scale, stack: Stack) -> None:
        self._scale = scale
        self._simulator = SimulatorControl(stack.simulator.url)
        self._folder = tempfile.TemporaryDirectory()
        environment = child_environment(environment_of(stack))
        self._workers = [WorkerProcess(python, system, environment) for _ in range(scale.processes)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.end()
        self._folder.cleanup()

    def wait(self) -> None:
        """Wait until all have imported what they need.

        Raises:
            NotInstalled.
        """
        for worker in self._workers:
            worker.reply()

    def create_branch_keys(self, kms_key_arns: list[str]) -> list[str]:
        self._workers[0].order("create-branch-keys", kms_key_arns=kms_key_arns)
        ids: list[str] = self._workers[0].reply()["branch_key_ids"]
        return ids

    def open(self, tenants: list[Tenant]) -> None:
        for number, worker in enumerate(self._workers):
            worker.order(
                "open",
                number=number,
                processes=self._scale.processes,
                encryptions=self._scale.encryptions,
                kept=self._scale.reads,
                folder=self._folder.name,
                tenants=[asdict(tenant) for tenant in tenants],
            )
        for worker in self._workers:
            worker.reply()

    def run(self, do: str, **details: object) -> Count:
        """Let all processes do a phase at once, and count."""
        self._simulator.forget_calls()
        at = time.monotonic() + HEAD_START_SECONDS  # one clock for all processes of a machine
        for worker in self._workers:
            worker.order(do, at_monotonic_seconds=at, **details)
        operations = sum(worker.reply()["operations"] for worker in self._workers)
        asked = Counter(call["operation"] for call in self._simulator.calls())
        kms = {operation: count for operation, count in asked.items() if operation not in STS}
        return Count(operations, sum(kms.values()), kms, asked.total() - sum(kms.values()))


class Benchmark:
    """The stack with its tenants: each has a KMS key for byok, and one for each peer."""

    def __init__(self, stack: Stack, scale: Scale, peer_python: str) -> None:
        self._stack, self._scale, self._peer_python = stack, scale, peer_python
        with progress.status(f"{scale.tenants} customers …"):
            self._customers = self._join_customers()

    def _join_customers(self) -> list[Customer]:
        runtime = build(load_settings())
        migrate.upgrade(runtime.engine)
        customers = [
            join(self._stack, runtime, f"tenant-{number:03d}") for number in range(self._scale.tenants)
        ]
        for customer in customers:
            add_key(runtime, customer.name)
        runtime.close()
        return customers

    def measure(self, system: str) -> Result:
        python = self._peer_python if system == "hierarchical" else sys.executable
        with Fleet(python, system, self._scale, self._stack) as fleet:
            try:
                fleet.wait()
            except NotInstalled as missing:
                return Result(system, not_measured=f"no module {missing}; {TO_INSTALL[system]}")
            fleet.open(self._tenants(system, fleet))
            with redis.Redis.from_url(self._stack.cache.url) as cache:
                cache.flushall()
            with progress.status(f"{SYSTEMS[system]}: encryptions …"):
                encryptions = fleet.run("encrypt")
            with progress.status(f"{SYSTEMS[system]}: decryptions …"):
                first = fleet.run("decrypt", start=0, stop=1)
                further = fleet.run("decrypt", start=1, stop=self._scale.reads)
        return Result(system, encryptions, first, first + further)

    def _tenants(self, system: str, fleet: Fleet) -> list[Tenant]:
        if system == "byok":
            return [Tenant(customer.name, customer.kms_key) for customer in self._customers]
        keys = [create_peer_key(customer) for customer in self._customers]
        branches = fleet.create_branch_keys(keys) if system == "hierarchical" else [""] * len(keys)
        return [
            Tenant(customer.name, key, branch)
            for customer, key, branch in zip(self._customers, keys, branches, strict=True)
        ]


def create_peer_key(customer: Customer) -> str:
    """A KMS key in the customer's account whose policy lets the vendor's worker role in."""
    vendor = {"Effect": "Allow", "Principal": {"AWS": VENDOR_ROLE_ARN}, "Action": "kms:*", "Resource": "*"}
    return customer.account.create_key(policies.whole_key_policy(customer.account.account_id, [vendor]))


def environment_of(stack: Stack) -> dict[str, str]:
    """Where byok and the peers find their servers."""
    return stack.environment | {
        "AWS_ENDPOINT_URL_KMS": stack.simulator.url,
        "AWS_ENDPOINT_URL_DYNAMODB": stack.simulator.url,
        "KEY_STORE_ACCESS_KEY_ID": ADMIN_ACCESS_KEY_PREFIX + VENDOR_ACCOUNT_ID,
    }


def table_of(results: list[Result], scale: Scale) -> Table:
    table = Table(
        title=f"KMS requests of {scale.processes} processes × {scale.tenants} tenants, within one TTL",
        title_justify="left",
    )
    table.add_column("system")
    for column in ("operation", "operations", "KMS requests", "per 10,000"):
        table.add_column(column, justify="left" if column == "operation" else "right")
    phases = ("encrypt", "decrypt, 1 each", f"decrypt, {scale.reads} each")
    for result in results:
        if result.not_measured is not None:
            table.add_row(SYSTEMS[result.system], "not measured here", "–", "–", "–", end_section=True)
        for phase, one in zip(phases, result.counts(), strict=False):
            name = SYSTEMS[result.system] if phase == "encrypt" else ""
            figures = (f"{one.operations:,}", f"{one.kms_requests:,}", rate(one))
            table.add_row(name, phase, *figures, end_section=phase == phases[-1])
    return table


def rate(count: Count) -> str:
    return f"{count.per_ten_thousand:,.2f}".removesuffix(".00")


def print_results(results: list[Result], scale: Scale) -> None:
    console.print(table_of(results, scale))
    console.print("n each: every process reads n values of every other process for each tenant")
    for result in results:
        name = SYSTEMS[result.system]
        if result.not_measured is not None:
            console.print(f"{name}: not measured here: {result.not_measured}", markup=False)
        elif sessions := sum(one.sts_requests for one in (result.encryptions, result.reads) if one):
            console.print(f"{name}: besides, {sessions} requests to STS for sessions")
    written = scale.processes * scale.tenants * scale.encryptions
    target = scale.tenants / written * 10_000
    console.print(f"target for byok: {scale.tenants} to encrypt, {target:,.2f} per 10,000; 0 to decrypt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--tenants", type=int, default=50)
    parser.add_argument("--encryptions", type=int, default=200, help="of each process, for each tenant")
    parser.add_argument("--reads", type=int, default=5, help="values of each other process that each reads")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--peer-python", default=sys.executable, help="has the hierarchical keyring")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    arguments = parser.parse_args()
    scale = Scale(arguments.processes, arguments.tenants, arguments.encryptions, arguments.reads)
    if scale.processes < 2 or scale.encryptions % scale.reads:
        parser.error("--processes is at least 2, and --reads divides --encryptions")
    if shutil.which(arguments.peer_python) is None:
        parser.error(f"--peer-python: no program {arguments.peer_python}")
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder) / "home", durable=False) as stack:
        use_environment(stack.environment)
        benchmark = Benchmark(stack, scale, arguments.peer_python)
        results = [benchmark.measure(system) for system in arguments.systems]
    if arguments.json:
        print(json.dumps({"scale": asdict(scale), "results": [one.to_json() for one in results]}, indent=2))
    else:
        print_results(results, scale)


if __name__ == "__main__":
    main()
