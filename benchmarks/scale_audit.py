"""Verify one tenant's audit chain in a process of its own, whose memory tells.

python -m benchmarks.scale_audit TENANT    # BYOK_DATABASE_URL says where
"""

import json
import sys
import time

import psutil

from byok.crypto.keyring import MasterKeyRing
from byok.entropy import SystemRandom
from byok.services.auditing import Auditor
from byok.settings import load_settings
from byok.store.postgres import PostgresStore, create_engine


def main() -> None:
    settings = load_settings()
    store = PostgresStore(create_engine(settings.database_url.get_secret_value(), 1))
    auditor = Auditor(store, MasterKeyRing.parse(settings.read_master_keys(), SystemRandom().bytes))
    process = psutil.Process()
    chain = auditor.chain(sys.argv[1])
    before = process.memory_info().rss
    # At the end of each page, when all of it is there. The kernel's own maximum counts the parent's in.
    sampled: list[int] = []
    began = time.perf_counter()
    events = auditor.verify(chain, lambda _: sampled.append(process.memory_info().rss)).last.sequence
    seconds = time.perf_counter() - began
    found = {"events": events, "seconds": seconds, "before_bytes": before, "peak_bytes": max(sampled)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
