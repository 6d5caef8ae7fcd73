"""byok at a thousand and at a million keys: what each query costs, by which plan, and how large it all gets.

    python -m benchmarks.scale                          # 1k, 10k, 100k, 1M keys: ten minutes, 6 GB of disk
    python -m benchmarks.scale --sizes 1000,10000       # a minute
    python -m benchmarks.scale --json > scale.json

Each query is the code's own, as it runs in production, on the embedded PostgreSQL. How it grows is told by
the pages that it touches, which no noise of the machine changes: the exponent e of pages ~ keys^e.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

from benchmarks.bulk import Loaded, add_chain, load
from benchmarks.scale_queries import ACTIONS, Cost, measure
from benchmarks.scale_sizes import Relation, bytes_per_rotation, relations
from byok.embedded.stack import Stack
from byok.services.overview import Observer
from byok.store import migrate, schema
from byok.store.postgres import PostgresStore, create_engine
from tests.world import PERIODS

# Enough for a whole batch of the dispatcher at any size, and no more at a large one: a fleet that keeps up.
_DUE_KEYS = 200
_FLAT, _LOGARITHMIC = 0.15, 0.4  # the largest exponents that still count as such
_MIB = 2**20
console = Console(width=150)


@dataclass(frozen=True, slots=True)
class Verification:
    """Of one chain: events, time, and the process's memory before and at most."""

    events: int
    seconds: float
    before_bytes: int
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class Measured:
    """One size of fleet."""

    loaded: Loaded
    load_seconds: float
    status_milliseconds: float
    costs: Mapping[str, Cost]
    relations: Sequence[Relation]
    verification: Verification


def measure_size(engine: sa.Engine, environment: Mapping[str, str], keys: int, per_tenant: int) -> Measured:
    """Load a fleet in place of the one that is there, and measure it."""
    with engine.begin() as connection:
        names = ", ".join(table.name for table in schema.metadata.sorted_tables)
        connection.execute(sa.text(f"TRUNCATE {names}"))
    began = time.perf_counter()
    loaded = load(engine, keys=keys, keys_per_tenant=per_tenant, due_share=_DUE_KEYS / keys)
    load_seconds = time.perf_counter() - began
    found = relations(engine)
    costs = measure(engine)
    store = PostgresStore(engine)
    observer = Observer(store, store, PERIODS)
    observer.overview()
    began = time.perf_counter()
    observer.overview()
    status_milliseconds = (time.perf_counter() - began) * 1000
    add_chain(engine, "one-long-chain", keys)
    return Measured(loaded, load_seconds, status_milliseconds, costs, found, _verify(environment))


def _verify(environment: Mapping[str, str]) -> Verification:
    command = [sys.executable, "-m", "benchmarks.scale_audit", "one-long-chain"]
    output = subprocess.run(command, env=dict(environment), capture_output=True, check=True, text=True).stdout
    return Verification(**json.loads(output))


def exponent(sizes: Sequence[int], values: Sequence[float]) -> float:
    """The slope of a straight line through the logarithms, by least squares."""
    xs, ys = [math.log(size) for size in sizes], [math.log(max(value, 1)) for value in values]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    return sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread if spread else 0.0


def verdict(exponent: float) -> str:
    if exponent <= _FLAT:
        return "flat"
    return "log" if exponent <= _LOGARITHMIC else "[red]linear[/]"


def show_costs(measured: Mapping[int, Measured]) -> Table:
    """Time and pages of each query; the exponent counts from the second size on, if there are three."""
    table = Table(title="queries: median ms, pages touched", title_justify="left")
    table.add_column("what")
    for size in measured:
        table.add_column(f"{size:,} keys", justify="right")
    table.add_column("e", justify="right")
    table.add_column("verdict")
    sizes = list(measured)[1:] if len(measured) > 2 else list(measured)
    for name in ACTIONS:
        costs = [one.costs[name] for one in measured.values()]
        grows = exponent(sizes, [measured[size].costs[name].pages for size in sizes])
        cells = [f"{cost.milliseconds:.1f} ms, {cost.pages:,}" for cost in costs]
        table.add_row(name, *cells, f"{grows:.2f}", verdict(grows))
    whole = [f"{one.status_milliseconds:.0f} ms" for one in measured.values()]
    table.add_row("byok status, the whole overview", *whole, "", "")
    return table


