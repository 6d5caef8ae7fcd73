"""Which of Celery's pools for work that waits for KMS: processes or threads, and how many?

    python -m benchmarks.pools                               # half an hour
    python -m benchmarks.pools --pools threads:8 processes:8 --latency-ms 10
    python -m benchmarks.pools --pools threads:16 --no-events
    python -m benchmarks.pools --pools threads:16 --prefetch 4

Each candidate is a real worker on the embedded stack that rotates the same number of due keys, task events on
as in production. One after the other, the other way round in each second round; medians are shown. The KMS
stub answers after 0, 10 and 50 ms: real KMS takes 5 to 50. Each tenant has one key by default, so that the
limit of a tenant's calls (`BYOK_TENANT_KMS_CALLS`) defers none. Memory is of all processes of a worker: RSS
counts shared pages in each, PSS once.

gevent and eventlet are not measured: see ADR 25.
"""

import argparse
import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.kms_process import KmsProcess
from benchmarks.rotation_usage import Memory, Round
from benchmarks.rotation_world import RotationWorld
from byok.embedded.stack import Stack

POOLS = (
    "processes:2",
    "processes:8",
    "processes:16",
    "threads:4",
    "threads:8",
    "threads:16",
    "threads:32",
    "threads:64",
)
console, progress = Console(width=110), Console(stderr=True)


@dataclass(frozen=True)
class Pool:
    """``kind`` as Celery's ``--pool`` has it; ``processes`` is prefork."""

    kind: str
    concurrency: int

    @classmethod
    def parse(cls, text: str) -> "Pool":
        kind, _, concurrency = text.partition(":")
        return cls(kind, int(concurrency))

    def __str__(self) -> str:
        return f"{'prefork' if self.kind == 'processes' else self.kind} {self.concurrency}"

    @property
    def database_pool_size(self) -> int:
        """Per process: one for each thread, and two for the worker's own threads."""
        return 2 + (self.concurrency if self.kind == "threads" else 1)


@dataclass(frozen=True)
class Measured:
    """One round of one pool."""

    pool: Pool
    latency_ms: float
    round: Round
    memory: Memory
    connections: int

    def to_json(self) -> dict[str, Any]:
        return {
            "pool": str(self.pool),
            "latency_ms": self.latency_ms,
            "round": self.round.to_json(),
            "memory": asdict(self.memory),
            "connections": self.connections,
        }


def measure(
    world: RotationWorld, pool: Pool, latencies_ms: Sequence[float], arguments: argparse.Namespace
) -> list[Measured]:
    """A worker of its own, warmed up, once at each latency."""
    world.add_keys(arguments.tenants, arguments.keys)
    options = ["--pool", pool.kind, "--concurrency", str(pool.concurrency)]
    options += ["--prefetch-multiplier", str(arguments.prefetch)]
    settings = dict(pair.split("=", 1) for pair in arguments.set)
    world.start_worker(
        pool.concurrency,
        options=options,
        environment={"BYOK_DATABASE_POOL_SIZE": str(pool.database_pool_size), **settings},
        application="workers" if arguments.events else "benchmarks.eventless_app",
    )
    world.kms.set_latency(0)
    world.rotate_all()  # first versions: connections, sessions and clients are there from then on
    measured = []
    for latency_ms in latencies_ms:
        world.kms.set_latency(latency_ms)
        done = world.rotate_all()
        measured.append(Measured(pool, latency_ms, done, world.memory(), world.connections()))
    world.stop_worker()
    return measured


def table_of(measured: Sequence[Measured], arguments: argparse.Namespace) -> Table:
    events = "on" if arguments.events else "off"
    title = f"{arguments.keys:,} due keys of {arguments.tenants:,} tenants"
    title += f"; task events {events}, prefetch {arguments.prefetch}"
    table = Table(title=title, title_justify="left")
    table.add_column("KMS")
    table.add_column("pool")
    for column in ("rotations/s", "CPU-ms each", "RSS MiB", "PSS MiB", "connections", "deferred"):
        table.add_column(column, justify="right")
    grouped: dict[tuple[float, Pool], list[Measured]] = defaultdict(list)
    for one in measured:
        grouped[one.latency_ms, one.pool].append(one)
    shown: float | None = None
    for (latency_ms, pool), rounds in sorted(grouped.items(), key=lambda pair: pair[0][0]):
        if shown is not None and shown != latency_ms:
            table.add_section()
        table.add_row(
            f"{latency_ms:g} ms" if shown != latency_ms else "",
            str(pool),
            f"{statistics.median(one.round.per_second for one in rounds):,.0f}",
            f"{statistics.median(one.round.cpu_ms('worker') for one in rounds):.1f}",
            f"{max(one.memory.rss_mib for one in rounds):,.0f}",
            f"{max(one.memory.pss_mib for one in rounds):,.0f}",
            str(max(one.connections for one in rounds)),
            str(max(one.round.deferrals for one in rounds)),
        )
        shown = latency_ms
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pools", nargs="+", default=POOLS, metavar="KIND:CONCURRENCY")
    parser.add_argument("--latency-ms", type=float, nargs="+", default=[0.0, 10.0, 50.0])
    parser.add_argument("--keys", type=int, default=1000)
    parser.add_argument("--tenants", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--prefetch", type=int, default=1, help="messages that a thread or process has in store"
    )
    parser.add_argument("--events", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="the worker's environment")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    arguments = parser.parse_args()
    arguments.tenants = min(arguments.tenants, arguments.keys)
    pools = [Pool.parse(text) for text in arguments.pools]
    measured: list[Measured] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        Stack(Path(folder) / "home", durable=False) as stack,
        RotationWorld(stack, KmsProcess(stack)) as world,
    ):
        for number in range(arguments.rounds):
            for pool in pools if number % 2 == 0 else reversed(pools):
                with progress.status(f"round {number + 1}: {pool} …"):
                    measured += measure(world, pool, arguments.latency_ms, arguments)
    measured.sort(key=lambda one: pools.index(one.pool))
    if arguments.json:
        print(json.dumps([one.to_json() for one in measured], indent=2))
    else:
        console.print(table_of(measured, arguments))


if __name__ == "__main__":
    main()
