"""What one act leaves behind and costs: bytes in PostgreSQL and Redis, CPU of the process that runs it.

    python -m benchmarks.footprint               # 2,000 keys, 5 to 10 minutes

Real rotations, validations, probes, syncs and looks against the embedded stack, one after the other in this
process. Bytes in PostgreSQL are what the tables grow by with all their indexes, after a VACUUM; bytes in
Redis what `used_memory` grows by. CPU is this process's: boto3, SQLAlchemy and byok, without Celery's
part. The figures stand in `byok/core/footprint.py`.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import redis
import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

from byok.crypto.hazmat import SecretBytes
from byok.embedded.stack import Stack
from byok.settings import load_settings, use_environment
from byok.store import migrate, schema
from byok.wiring import Runtime, build
from tests.customers import join

LEASES = 10_000
console = Console()


@dataclass(frozen=True)
class Growth:
    """What one act added to a table, on average."""

    act: str
    table: str
    rows: float
    bytes: float


class Footprint:
    """Acts on many keys, each measured."""

    def __init__(self, runtime: Runtime, tenants: int, keys: int) -> None:
        self._runtime = runtime
        self._tenants = [f"tenant-{number:03d}" for number in range(tenants)]
        self._keys = [(tenant, f"key-{number:03d}") for tenant in self._tenants for number in range(keys)]
        self.growths: list[Growth] = []
        self.cpu_ms: dict[str, float] = {}

    def run(self, stack: Stack) -> None:
        services = self._runtime.services
        with self._measured("tenant", len(self._tenants)):
            for tenant in self._tenants:
                join(stack, self._runtime, tenant)
        with self._measured("key", len(self._keys)):
            for tenant, key in self._keys:
                services.registry.create_key(
                    tenant,
                    key,
                    rotation_period=timedelta(days=30),
                    lease_ttl=timedelta(hours=1),
                    actor="test",
                )
        with self._measured("first rotation", len(self._keys)):
            self._run_open_rotations()
        for _ in range(2):  # of the second: what the first left half empty is full by then
            with self._measured("rotation", len(self._keys)):
                self._make_all_due()
                services.scheduling.dispatch_due()
                self._run_open_rotations()
        self._each_key(
            "validation", lambda tenant, key: services.checkups.validate(tenant, key, actor="test")
        )
        self._each_tenant("probe", services.checkups.probe)
        self._each_tenant("sync", lambda tenant: services.follower.sync(tenant, actor="test"))
        self._each_tenant("watch", lambda tenant: services.lookout.look(tenant, actor="test"))
        self._each_tenant("checkpoint", lambda tenant: services.checkpoints.sign(tenant, actor="test"))

    def _make_all_due(self) -> None:
        with self._runtime.engine.begin() as connection:
            connection.execute(schema.keys.update().values(next_rotation_at=self._runtime.store.now()))

    def _run_open_rotations(self) -> None:
        with self._runtime.engine.connect() as connection:
            ids = connection.scalars(sa.select(schema.rotations.c.id).where(schema.OPEN_ROTATION)).all()
        for rotation_id in ids:
            self._runtime.services.rotations.run(rotation_id)

    def _each_key(self, act: str, run: Callable[[str, str], object]) -> None:
        rounds = 3  # what updates leave half empty is full by then
        with self._measured(act, rounds * len(self._keys)):
            for tenant, key in rounds * self._keys:
                run(tenant, key)

    def _each_tenant(self, act: str, run: Callable[[str], object]) -> None:
        with self._measured(act, len(self._keys)):  # as often as the others
            for tenant, _ in self._keys:
                run(tenant)

    @contextmanager
    def _measured(self, act: str, count: int) -> Iterator[None]:
        before = self._sizes()
        with console.status(f"{act} × {count} …"):
            began = time.process_time()
            yield
            self.cpu_ms[act] = (time.process_time() - began) * 1000 / count
        self.growths = [one for one in self.growths if one.act != act]
        for table, (rows, size) in self._sizes().items():
            more_rows, more_bytes = rows - before[table][0], size - before[table][1]
            if more_rows or more_bytes:
                self.growths.append(Growth(act, table, more_rows / count, more_bytes / count))

    def _sizes(self) -> dict[str, tuple[int, int]]:
        sizes = {}
        with self._runtime.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("VACUUM"))
            for name in schema.metadata.tables:
                rows = connection.scalar(sa.text(f"SELECT count(*) FROM {name}"))
                size = connection.scalar(sa.text(f"SELECT pg_total_relation_size('{name}')"))
                sizes[name] = (int(rows or 0), int(size or 0))
        return sizes

    def lease_bytes(self) -> tuple[float, float]:
        """Redis memory of a tenant's first lease, with the set that names it, and of a further one."""
        services = self._runtime.services
        tenant, (key, *_) = services.registry.show_tenant(self._tenants[0])
        secret, now = SecretBytes(bytes(range(32))), self._runtime.store.now()
        with redis.Redis.from_url(self._runtime.settings.cache_url.get_secret_value()) as cache:
            cache.flushall()
            empty = int(cache.info("memory")["used_memory"])
            tenants = [replace(tenant, id=uuid4()) for _ in range(LEASES)]
            for one in tenants:
                services.desk.put(one, replace(key, id=uuid4()), 1, secret, now)
            first = int(cache.info("memory")["used_memory"])
            for one in tenants:
                services.desk.put(one, replace(key, id=uuid4()), 1, secret, now)
            both = int(cache.info("memory")["used_memory"])
            assert cache.dbsize() == 3 * LEASES
        return (first - empty) / LEASES, (both - first) / LEASES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tenants", type=int, default=200)
    parser.add_argument("--keys", type=int, default=10, help="of each tenant")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder) / "home", durable=False) as stack:
        use_environment(stack.environment)
        runtime = build(load_settings())
        migrate.upgrade(runtime.engine)
        footprint = Footprint(runtime, arguments.tenants, arguments.keys)
        footprint.run(stack)
        first, further = footprint.lease_bytes()
        runtime.close()
    if arguments.json:
        growths = [vars(one) for one in footprint.growths]
        print(
            json.dumps({"growths": growths, "cpu_ms": footprint.cpu_ms, "lease": [first, further]}, indent=2)
        )
        return
    table = Table("act", "table", "rows", "bytes")
    for one in footprint.growths:
        table.add_row(one.act, one.table, f"{one.rows:.2f}", f"{one.bytes:,.0f}")
    console.print(table)
    for act, cpu_ms in footprint.cpu_ms.items():
        console.print(f"{act}: {cpu_ms:.2f} ms CPU")
    console.print(f"Redis: {first:,.0f} bytes for a tenant's first lease, {further:,.0f} for a further one")


if __name__ == "__main__":
    main()
