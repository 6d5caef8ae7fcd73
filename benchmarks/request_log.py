"""What the log of requests costs a request to KMS: the same Decrypt with the log and without, in turns.

    python -m benchmarks.request_log                  # half a minute

One process, one thread, a KMS stub that answers at once: beside AWS's 5 to 50 ms the share is smaller. The
processor's time is what is compared, of the least disturbed round; the median by the clock is beside it. Then
how fast the spool is moved to PostgreSQL, and what a request takes there with all indexes.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from uuid import UUID, uuid4

import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

from benchmarks.kms_process import KmsProcess
from byok.core.arns import KmsKeyArn, RoleArn
from byok.core.model import Connection
from byok.core.request_log import LoggedRequest
from byok.embedded.stack import Stack
from byok.entropy import SystemRandom
from byok.kms.aws import AwsKms
from byok.kms.bulkhead import Bulkhead
from byok.metrics import PrometheusMetrics
from byok.ports import RequestLog
from byok.services.request_log import RequestMover
from byok.settings import use_environment
from byok.spool import FileSpool
from byok.store import migrate
from byok.store.postgres import PostgresStore, create_engine

CONTEXT = {"byok-app": "byok"}
ACCOUNT = "200000000000"
CONNECTION = Connection(
    UUID(int=1),
    KmsKeyArn.parse(f"arn:aws:kms:eu-central-1:{ACCOUNT}:key/{UUID(int=1)}"),
    "external-id",
    RoleArn.parse(f"arn:aws:iam::{ACCOUNT}:role/byok"),
    tenant_name="acme",
)


class NoLog:
    """Logs nothing: the floor."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    def begin(self, connection: Connection, operation: str, subject: str) -> LoggedRequest:
        region = connection.kms_key_arn.region
        return LoggedRequest(
            UUID(int=1), connection.tenant_id, operation, subject, None, region, self._store.now()
        )

    def end(self, request: LoggedRequest, request_id: str, code: str) -> None:  # the port's
        pass


def measure(store: PostgresStore, url: str, logs: dict[str, RequestLog], rounds: int, calls: int) -> Table:
    table = Table(title="a Decrypt by byok.kms, one thread", title_justify="left")
    for column in ("log", "processor, µs", "median, µs"):
        table.add_column(column, justify="right")
    kms = {
        name: AwsKms(store, Bulkhead(), PrometheusMetrics(), log, endpoint_url=url)
        for name, log in logs.items()
    }
    blobs = {name: one.generate_data_key(CONNECTION, CONTEXT).ciphertext for name, one in kms.items()}
    cpu: dict[str, list[float]] = {name: [] for name in logs}
    wall: dict[str, list[float]] = {name: [] for name in logs}
    for _ in range(rounds):
        for name, one in kms.items():
            began_cpu = time.process_time()
            for _ in range(calls):
                began = time.perf_counter()
                one.decrypt(CONNECTION, blobs[name], CONTEXT).secret.wipe()
                wall[name].append((time.perf_counter() - began) * 1e6)
            cpu[name].append((time.process_time() - began_cpu) / calls * 1e6)
    for name in logs:
        table.add_row(name, f"{min(cpu[name]):.0f}", f"{statistics.median(wall[name]):.0f}")
    with_log, without = (min(cpu[name]) for name in logs)
    median_with, median_without = (statistics.median(wall[name]) for name in logs)
    table.add_row("ratio", f"{with_log / without:.3f}", f"{median_with / median_without:.3f}")
    return table


def move(store: PostgresStore, spool: FileSpool, requests: int) -> str:
    for _ in range(requests):
        request = spool.begin(CONNECTION, "Decrypt", str(CONNECTION.kms_key_arn))
        spool.end(request, str(uuid4()), "")
    lines_bytes = spool.backlog_bytes()
    mover, began, moved = RequestMover(store, spool, store, store.now() - store.now()), time.perf_counter(), 0
    while spool.backlog_bytes():
        moved += mover.move()
    seconds = time.perf_counter() - began
    with store.transaction() as tx:
        size = tx.request_log._connection.execute(
            sa.text("SELECT pg_total_relation_size('kms_requests')::float / count(*) FROM kms_requests")
        ).scalar_one()
    return (
        f"{requests:,} requests, {lines_bytes / requests:.0f} bytes each in the spool, moved at "
        f"{requests / seconds:,.0f} a second, {size:.0f} bytes each in PostgreSQL with all indexes"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--moved", type=int, default=50_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder) / "home", durable=False) as stack:
        use_environment(stack.environment)
        engine = create_engine(stack.environment["BYOK_DATABASE_URL"], 2)
        migrate.upgrade(engine)
        store = PostgresStore(engine)
        spool = FileSpool(Path(folder) / "requests", store, SystemRandom())
        with KmsProcess(stack) as stub:
            logs: dict[str, RequestLog] = {"spool": spool, "none": NoLog(store)}
            Console().print(measure(store, stub.url, logs, arguments.rounds, arguments.calls))
        Console().print(move(store, spool, arguments.moved))
        engine.dispose()


if __name__ == "__main__":
    main()