def show_plans(measured: Measured) -> Table:
    table = Table(title=f"plans at {measured.loaded.keys:,} keys", title_justify="left", show_lines=True)
    table.add_column("what")
    table.add_column("scans and sorts")
    for name, cost in measured.costs.items():
        table.add_row(name, ", ".join(cost.scans))
    return table


def show_sizes(measured: Mapping[int, Measured]) -> Table:
    """Every table and index, in MiB."""
    largest = list(measured.values())[-1]
    table = Table(title="sizes in MiB", title_justify="left")
    table.add_column("what")
    for size in measured:
        table.add_column(f"{size:,} keys", justify="right")
    table.add_column("bytes a row", justify="right")
    for relation in largest.relations:
        found = [_find(one.relations, relation.name) for one in measured.values()]
        cells = [f"{one.table_bytes / _MIB:,.1f}" if one else "" for one in found]
        table.add_row(f"[bold]{relation.name}[/]", *cells, f"{relation.bytes_per_row:,.0f} with indexes")
        for index in sorted(relation.index_bytes):
            cells = [f"{one.index_bytes.get(index, 0) / _MIB:,.1f}" if one else "" for one in found]
            table.add_row(f"  {index}", *cells, f"{relation.index_bytes[index] / max(relation.rows, 1):,.0f}")
    return table


def _find(found: Sequence[Relation], name: str) -> Relation | None:
    return next((relation for relation in found if relation.name == name), None)


def show_rest(measured: Mapping[int, Measured]) -> Table:
    """Loading, verification of a chain, and bytes by key and by rotation."""
    table = Table(title="the rest", title_justify="left")
    table.add_column("what")
    for size in measured:
        table.add_column(f"{size:,} keys", justify="right")
    every = list(measured.values())
    chains = [one.verification for one in every]
    table.add_row("loading them", *(f"{one.load_seconds:.0f} s" for one in every))
    table.add_row("audit chain of as many events: verified in", *(f"{one.seconds:.1f} s" for one in chains))
    table.add_row("  peak memory of that process", *(f"{one.peak_bytes / _MIB:.0f} MiB" for one in chains))
    table.add_row("  of it before", *(f"{one.before_bytes / _MIB:.0f} MiB" for one in chains))
    totals = [sum(relation.total_bytes for relation in one.relations) for one in every]
    table.add_row("all tables and indexes", *(f"{total / _MIB:,.0f} MiB" for total in totals))
    per_key = [f"{total / one.loaded.keys:,.0f} B" for one, total in zip(every, totals, strict=True)]
    table.add_row("  for each key, its first rotation included", *per_key)
    rotations = [f"{bytes_per_rotation(list(one.relations)):,.0f} B" for one in every]
    table.add_row("  what each rotation adds for ever", *rotations)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="1000,10000,100000,1000000", help="numbers of keys, ascending")
    parser.add_argument("--keys-per-tenant", type=int, default=20)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    arguments = parser.parse_args()
    measured: dict[int, Measured] = {}
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder) / "home", durable=False) as stack:
        engine = create_engine(stack.environment["BYOK_DATABASE_URL"], 2)
        migrate.upgrade(engine)
        for size in map(int, arguments.sizes.split(",")):
            measured[size] = measure_size(engine, stack.environment, size, arguments.keys_per_tenant)
            print(f"{size:,} keys measured", file=sys.stderr)
        engine.dispose()
    if arguments.json:
        print(json.dumps({size: asdict(one) for size, one in measured.items()}, indent=2))
        return
    for table in (show_costs(measured), show_plans(list(measured.values())[-1]), show_sizes(measured)):
        console.print(table)
    console.print(show_rest(measured))


if __name__ == "__main__":
    main()
