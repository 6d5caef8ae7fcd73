"""Verify one tenant's audit chain in a process of its own, whose memory tells.

python -m benchmarks.scale_audit TENANT    # BYOK_DATABASE_URL says where
"""

import json
import resource
import sys
import time

from byok.services.auditing import Auditor
from byok.settings import load_settings
from byok.store.postgres import PostgresStore, create_engine


def main() -> None:
    auditor = Auditor(PostgresStore(create_engine(load_settings().database_url.get_secret_value(), 1)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    events = auditor.verify(auditor.chain(sys.argv[1]))
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"events": events, "seconds": seconds, "before_kib": before, "after_kib": after}))


if __name__ == "__main__":
    main()
