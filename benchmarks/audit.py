"""How fast is one long audit chain verified and exported, and in how much memory? Two minutes; --events N.

    python -m benchmarks.audit  # 1,000,000 linked events, then 365 signed checkpoints; --json: no table

Each step is a process of its own, one after the other, over one PostgreSQL on loopback. The floors do nothing
but what nobody can do without: read the same columns by psycopg in the same pages, and hash the same bytes.
Memory is resident memory beyond what the process had when it began to read, the most at the end of any page.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

from benchmarks.bulk import add_chain
from byok.crypto.keyring import MasterKeyRing
from byok.embedded.stack import Stack
from byok.entropy import SystemRandom
from byok.services.auditing import Auditor
from byok.services.checkpoints import Checkpoints
from byok.settings import child_environment
from byok.store import migrate
from byok.store.postgres import PostgresStore, create_engine

TENANT = "one-long-chain"
STEPS = {
    "read": "floor: read the rows with psycopg alone",
    "hash": "floor: read them, and SHA-256 over as many bytes",
    "verify": "byok audit verify",
    "export": "byok audit export",
}


@dataclass(frozen=True, slots=True)
class Step:
    """What a step took; ``cpu_seconds`` of its own process. ``bytes``: what it hashed or wrote."""

    events: int
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    bytes: int


def measure(environment: Mapping[str, str], step: str) -> Step:
    """Run a step in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.audit_step", TENANT, step]
    ended = subprocess.run(command, env=dict(environment), capture_output=True, check=True, text=True)
    return Step(**json.loads(ended.stdout))


def sign_daily(engine: sa.Engine, master_keys: str, days: int) -> None:
    """Checkpoints at the end of the chain: each is an event that the next one speaks of."""
    store, random = PostgresStore(engine), SystemRandom()
    ring = MasterKeyRing.parse(master_keys, random.bytes)
    auditor = Auditor(store, ring)
    checkpoints = Checkpoints(store, auditor, ring, store, random)
    for _ in range(days):
        with store.transaction() as tx:
            tenant = tx.tenants.get(TENANT)
            tx.audit.append(tenant.id, store.now(), "benchmark", "key.shown")
            place = tx.audit.lock_head(tenant.id)
            checkpoints.sign_news(tx, tenant, place, actor="benchmark")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder) / "home", durable=False) as stack:
        engine = create_engine(stack.environment["BYOK_DATABASE_URL"], 2)
        migrate.upgrade(engine)
        add_chain(engine, TENANT, given.events)
        sign_daily(engine, stack.environment["BYOK_MASTER_KEYS"], 365)
        environment = child_environment(stack.environment)
        measured = {step: measure(environment, step) for step in STEPS}
        engine.dispose()
    if given.json:
        print(json.dumps({step: asdict(one) for step, one in measured.items()}, indent=2))
        return
    table = Table(title=f"one audit log of {measured['verify'].events:,} events", title_justify="left")
    for column in ("step", "events a second", "CPU µs an event", "to reading", "MiB beyond the start"):
        table.add_column(column, justify="left" if column == "step" else "right")
    floor = measured["read"].cpu_seconds
    for step, one in measured.items():
        table.add_row(
            STEPS[step],
            f"{one.events / one.seconds:,.0f}",
            f"{one.cpu_seconds / one.events * 1e6:.1f}",
            f"{one.cpu_seconds / floor:.2f}",
            f"{one.peak_bytes / 2**20:.1f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
