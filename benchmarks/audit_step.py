"""One step of `benchmarks.audit` in a process of its own, whose memory tells.

python -m benchmarks.audit_step TENANT read|hash|verify|export    # BYOK_DATABASE_URL says where
"""

import hashlib
import json
import sys
import time
from collections.abc import Callable
from contextlib import closing

import psutil
import psycopg
from sqlalchemy import make_url

from byok.core.audit import AuditChain
from byok.crypto.keyring import MasterKeyRing
from byok.entropy import SystemRandom
from byok.services.audit_export import AuditExporter
from byok.services.auditing import Auditor
from byok.settings import Settings, load_settings
from byok.store.postgres import PostgresStore, create_engine

OnPage = Callable[[int], None]
_PAGE = 2000
_BYTES_OF_AN_EVENT = 330  # canonical, as `benchmarks.bulk.add_chain` makes them
_QUERY = (
    "SELECT tenant_id, sequence, at, actor, action, details, previous_hash, hash FROM audit_events"
    " WHERE tenant_id = %s AND sequence > %s ORDER BY sequence LIMIT %s"
)


def read(settings: Settings, chain: AuditChain, on_page: OnPage, *, hashed: bool) -> tuple[int, int]:
    """The floor: all rows, by the driver alone. How many events and bytes."""
    url = make_url(settings.database_url.get_secret_value()).set(drivername="postgresql")
    count, bytes_, filler = 0, 0, bytes(_BYTES_OF_AN_EVENT)
    with closing(psycopg.connect(url.render_as_string(hide_password=False))) as connection:
        while rows := connection.execute(_QUERY, (chain.tenant_id, count, _PAGE), prepare=True).fetchall():
            for row in rows:
                if hashed and hashlib.sha256(filler).digest() == row[-1]:
                    raise AssertionError("zeros are no event")
                bytes_ += _BYTES_OF_AN_EVENT * hashed
            count += len(rows)
            on_page(len(rows))
    return count, bytes_


def export(exporter: AuditExporter, chain: AuditChain, on_page: OnPage) -> tuple[int, int]:
    """Write an export nowhere. How many events and bytes."""
    with open("/dev/null", "wb") as sink:  # noqa: PTH123  # a device
        return chain.length, sum(sink.write(line) for line in exporter.lines(chain, on_page))


def main() -> None:
    tenant, step = sys.argv[1:]
    settings = load_settings()
    store = PostgresStore(create_engine(settings.database_url.get_secret_value(), 1))
    ring = MasterKeyRing.parse(settings.read_master_keys(), SystemRandom().bytes)
    auditor = Auditor(store, ring)
    chain, process = auditor.chain(tenant), psutil.Process()
    before = process.memory_info().rss
    # At the end of each page, when all of it is there. The kernel's own maximum counts the parent's in.
    sampled: list[int] = []

    def on_page(_: int) -> None:
        sampled.append(process.memory_info().rss)

    began, began_cpu = time.perf_counter(), time.process_time()
    if step == "verify":
        events, bytes_ = auditor.verify(chain, on_page).last.sequence, 0
    elif step == "export":
        events, bytes_ = export(AuditExporter(auditor, ring, store), chain, on_page)
    else:
        events, bytes_ = read(settings, chain, on_page, hashed=step == "hash")
    found = {
        "events": events,
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - began_cpu,
        "peak_bytes": max(sampled) - before,
        "bytes": bytes_,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
