"""``python -m byok.simulator``: serve until SIGTERM or SIGINT."""

import argparse
import logging
import signal
import sys
import threading
from pathlib import Path

from byok.simulator.server import make_simulator


def main() -> None:
    """Parse arguments, load the state, serve."""
    parser = argparse.ArgumentParser(prog="python -m byok.simulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--state-file", type=Path, required=True, help="where keys and roles are kept")
    arguments = parser.parse_args()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("byok.simulator").warning(
        "AWS KMS simulator for DEVELOPMENT on %s:%d: its keys protect nothing", arguments.host, arguments.port
    )
    server = make_simulator(arguments.host, arguments.port, arguments.state_file)

    def stop(*_: object) -> None:
        # From another thread: shutdown() waits for the loop that this signal interrupted.
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    server.serve_forever(poll_interval=0.1)
    server.server_close()
    sys.exit(0)


if __name__ == "__main__":
    main()
