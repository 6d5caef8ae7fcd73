"""A process that asks a tenant's KMS until it is killed or has asked often enough."""

import argparse
import contextlib
import random
import threading

from byok.core.encryption_context import version_context
from byok.core.model import Connection
from byok.errors import ByokError
from byok.settings import load_settings
from byok.wiring import Runtime, build


def ask(runtime: Runtime, connection: Connection, seed: int, calls: int) -> None:
    """Ask so often, in one thread; what fails is no matter."""
    chosen = random.Random(seed)
    context = version_context(connection.tenant_id, connection.tenant_id, 1)
    blob: bytes | None = None
    for number in range(calls):
        with contextlib.suppress(ByokError):
            if blob is None or number % 10 == 0:
                blob = runtime.kms.generate_data_key(connection, context).ciphertext
            elif chosen.random() < 0.7:
                fresh = chosen.random() < 0.05
                runtime.kms.decrypt(connection, blob, context, fresh_session=fresh).secret.wipe()
            else:
                runtime.kms.describe_key(connection)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tenant")
    parser.add_argument("calls", type=int)
    parser.add_argument("seed", type=int)
    arguments = parser.parse_args()
    runtime = build(load_settings())
    with runtime.store.transaction() as tx:
        connection = tx.tenants.get(arguments.tenant).connection
    assert connection is not None
    runtime.services.watch.join()  # its thread moves the spool
    threads = [
        threading.Thread(target=ask, args=(runtime, connection, arguments.seed + place, arguments.calls))
        for place in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    runtime.close()


if __name__ == "__main__":
    main()
