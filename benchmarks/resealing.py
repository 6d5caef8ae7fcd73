"""One worker reseals every record of a fleet: records a second beside a floor, and the memory it takes.

    python -m benchmarks.resealing                   # 100,000 keys, a minute; --keys 1000000: ten

Real PostgreSQL of the embedded stack with durable commits, the services as a worker builds them, in this one
process. The floor is what PostgreSQL takes for it in the same run: bare UPDATEs that put the same columns in
the same rows in the same batches, each with its commit, with all that Python has to do left out of the time.
It is measured before and after.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import sqlalchemy as sa
from rich.console import Console

from benchmarks.bulk import load
from byok.core.model import SealedBox
from byok.core.resealing import RecordKind, RecordPlace, SealedRecord
from byok.crypto.hazmat import SecretBytes
from byok.crypto.keyring import MasterKeyRing
from byok.crypto.ring_entries import format_entry
from byok.embedded.stack import Stack
from byok.entropy import SystemRandom
from byok.services.records import RECORD_PURPOSE
from byok.services.resealing import PAGE_RECORDS
from byok.settings import load_settings, use_environment
from byok.store import migrate, schema
from byok.store.batches import parameters, table_of
from byok.wiring import Runtime, build

_OLD, _NEW = "mk-old", "mk-new"
_WRAPPED_KEY_BYTES = 184  # as long as AWS's
_LARGE = ("shared_buffers=4GB", "max_wal_size=8GB", "wal_compression=on")
progress = Console(stderr=True)


@dataclass(frozen=True)
class Result:
    """Records a second, and by how many MiB the process grew meanwhile."""

    records: int
    floor_before: float
    resealed: float
    floor_after: float
    ratio: float
    grown_mib: float


def run(keys: int) -> Result:
    """Load a fleet, seal its records for real, reseal them."""
    rings = {name: SecretBytes(name.encode().ljust(32, b"k")) for name in (_OLD, _NEW)}
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder), postgres_settings=_LARGE) as stack:
        entries = ",".join(format_entry(name, name.encode().ljust(32, b"k")) for name in (_NEW, _OLD))
        use_environment(stack.environment | {"BYOK_MASTER_KEYS": entries})
        runtime = build(load_settings(), kind="worker")
        try:
            migrate.upgrade(runtime.engine)
            with progress.status(f"loading {keys:,} keys"):
                load(runtime.engine, keys=keys)
                with runtime.engine.begin() as connection:
                    connection.execute(sa.text("DELETE FROM members"))  # whose rings have none of these keys
            old = MasterKeyRing([(_OLD, rings[_OLD])], SystemRandom().bytes)
            new = MasterKeyRing([(_NEW, rings[_NEW])], SystemRandom().bytes)
            with progress.status("floor: bare UPDATEs"):
                floor_before = floor(runtime, old)
            vacuum(runtime.engine)
            with progress.status("resealing"):
                grown, resealed = reseal(runtime)
            vacuum(runtime.engine)
            with progress.status("floor: bare UPDATEs"):
                floor_after = floor(runtime, new)
        finally:
            runtime.close()
    ratio = resealed / ((floor_before + floor_after) / 2)
    return Result(keys, round(floor_before), round(resealed), round(floor_after), round(ratio, 2), grown)


def reseal(runtime: Runtime) -> tuple[float, float]:
    """By how much the process grew, and records a second."""
    services = runtime.services
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    asked = services.reseals.start(requested_by="benchmark").reseal
    now = asked
    while now.is_running:
        now = services.resealing.run(asked.id) or now
    seconds = time.perf_counter() - began
    assert now.tally.resealed == asked.total, now
    after_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round((after_kib - before_kib) / 1024, 1), now.tally.resealed / seconds


def floor(runtime: Runtime, ring: MasterKeyRing) -> float:
    """Put seals of this ring in all rows; records a second of the UPDATEs alone."""
    count, seconds = 0, 0.0
    statement = _bare_update()
    for page in pages(runtime):
        rows = [_row(record, seal(ring, record)) for record in page]
        given = parameters(rows)
        began = time.perf_counter()
        with runtime.engine.begin() as connection:
            connection.execute(statement, given)
        seconds += time.perf_counter() - began
        count += len(rows)
    return count / seconds


def pages(runtime: Runtime) -> Iterator[list[SealedRecord]]:
    """All records, in the batches of a reseal."""
    after: RecordPlace | None = None
    while True:
        with runtime.store.transaction() as tx:
            page = tx.sealed[RecordKind.VERSION].page(after, PAGE_RECORDS)
        yield list(page.records)
        if page.last is None:
            return
        after = page.last


def seal(ring: MasterKeyRing, record: SealedRecord) -> SealedBox:
    """A new seal of something as long as a wrapped key."""
    place = record.place
    bound_to = (str(record.tenant_id), str(place.key_id), place.number, record.kms_key_arn)
    return ring.seal(bytes(_WRAPPED_KEY_BYTES), RECORD_PURPOSE, *bound_to)


def _bare_update() -> sa.Update:
    versions = schema.key_versions
    names = ("encrypted_key", "iv", "master_key_id")
    new = table_of({name: versions.c[name].type for name in ("key_id", "number", *names)})
    return (
        versions.update()
        .where(versions.c.key_id == new.c.key_id, versions.c.number == new.c.number)
        .values({name: new.c[name] for name in names})
    )


def _row(record: SealedRecord, box: SealedBox) -> dict[str, object]:
    return {
        "key_id": record.place.key_id,
        "number": record.place.number,
        "encrypted_key": box.body,
        "iv": box.iv,
        "master_key_id": box.master_key_id,
    }


def vacuum(engine: sa.Engine) -> None:
    """As autovacuum would between two walks."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("SET statement_timeout = 0"))
        connection.execute(sa.text("VACUUM (ANALYZE) key_versions"))
        connection.invalidate()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.resealing", description=__doc__)
    parser.add_argument("--keys", type=int, default=100_000)
    print(json.dumps(asdict(run(parser.parse_args().keys)), indent=2))  # the result


if __name__ == "__main__":
    main()
