"""How fast are fields encrypted and decrypted, compared with the floor and with other libraries?

    make bench                              # three minutes; installs the peers
    python -m benchmarks.fields --json
    python -m venv PEERS && PEERS/bin/pip install 'aws-encryption-sdk[MPL]'
    python -m benchmarks.fields --peer-python PEERS/bin/python        # the hierarchical keyring, too

The floor is ``cryptography``'s AESGCM with one key object and nothing around it: no call, no lookup, a random
IV, and a blob of IV and ciphertext, made when encrypting and taken apart when decrypting. Everything else is
given as a multiple of it. All systems take turns in one process, in another order in each round; a ratio
is between two measurements of the same round, and the median of all rounds is shown. Absolute times are
this machine's.

byok runs by its public API, on a lease from the simulated KMS, and goes on looking at PostgreSQL and renewing
its lease as it does in production. The contexts are 32 bytes long.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from math import isnan
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.fields_worker import SYSTEMS
from benchmarks.kms_requests import PEER_ENVIRONMENT, create_peer_key, environment_of
from benchmarks.kms_requests_worker import Tenant
from byok.embedded.stack import Stack
from byok.settings import child_environment, load_settings, use_environment
from byok.store import migrate
from byok.wiring import build
from tests.customers import add_key, join

SIZES = {"32 B": 32, "1 KiB": 1024, "64 KiB": 65536, "1 MiB": 1 << 20}
NAMES = {
    "floor": "AESGCM, the floor",
    "byok": "byok",
    "tink-gcm": "Tink AES-256-GCM",
    "tink-xaes": "Tink XAES-256-GCM",
    "asherah": "Asherah",
    "fernet": "Fernet",
    "caching-cmm": "AWS SDK, caching CMM",
    "hierarchical": "AWS SDK, hierarchical",
}
console, progress = Console(), Console(stderr=True)

Result = dict[str, Any]


def measurements(python: str, systems: Sequence[str], tenant: Tenant, rounds: int) -> Iterator[Result]:
    """What a worker process says, line by line."""
    order = {"systems": systems, "tenant": asdict(tenant), "sizes": list(SIZES.values()), "rounds": rounds}
    worker = subprocess.Popen(
        [python, "-m", "benchmarks.fields_worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(json.dumps(order) + "\n")
    worker.stdin.close()
    for line in worker.stdout:
        yield json.loads(line)
    if worker.wait() != 0:
        raise SystemExit(f"a worker ended with exit code {worker.returncode}; its error is above")


def run(peer_python: str, systems: Sequence[str], rounds: int) -> tuple[list[Result], dict[str, str]]:
    """Measure on a stack of its own; return the results, and what could not be measured."""
    results: list[Result] = []
    missing: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder) / "home", durable=False) as stack:
        use_environment(child_environment(environment_of(stack)))
        runtime = build(load_settings())
        migrate.upgrade(runtime.engine)
        customer = join(stack, runtime, "bench")
        add_key(runtime, customer.name)
        tenant = Tenant(customer.name, create_peer_key(customer))
        runtime.close()
        here = [name for name in systems if name not in ("floor", "hierarchical")]
        there = [name for name in systems if name == "hierarchical"]
        with Progress(
            TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=progress
        ) as bar:
            steps = (len(here) + 1) * (2 * len(SIZES) + 2) + 1 + len(there) * (4 * len(SIZES) + 4)
            task = bar.add_task("measuring", total=steps)
            for python, ones in ((sys.executable, here), (peer_python, there)):
                for result in measurements(python, ones, tenant, rounds) if ones else ():
                    if "missing" in result:
                        missing |= result["missing"]
                    elif ones is here or result["system"] != "floor":
                        results.append(result)
                    bar.advance(task)
            bar.update(task, completed=steps)
    return results, missing


def find(results: Sequence[Result], system: str, do: str, size: int | None = None) -> Result | None:
    return next(
        (
            one
            for one in results
            if one["system"] == system and one["do"] == do and (size is None or one["bytes"] == size)
        ),
        None,
    )


def cell(result: Result | None) -> str:
    if result is None:
        return "–"
    if "speed" in result:
        return f"{result['speed']:.2f}"
    ratio = result["ratio"]
    shown = f"{ratio:.2f}×" if ratio < 10 else f"{ratio:,.0f}×"
    return shown if result["system"] != "floor" else f"{result['microseconds']:.2f} µs"


def table_of(results: Sequence[Result], direction: str) -> Table:
    table = Table(title=f"{direction}: multiples of the floor", title_justify="left")
    table.add_column("")
    for column in (*SIZES, "4 threads"):
        table.add_column(column, justify="right")
    for system in NAMES:
        if find(results, system, direction) is None:
            continue
        cells = [cell(find(results, system, direction, size)) for size in SIZES.values()]
        cells.append(cell(find(results, system, f"{direction}, 4 threads")))
        table.add_row(NAMES[system], *cells, end_section=system == "byok")
    return table


def targets(results: Sequence[Result]) -> Iterator[tuple[str, str, bool]]:
    """What is aimed at, what was measured, and whether that is met."""

    def ratio(system: str, do: str, size: int) -> float:
        found = find(results, system, do, size)
        return float("nan") if found is None else float(found["ratio"])

    def at_most(what: str, measured: float, limit: float) -> tuple[str, str, bool]:
        return f"{what}: at most {limit:.2f}× the floor", f"{measured:.2f}×", measured <= limit

    yield at_most("encrypt, 32 bytes", ratio("byok", "encrypt", 32), 1.2)
    yield at_most("decrypt, 32 bytes", ratio("byok", "decrypt", 32), 1.6)
    yield at_most("encrypt_many, 1,000 × 32 bytes, each", ratio("byok", "encrypt_many", 32), 1.0)
    for direction in ("encrypt", "decrypt"):
        yield at_most(f"{direction}, 1 MiB, 95 % of its speed", ratio("byok", direction, 1 << 20), 1 / 0.95)
        threads = find(results, "byok", f"{direction}, 4 threads")
        speed = float("nan") if threads is None else threads["speed"]
        # Half a tenth is what two measurements of the same thing differ by here.
        yield f"{direction}, 4 threads in sum: no slower than one (±0.05)", f"{speed:.2f}", speed >= 0.95
        peers = [name for name in NAMES if name not in ("floor", "byok")]
        measured = {name: ratio(name, direction, 32) for name in peers}
        best = min((one for one in measured.values() if not isnan(one)), default=float("nan"))
        ours = ratio("byok", direction, 32)
        yield (
            f"{direction}, 32 bytes: faster than every peer",
            f"{ours:.2f}× against {best:.2f}×",
            ours < best,
        )


def print_results(results: list[Result], missing: dict[str, str]) -> None:
    for direction in ("encrypt", "decrypt"):
        console.print(table_of(results, direction))
    console.print("4 threads: their speed in sum, as a multiple of one thread's")
    for system, package in missing.items():
        remedy = PEER_ENVIRONMENT if system == "hierarchical" else "pip install 'byok[bench]'"
        console.print(f"{NAMES[system]}: not measured here: no module {package}; {remedy}", markup=False)
    verdicts = Table(title="Targets", title_justify="left")
    for column in ("target", "measured", ""):
        verdicts.add_column(column)
    for what, measured, is_met in targets(results):
        verdicts.add_row(what, measured, "met" if is_met else "[bold]missed[/]")
    console.print(verdicts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--peer-python", default=sys.executable, help="has the hierarchical keyring")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the tables")
    arguments = parser.parse_args()
    results, missing = run(arguments.peer_python, arguments.systems, arguments.rounds)
    if arguments.json:
        print(json.dumps({"results": results, "not_measured": missing}, indent=2))
    else:
        print_results(results, missing)


if __name__ == "__main__":
    main()
