"""One dispatcher and a million keys that are all due: keys claimed, recorded and published per second.

    python -m benchmarks.dispatch                  # three minutes; --json in place of the table
    python -m benchmarks.dispatch --keys 100000

Real PostgreSQL (4 GB of buffers) and Valkey of the embedded stack, durable commits, the services as a worker
builds them, in this one process. No worker takes the rotations, so the window is opened to as many keys as
there are. A claim is two statements, the look at a page of due keys and the lock of those there is room for,
as PostgreSQL times them (parse, bind, execute) while it shares the cores with the dispatcher.
"""

import argparse
import json
import re
import statistics
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

from benchmarks.bulk import load
from benchmarks.rotation_usage import cpu_seconds
from byok.embedded.stack import Stack
from byok.queue import SCHEDULED_QUEUE
from byok.settings import load_settings, use_environment
from byok.store import migrate
from byok.store.postgres import create_engine
from workers.app import make_app
from workers.base import runtime_of

# How the two statements of a claim begin, and what PostgreSQL writes of each step of them.
_LOOK, _LOCK = "SELECT anon_1.next_rotation_at", "SELECT keys.id, keys.tenant_id, (SELECT"
_TIMED = re.compile(
    rf"\[(\d+)\] LOG:  duration: ([\d.]+) ms  (parse|bind|execute) [^:]*: "
    rf"({re.escape(_LOOK)}|{re.escape(_LOCK)})"
)
# A sixth of the memory of the machine that the figures are from.
_LARGE = ("shared_buffers=4GB", "max_wal_size=8GB", "wal_compression=on")
progress = Console(stderr=True)


@dataclass(frozen=True)
class Result:
    """What one run did. Times of claims in milliseconds, CPU in microseconds a key."""

    keys: int
    dispatched: int
    seconds: float
    keys_per_second: float
    claims: int
    claim_median_ms: float
    claim_p99_ms: float
    claim_longest_ms: float
    own_cpu_us: float
    postgres_cpu_us: float
    valkey_cpu_us: float
    statements_per_1000_keys: float
    messages: int


class Statements:
    """Counts the statements of an engine, and has PostgreSQL write down how long each takes."""

    def __init__(self, engine: sa.Engine) -> None:
        self.count = 0
        sa.event.listen(engine, "before_cursor_execute", self._note)
        sa.event.listen(engine, "connect", self._have_timed)

    def _note(self, *_: object) -> None:
        self.count += 1

    def _have_timed(self, connection: "psycopg.Connection[Any]", _record: object) -> None:
        connection.execute("SET log_min_duration_statement = 0")
        connection.execute("SET log_parameter_max_length = 0")
        connection.commit()


def claims_ms(log: Path) -> list[float]:
    """What each claim took, as PostgreSQL wrote it down: looks at pages and locks, each in order."""
    took: defaultdict[tuple[str, str], float] = defaultdict(float)
    looks: list[float] = []
    locks: list[float] = []
    for backend, ms, step, statement in _TIMED.findall(log.read_text(errors="replace")):
        took[backend, statement] += float(ms)
        if step == "execute":
            (looks if statement == _LOOK else locks).append(took.pop((backend, statement)))
    return sorted(look + lock for look, lock in zip(looks, locks, strict=False))


def grow(home: Path, keys: int, keys_per_tenant: int) -> int:
    """Load a fleet into a new stack; how many keys are due."""
    with Stack(home) as stack:
        engine = create_engine(stack.environment["BYOK_DATABASE_URL"], 2)
        migrate.upgrade(engine)
        loaded = load(engine, keys=keys, keys_per_tenant=keys_per_tenant, due_share=1.0)
        engine.dispose()
    return loaded.due


def run(keys: int, keys_per_tenant: int) -> Result:
    """Load a fleet, let one dispatcher loose on it."""
    with tempfile.TemporaryDirectory() as folder:
        with progress.status(f"loading {keys:,} keys"):
            due = grow(Path(folder), keys, keys_per_tenant)
        with (
            Stack(Path(folder), postgres_settings=_LARGE) as stack,
            progress.status(f"dispatching {due:,} due keys"),
        ):
            return dispatch(stack, keys)


def dispatch(stack: Stack, keys: int) -> Result:
    """Have all that is due dispatched."""
    use_environment(stack.environment | {"BYOK_ROTATIONS_IN_FLIGHT": str(20 * keys)})
    runtime = runtime_of(make_app(load_settings()))
    statements = Statements(runtime.engine)
    assert stack.postgres.child is not None
    assert stack.broker.child is not None
    postgres_pid, valkey_pid = stack.postgres.child.process.pid, stack.broker.child.process.pid
    postgres, valkey = cpu_seconds(postgres_pid), cpu_seconds(valkey_pid)
    own, began = time.process_time(), time.perf_counter()
    dispatched = sum(iter(runtime.services.scheduling.dispatch_due, 0))
    seconds = time.perf_counter() - began
    claims = claims_ms(stack.home.log_folder / "postgres.log")
    result = Result(
        keys=keys,
        dispatched=dispatched,
        seconds=seconds,
        keys_per_second=dispatched / seconds,
        claims=len(claims),
        claim_median_ms=statistics.median(claims),
        claim_p99_ms=statistics.quantiles(claims, n=100)[98],
        claim_longest_ms=claims[-1],
        own_cpu_us=(time.process_time() - own) / dispatched * 1e6,
        postgres_cpu_us=(cpu_seconds(postgres_pid) - postgres) / dispatched * 1e6,
        valkey_cpu_us=(cpu_seconds(valkey_pid) - valkey) / dispatched * 1e6,
        statements_per_1000_keys=statements.count / dispatched * 1000,
        messages=runtime.queue.depths()[SCHEDULED_QUEUE],
    )
    runtime.close()
    return result


def print_table(result: Result) -> None:
    """For people."""
    table = Table("one dispatcher", "", "target", title=f"{result.keys:,} keys, {result.dispatched:,} due")
    table.add_row("claimed, recorded and published", f"{result.keys_per_second:,.0f} keys/s", "10,000")
    table.add_row("in all", f"{result.seconds:.1f} s")
    table.add_row(f"claim of up to 500 keys, median of {result.claims:,}", f"{result.claim_median_ms:.1f} ms")
    table.add_row("claim, p99", f"{result.claim_p99_ms:.1f} ms", "20 ms")
    table.add_row("claim, longest", f"{result.claim_longest_ms:.1f} ms")
    table.add_row("CPU of the dispatcher", f"{result.own_cpu_us:.0f} µs a key")
    table.add_row("CPU of PostgreSQL", f"{result.postgres_cpu_us:.0f} µs a key")
    table.add_row("CPU of Valkey", f"{result.valkey_cpu_us:.1f} µs a key")
    table.add_row("SQL statements", f"{result.statements_per_1000_keys:.1f} for 1,000 keys")
    table.add_row("messages", f"{result.messages:,}")
    Console().print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--keys-per-tenant", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    outcome = run(options.keys, options.keys_per_tenant)
    if options.json:
        print(json.dumps(asdict(outcome), indent=1))
    else:
        print_table(outcome)
