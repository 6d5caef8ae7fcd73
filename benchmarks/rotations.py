"""How many rotations a second, what each costs, and what of that is needed.

    pip install -c constraints.txt -e '.[dev,bench]'
    python -m benchmarks.rotations                   # 10 minutes
    python -m benchmarks.rotations --simulator       # over the enforcing simulator, without a floor
    python -m benchmarks.rotations --memory          # a worker's memory over 100,000 rotations
    python -m benchmarks.rotations --threads 16 --set BYOK_TENANT_KMS_CALLS=4 --json

Real PostgreSQL, Valkey and a real worker process; KMS is a stub (`benchmarks.kms_stub`), whose own ceiling is
printed. All keys are due at once; the time is from the dispatch to the last end that PostgreSQL has.

The floor is the same SQL and two KMS requests a rotation in a bare loop (`benchmarks.rotation_floor`), in as
many threads. It takes turns with the worker; a ratio is between two neighbours, and the median is shown.
Everything shares this machine's cores: absolute figures are its, ratios carry over. fsync is off, so that the
disk decides nothing.
"""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from benchmarks import rotation_memory
from benchmarks.cpu_split import NoSampler, Sampler, shares
from benchmarks.floor_runs import Floors
from benchmarks.kms_process import KmsProcess
from benchmarks.kms_stub import ceiling
from benchmarks.rotation_floor import load
from benchmarks.rotation_report import AtLatency, Report, print_report
from benchmarks.rotation_world import RotationWorld
from benchmarks.sql_recording import FOLDER_VARIABLE, read_traffic
from byok.embedded.stack import Stack

progress = Console(stderr=True)


class Benchmark:
    """One fleet of keys, one worker at a time."""

    def __init__(
        self, world: RotationWorld, report: Report, folder: Path, stacks: Path | None = None
    ) -> None:
        self._world = world
        self._stacks = stacks
        self._report = report
        self._recording, self._floor_traces = folder / "recording", folder / "floor"
        self._recording.mkdir()
        self._floor_traces.mkdir()
        self._floors = Floors(world, self._recording, report.threads)

    def start_worker(self, application: str = "workers", **environment: str) -> None:
        self._world.start_worker(
            self._report.threads,
            application=application,
            environment={**self._report.settings, **environment},
        )

    def run(self, latencies_ms: Sequence[float], rounds: int) -> None:
        with progress.status("first versions …"):
            self._world.add_keys(self._report.tenants, self._report.keys)
            self.start_worker()
            self._world.rotate_all()
            self._world.stop_worker()
        self._record()
        self.start_worker()
        self._world.rotate_all()  # to warm up
        for latency_ms in latencies_ms:
            self._measure(latency_ms, rounds)
        self._world.kms.set_latency(0)
        self._split()

    def run_over_simulator(self, rounds: int) -> None:
        with progress.status("customers with accounts …"):
            self._world.add_keys(self._report.tenants, self._report.keys)
        self.start_worker()
        self._world.rotate_all()
        measured = AtLatency(None)
        for number in range(rounds):
            with progress.status(f"simulator, round {number + 1} …"):
                measured.rounds.append(self._world.rotate_all())
        self._report.at.append(measured)

    def _record(self) -> None:
        """One round with everything written down; then the floor's traffic, likewise."""
        report = self._report
        with progress.status("recording …"):
            self._floors.keep_database()
            self.start_worker("benchmarks.recording_app", **{FOLDER_VARIABLE: str(self._recording)})
            self._world.rotate_all()
            self._world.stop_worker()
            report.traffic = read_traffic(self._recording)
            report.statements = statements_of(self._recording, report.keys)
            report.transactions = sum(len(task.transactions) for task in load(self._recording))
            self._floors.run(report.keys, self._floor_traces)
            report.floor_traffic = read_traffic(self._floor_traces)

    def _measure(self, latency_ms: float, rounds: int) -> None:
        measured, kms = AtLatency(latency_ms), self._world.kms
        kms.set_latency(latency_ms)
        for number in range(rounds):
            with progress.status(f"KMS at {latency_ms:g} ms, round {number + 1} of {rounds} …"):
                if number % 2:
                    measured.floors.append(self._floors.run(self._report.keys))
                measured.rounds.append(self._world.rotate_all())
                measured.most_in_flight = max(measured.most_in_flight, kms.counts()["most_in_flight"])
                if not number % 2:
                    measured.floors.append(self._floors.run(self._report.keys))
        self._report.at.append(measured)

    def _split(self) -> None:
        assert self._world.worker is not None
        with progress.status("where the CPU goes …"):
            try:
                sampler = Sampler(self._world.worker.process.pid)
                self._world.rotate_all()
                samples = sampler.stop()
                self._report.shares = shares(samples)
                if self._stacks is not None:
                    self._stacks.write_text(samples)
            except NoSampler as error:
                progress.print(f"no split: {error}", markup=False)


def statements_of(recording: Path, rotations: int) -> list[tuple[str, float]]:
    """Kinds of statements in transactions of tasks, and how many of each per rotation."""
    kinds: Counter[str] = Counter()
    for task in load(recording):
        for transaction in task.transactions:
            for statement in transaction.statements:
                kinds[kind_of(statement.text)] += 1
    return [(kind, count / rotations) for kind, count in kinds.most_common()]


def kind_of(text: str) -> str:
    """Verb and table, as ``UPDATE rotations``."""
    words = text.replace("(", " ").split()
    verb = words[0].upper()
    marks = {"SELECT": "FROM", "INSERT": "INTO", "DELETE": "FROM", "UPDATE": "UPDATE", "WITH": "UPDATE"}
    upper = [word.upper() for word in words]
    with suppress(ValueError, KeyError, IndexError):
        return f"{verb} {words[upper.index(marks[verb]) + 1]}"
    return verb


def parse_settings(pairs: Sequence[str]) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keys", type=int, default=1000)
    parser.add_argument("--tenants", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=8, help="of the worker, and of the floor")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--latency-ms", type=float, nargs="+", default=[0.0, 10.0])
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="the worker's environment")
    parser.add_argument(
        "--simulator", action="store_true", help="the enforcing simulator in place of the stub"
    )
    parser.add_argument("--memory", action="store_true", help="a worker's memory over many rotations")
    parser.add_argument("--rotations", type=int, default=100_000, help="with --memory: how many")
    parser.add_argument("--stacks", type=Path, metavar="FILE", help="keep the samples, for flamegraph.pl")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the tables")
    arguments = parser.parse_args()
    settings = parse_settings(arguments.set)
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder) / "home", durable=False) as stack:
        kms = KmsProcess(stack, simulator=arguments.simulator)
        with RotationWorld(stack, kms) as world:
            if arguments.memory:
                rotation_memory.run(
                    world, arguments.threads, settings, arguments.rotations, as_json=arguments.json
                )
                return
            tenants = min(arguments.tenants, arguments.keys, 25 if arguments.simulator else arguments.keys)
            report = Report(arguments.keys, tenants, arguments.threads, settings)
            benchmark = Benchmark(world, report, Path(folder), arguments.stacks)
            if arguments.simulator:
                benchmark.run_over_simulator(arguments.rounds)
            else:
                report.stub_per_core_second = ceiling(kms.port, kms.cpu_seconds)
                benchmark.run(arguments.latency_ms, arguments.rounds)
    if arguments.json:
        print(json.dumps(report.to_json(), indent=2))
    else:
        print_report(report)


if __name__ == "__main__":
    main()
