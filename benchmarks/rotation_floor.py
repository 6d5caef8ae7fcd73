"""The floor of a rotation: its two KMS requests and its SQL in a bare loop, nothing else.

    python -m benchmarks.rotation_floor RECORDING --database URL --kms URL --threads 8 --rotations 1000

The SQL is not written by hand: `benchmarks.sql_recording` writes down each statement with its parameters that
a real worker executes, and this runs the same ones in the same transactions by psycopg alone, on a copy of
the database as it was before, so that every statement finds the rows that it found then. Whatever the real
path executes, the floor does: change one, record, and the other follows. Left out is what the worker's own
threads do (renewing claims, looking for stops).

Each thread takes the next task and runs its transactions; for each of the task's rotations it sends
GenerateDataKeyWithoutPlaintext after the first transaction and Decrypt after the half of them, by a plain
boto3 client. It prints one line of JSON.
"""

import argparse
import json
import pickle
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import psycopg
from botocore.config import Config
from psycopg.types.json import Jsonb

from benchmarks.sql_recording import JsonDocument, Statement, Task, Transaction, trace

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient

ROTATING_TASKS = ("byok.keys.",)
_KMS_KEY = "arn:aws:kms:eu-central-1:222222222222:key/00000000-0000-4000-8000-000000000001"
# As long as byok's.
_CONTEXT = {
    "byok-app": "byok",
    "byok-tenant": "00000000-0000-4000-8000-000000000001",
    "byok-key": "00000000-0000-4000-8000-000000000002",
    "byok-version": "2",
}


@dataclass(frozen=True)
class Work:
    """Transactions in a row, and how many rotations they are part of.

    What is not a rotation is run alone before the next work begins: others find the rows that it made.
    """

    transactions: Sequence[Transaction]
    rotations: int
    alone: bool


def load(recording: Path) -> list[Task]:
    """The recorded tasks that asked PostgreSQL."""
    tasks: list[Task] = pickle.loads((recording / "tasks.pickle").read_bytes())
    return [task for task in tasks if task.name is not None and task.transactions]


def plan(tasks: Sequence[Task], rotations: int) -> list[Work]:
    """The work in the order in which it began, the rotations dealt out evenly over the rotating tasks."""
    rotating = [task for task in tasks if _rotates(task)]
    rotating.sort(key=lambda task: task.transactions[0].at)
    begun: list[tuple[int, Work]] = []
    for number, task in enumerate(rotating):
        share = rotations * (number + 1) // len(rotating) - rotations * number // len(rotating)
        begun.append((task.transactions[0].at, Work(task.transactions, share, alone=False)))
    for task in tasks:
        if not _rotates(task):
            begun += [(one.at, Work([one], 0, alone=True)) for one in task.transactions]
    return [work for _, work in sorted(begun, key=lambda pair: pair[0])]


def _rotates(task: Task) -> bool:
    assert task.name is not None
    return task.name.startswith(ROTATING_TASKS)


class Floor:
    """A process of ``threads`` threads with a connection each."""

    def __init__(self, works: Sequence[Work], database_url: str, kms_url: str, threads: int) -> None:
        self._works = iter(works)
        self._taking = threading.Lock()
        self._kms: KMSClient = boto3.client(
            "kms",
            endpoint_url=kms_url,
            region_name="eu-central-1",
            aws_access_key_id="floor",
            aws_secret_access_key="not-a-secret",
            config=Config(
                max_pool_connections=threads, retries={"mode": "standard", "total_max_attempts": 1}
            ),
        )
        self._connections = [psycopg.connect(database_url, prepare_threshold=1) for _ in range(threads)]

    def trace(self, folder: Path) -> None:
        for connection in self._connections:
            trace(connection, folder)

    def run(self) -> None:
        """Run all work.

        Raises:
            psycopg.Error: the database is not the one that the recording began with.
        """
        with ThreadPoolExecutor(len(self._connections)) as pool:
            for _ in pool.map(self._run_thread, self._connections):
                pass

    def _run_thread(self, connection: psycopg.Connection[Any]) -> None:
        for work in self._take(connection):
            half = len(work.transactions) // 2
            blobs: list[bytes] = []
            for number, transaction in enumerate(work.transactions):
                execute(connection, transaction)
                if number == 0:
                    blobs = [self._generate() for _ in range(work.rotations)]
                if number == half:
                    for blob in blobs:
                        self._kms.decrypt(KeyId=_KMS_KEY, CiphertextBlob=blob, EncryptionContext=_CONTEXT)

    def _take(self, connection: psycopg.Connection[Any]) -> Iterator[Work]:
        while True:
            with self._taking:
                work = next(self._works, None)
                if work is not None and work.alone:
                    execute(connection, work.transactions[0])
                    continue
            if work is None:
                return
            yield work

    def _generate(self) -> bytes:
        reply = self._kms.generate_data_key_without_plaintext(
            KeyId=_KMS_KEY, KeySpec="AES_256", EncryptionContext=_CONTEXT
        )
        return reply["CiphertextBlob"]


def execute(connection: psycopg.Connection[Any], transaction: Transaction) -> None:
    """Run a recorded transaction."""
    for statement in transaction.statements:
        with connection.cursor() as cursor:
            _execute(cursor, statement)
            if cursor.description is not None:
                cursor.fetchall()
    if transaction.committed:
        connection.commit()
    else:
        connection.rollback()


def _execute(cursor: psycopg.Cursor[Any], statement: Statement) -> None:
    if statement.many:
        cursor.executemany(statement.text, [_restored(one) for one in statement.parameters])
    else:
        cursor.execute(statement.text, _restored(statement.parameters))


def _restored(parameters: Any) -> Any:  # noqa: ANN401  # a mapping or a sequence
    def restored(value: Any) -> Any:  # noqa: ANN401
        return Jsonb(value.document) if isinstance(value, JsonDocument) else value

    if isinstance(parameters, dict):
        return {name: restored(value) for name, value in parameters.items()}
    return [restored(value) for value in parameters]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recording", type=Path)
    parser.add_argument("--database", required=True)
    parser.add_argument("--kms", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--rotations", type=int, required=True)
    parser.add_argument("--trace", type=Path, help="folder for what libpq sends and gets; slower")
    arguments = parser.parse_args()
    works = plan(load(arguments.recording), arguments.rotations)
    floor = Floor(works, arguments.database, arguments.kms, arguments.threads)
    if arguments.trace is not None:
        floor.trace(arguments.trace)
    began, cpu_before = time.perf_counter(), time.process_time()
    floor.run()
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_before
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds}))


if __name__ == "__main__":
    main()
