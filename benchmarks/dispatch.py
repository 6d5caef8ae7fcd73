"""One dispatcher and a million keys that are all due: keys claimed, recorded and published per second.

    python -m benchmarks.dispatch                  # three minutes; --json in place of the table
    python -m benchmarks.dispatch --keys 100000

Real PostgreSQL and Valkey of the embedded stack, durable commits, the services as a worker builds them, in this one
process. No worker takes the rotations, so the window is opened to as many keys as there are. The claim is what
finds due keys and locks those that there is room for: two statements, timed together in each transaction.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import sqlalchemy as sa
from rich.console import Console

from benchmarks.bulk import load
from byok.embedded.stack import Stack
from byok.queue import SCHEDULED_QUEUE
from byok.settings import load_settings, use_environment
from byok.store import migrate
from byok.wiring import build

CLAIM = ("keys.next_rotation_at <=", "FOR NO KEY UPDATE OF keys SKIP LOCKED")
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
    """Times the statements of an engine."""

    def __init__(self, engine: sa.Engine) -> None:
        self.count = 0
        self.claims: list[float] = []
        self._began = 0.0
        self._page = 0.0
        sa.event.listen(engine, "before_cursor_execute", self._before)
        sa.event.listen(engine, "after_cursor_execute", self._after)

    def _before(self, *_: object) -> None:
        self._began = time.perf_counter()

    def _after(self, _connection: object, _cursor: object, statement: str, *_: object) -> None:
        took = time.perf_counter() - self._began
        self.count += 1
        if "FOR NO KEY UPDATE OF keys SKIP LOCKED" in statement:
            self.claims.append((self._page + took) * 1000)
        elif "ORDER BY anon_1.next_rotation_at" in statement:
            self._page = took


def server_cpu(name: str) -> float:
    """CPU seconds of all processes of a server that is ours."""
    ours = psutil.Process().children(recursive=True)
    return sum(sum(one.cpu_times()[:2]) for one in ours if name in one.name())


def run(keys: int, keys_per_tenant: int) -> Result:
    """Load a fleet, let one dispatcher loose on it."""
    with tempfile.TemporaryDirectory() as home, Stack(Path(home)) as stack:
        use_environment(stack.environment | {"BYOK_ROTATIONS_IN_FLIGHT": str(20 * keys)})
        settings = load_settings()
        runtime = build(settings)
        migrate.upgrade(runtime.engine)
        with progress.status(f"loading {keys:,} keys"):
            loaded = load(
                settings.database_url.get_secret_value(),
                keys=keys,
                keys_per_tenant=keys_per_tenant,
                due_share=1.0,
            )
        statements = Statements(runtime.engine)
        own, began = time.process_time(), time.perf_counter()
        postgres, valkey = server_cpu("postgres"), server_cpu("valkey")
        with progress.status(f"dispatching {loaded.due:,} due keys"):
            dispatched = runtime.services.scheduling.dispatch_due()
        seconds = time.perf_counter() - began
        claims = sorted(statements.claims)
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
            postgres_cpu_us=(server_cpu("postgres") - postgres) / dispatched * 1e6,
            valkey_cpu_us=(server_cpu("valkey") - valkey) / dispatched * 1e6,
            statements_per_1000_keys=statements.count / dispatched * 1000,
            messages=runtime.queue.depths()[SCHEDULED_QUEUE],
        )
        runtime.close()
        return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--keys-per-tenant", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = run(options.keys, options.keys_per_tenant)
    print(json.dumps(asdict(result), indent=1))
