"""``make oracle``: the scenarios over the simulator and over MiniStack, and where they differ.

MiniStack (PyPI, MIT) needs Python 3.12 or newer, and gets an environment of its own beside ours.
"""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from rich.console import Console
from rich.progress import track
from rich.table import Table

from byok.simulator import ADMIN_ACCESS_KEY_PREFIX, VENDOR_ACCESS_KEY_ID
from tests.oracle.scenarios import SCENARIOS, Cloud, outcome

PINNED = "ministack==1.5.33"
console = Console(width=130)


def free_port() -> int:
    """A port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def newer_python() -> str | None:
    """A Python that MiniStack runs on."""
    for name in ("python3.14", "python3.13", "python3.12"):
        path = shutil.which(name)
        if (
            path
            and not subprocess.run([path, "-c", "import venv"], capture_output=True, check=False).returncode
        ):
            return path
    return None


@contextmanager
def running(command: list[str], url: str, environment: dict[str, str]) -> Iterator[None]:
    """A server, from when it answers until the block ends."""
    server = subprocess.Popen(
        command, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(300):
            try:
                urlopen(url, timeout=2).close()
            except HTTPError:
                break
            except OSError:
                time.sleep(0.1)
            else:
                break
        yield
    finally:
        server.terminate()
        server.wait(20)


def run(cloud_of: dict[str, str]) -> dict[str, str]:
    """The outcome of each scenario; every one has a customer's key and role of its own."""
    admin_prefix, vendor_key = cloud_of["admin_prefix"], cloud_of["vendor_key"]
    return {
        name: outcome(Cloud(cloud_of["url"], lambda account: admin_prefix + account, vendor_key), scenario)
        for name, scenario in track(SCENARIOS.items(), cloud_of["name"], console=console)
    }


def main() -> int:
    """Print the table; 0 even where they differ: which of the two is right, AWS's documentation tells."""
    parser = argparse.ArgumentParser(prog="python -m tests.oracle", description=__doc__)
    parser.add_argument("--markdown", type=Path, help="write the table there, too")
    arguments = parser.parse_args()
    python = newer_python()
    if python is None:
        console.print("there is no Python 3.12 or newer here: nothing to compare with")
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with console.status(f"{PINNED} …"):
            subprocess.run([python, "-m", "venv", str(folder / "v")], check=True)
            pip = [str(folder / "v/bin/python"), "-m", "pip", "install", "--disable-pip-version-check"]
            subprocess.run([*pip, PINNED], check=True, capture_output=True)
        ours, theirs = free_port(), free_port()
        simulator = [
            sys.executable,
            "-m",
            "byok.simulator",
            "--port",
            str(ours),
            "--state-file",
            str(folder / "s"),
        ]
        with running(simulator, f"http://127.0.0.1:{ours}/_sim/health", {}):
            us = run(
                {
                    "name": "simulator",
                    "url": f"http://127.0.0.1:{ours}",
                    "admin_prefix": ADMIN_ACCESS_KEY_PREFIX,
                    "vendor_key": VENDOR_ACCESS_KEY_ID,
                }
            )
        ministack = [str(folder / "v/bin/python"), "-m", "ministack"]
        settings = {
            "AUTH": "true",
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(theirs),
            "IOT_MTLS_ENABLED": "0",
        }
        with running(ministack, f"http://127.0.0.1:{theirs}/", settings):
            them = run(
                {
                    "name": "ministack",
                    "url": f"http://127.0.0.1:{theirs}",
                    "admin_prefix": "",
                    "vendor_key": "111111111111",
                }
            )
    table = Table("scenario", "simulator", PINNED, "", title="outcomes")
    lines = [f"| scenario | simulator | {PINNED} | |", "|---|---|---|---|"]
    for name in SCENARIOS:
        same = "" if us[name] == them[name] else "differs"
        table.add_row(name, us[name], them[name], same)
        lines.append(f"| {name} | `{us[name]}` | `{them[name]}` | {same} |")
    console.print(table)
    if arguments.markdown:
        arguments.markdown.write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
