"""What benchmarks of rotations share: keys that are due, real workers on the embedded stack, what these use.

Everything goes by the public doors: keys are made due in their table, the task that Beat sends is sent, and
PostgreSQL is asked until no key is due any more. So it measures whatever code runs behind them.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from uuid import UUID, uuid4

import psycopg
from celery import Celery

from benchmarks.kms_process import KmsProcess
from benchmarks.rotation_usage import Memory, Round, Usage, cpu_seconds, family
from byok import queue
from byok.cli import processes
from byok.embedded.stack import Stack
from byok.embedded.supervisor import Child
from byok.settings import child_environment, load_settings, use_environment
from byok.store import migrate
from byok.wiring import build
from tests.customers import join

_SWEEP_SECONDS = 5.0
_POLL_SECONDS = 0.1
_STALLED_SECONDS = 120.0
# As in production but for these: a tick is never too early, and what is deferred does not wait for long.
PACE = {"BYOK_DISPATCH_INTERVAL_SECONDS": "0.001", "BYOK_SWEEP_INTERVAL_SECONDS": str(_SWEEP_SECONDS)}


class Stalled(Exception):
    """Rotations failed, or none ended for a long time; the message says how many are left."""


class RotationWorld:
    """A running stack with keys that are made due again and again."""

    def __init__(self, stack: Stack, kms: KmsProcess) -> None:
        self.stack = stack
        self.kms = kms
        use_environment(stack.environment)
        runtime = build(load_settings())
        migrate.upgrade(runtime.engine)
        runtime.close()
        self.database_url = stack.environment["BYOK_DATABASE_URL"].replace("+psycopg", "")
        self._celery = Celery("benchmark", broker=stack.environment["BYOK_BROKER_URL"], set_as_current=False)
        self._celery.conf.update(queue.COMMON_SETTINGS)
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        self.worker: Child | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disconnect()
        self._celery.close()

    @property
    def database(self) -> psycopg.Connection[tuple[Any, ...]]:
        if self._connection is None:
            self._connection = psycopg.connect(
                self.database_url, autocommit=True, application_name="benchmark"
            )
        return self._connection

    def disconnect(self) -> None:
        """Let go of the database, so that it can be copied."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # --- keys -------------------------------------------------------------------------------------

    def add_keys(self, tenants: int, keys: int) -> None:
        """Tenants with ``keys`` keys in all, none of which has a version yet. Replaces what was there."""
        names = "SELECT string_agg(format('%I', tablename), ', ') FROM pg_tables WHERE schemaname = 'public'"
        (tables,) = self.database.execute(f"{names} AND tablename <> 'alembic_version'").fetchone() or ("",)
        self.database.execute(f"TRUNCATE {tables}")
        ids = self._join(tenants) if self.kms.is_simulator else self._insert_tenants(tenants)
        with self.database.cursor().copy(
            "COPY keys (id, tenant_id, name, rotation_period_seconds, rotation_source, lease_ttl_seconds,"
            " created_at, next_rotation_at) FROM STDIN"
        ) as copy:
            for number in range(keys):
                row = (uuid4(), ids[number % tenants], f"key-{number // tenants}")
                copy.write_row((*row, 30 * 86400, "default", 3600, "now", "tomorrow"))
        self.database.execute("VACUUM ANALYZE")

    def _insert_tenants(self, count: int) -> list[UUID]:
        ids = [uuid4() for _ in range(count)]
        with self.database.cursor().copy(
            "COPY tenants (id, name, state, generation, external_id, kms_key_arn, role_arn, created_at,"
            " verified_at, next_probe_at) FROM STDIN"
        ) as copy:
            for number, tenant_id in enumerate(ids):
                account = f"2{number:011d}"
                key = f"arn:aws:kms:eu-central-1:{account}:key/{tenant_id}"
                row = (tenant_id, f"tenant-{number:06d}", "active", 1, f"external-{number}", key)
                copy.write_row((*row, f"arn:aws:iam::{account}:role/byok", "now", "now", "tomorrow"))
        return ids

    def _join(self, count: int) -> list[UUID]:
        """Customers with a KMS key and a role each, through the preflight."""
        runtime = build(load_settings())
        ids = [join(self.stack, runtime, f"tenant-{number:06d}").tenant.id for number in range(count)]
        runtime.close()
        return ids

    # --- workers ----------------------------------------------------------------------------------

    def start_worker(
        self,
        concurrency: int,
        *,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        application: str = "workers",
    ) -> Child:
        """A worker that consumes every queue, ready."""
        settings = {
            "BYOK_KMS_ENDPOINT_URL": self.kms.url,
            "BYOK_LOG_FORMAT": "json",
            "BYOK_WORKER_CONCURRENCY": str(concurrency),
            "BYOK_DATABASE_POOL_SIZE": str(concurrency + 2),
            "PYTHONWARNINGS": "ignore:You're running the worker with superuser privileges",
        }
        argv = [sys.executable, "-m", "celery", "-A", application, "worker", "--loglevel", "INFO"]
        child = self.stack.supervisor.spawn(
            "worker",
            [*argv, "--without-mingle", *options],
            child_environment({**self.stack.environment, **PACE, **settings, **(environment or {})}),
        )
        processes.wait_for_worker(self.stack, child)
        self.worker = child
        return child

    def stop_worker(self) -> None:
        if self.worker is not None:
            self.stack.supervisor.stop([self.worker])
            self.worker = None

    # --- rounds -----------------------------------------------------------------------------------

    def rotate_all(self, limit: int | None = None) -> Round:
        """Make every key due, or ``limit`` keys, dispatch, and wait until each is rotated.

        Raises:
            Stalled.
        """
        self.database.execute("CHECKPOINT")
        due_at, due = self._make_due(limit)
        kms_before, used_before = self.kms.counts(), self._usage()
        (began_at,) = self.database.execute("SELECT clock_timestamp()").fetchone() or (None,)
        self._send(queue.DISPATCH_DUE)
        self._wait_until_all_are_rotated(due_at)
        used = self._usage() - used_before
        rotations, seconds, failed, deferrals = self.database.execute(
            "SELECT count(*), EXTRACT(EPOCH FROM max(finished_at) - %s::timestamptz)::float,"
            " count(*) FILTER (WHERE state = 'failed'), sum(deferrals)"
            " FROM rotations WHERE requested_at >= %s",
            (began_at, due_at),
        ).fetchone() or (0, 0.0, 0, 0)
        if failed or rotations != due:
            told = f"{due} keys were due, {rotations} rotations ended, of these {failed} failed"
            raise Stalled(f"{told}; see {self.stack.home.log_folder}")
        kms_requests = {name: count - kms_before[name] for name, count in self.kms.counts().items()}
        return Round(rotations, seconds, used, kms_requests, int(deferrals or 0))

    def _make_due(self, limit: int | None) -> tuple[Any, int]:
        """The time since when they are due, and how many."""
        row = self.database.execute(
            "WITH due AS (UPDATE keys SET next_rotation_at = now()"
            " WHERE id IN (SELECT id FROM keys LIMIT %s) RETURNING next_rotation_at)"
            " SELECT max(next_rotation_at), count(*) FROM due",
            (limit,),
        ).fetchone()
        assert row is not None
        return row[0], int(row[1])

    def _wait_until_all_are_rotated(self, due_at: Any) -> None:  # noqa: ANN401  # as above
        """Asks seldom and by an index; sends what Beat sends."""
        left, moved, swept = None, time.monotonic(), time.monotonic()
        while left != 0:
            time.sleep(_POLL_SECONDS)
            row = self.database.execute(
                "SELECT (SELECT count(*) FROM keys WHERE next_rotation_at <= %s)"
                " + (SELECT count(*) FROM rotations WHERE state IN ('requested', 'generated', 'validated'))",
                (due_at,),
            ).fetchone()
            assert row is not None
            now = time.monotonic()
            if row[0] != left:
                left, moved = row[0], now
            if now - moved > _STALLED_SECONDS:
                raise Stalled(
                    f"{left} rotations are to be done and nothing moves; see {self.stack.home.log_folder}"
                )
            if now - swept > _SWEEP_SECONDS:
                self._send(queue.SWEEP)
                swept = now

    def _send(self, name: str) -> None:
        self._celery.send_task(name, queue=queue.MAINTENANCE_QUEUE)

    # --- what it uses -----------------------------------------------------------------------------

    def _usage(self) -> Usage:
        assert self.worker is not None
        postgres, valkeys = self.stack.postgres.child, (self.stack.broker.child, self.stack.cache.child)
        assert postgres is not None
        return Usage(
            worker=cpu_seconds(self.worker.process.pid),
            postgres=cpu_seconds(postgres.process.pid),
            valkey=sum(cpu_seconds(one.process.pid) for one in valkeys if one is not None),
            kms=self.kms.cpu_seconds(),
        )

    def memory(self) -> Memory:
        assert self.worker is not None
        infos = [one.memory_full_info() for one in family(self.worker.process.pid)]
        return Memory(sum(one.rss for one in infos) / 2**20, sum(one.pss for one in infos) / 2**20)

    def connections(self) -> int:
        """Connections to PostgreSQL that are byok's."""
        row = self.database.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'byok'"
        ).fetchone()
        assert row is not None
        return int(row[0])
