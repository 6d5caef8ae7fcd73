"""How many rotations a second, what each costs, and what of that is needed.

    pip install -c constraints.txt -e '.[dev,bench]'
    python -m benchmarks.rotations                   # 10 minutes
    python -m benchmarks.rotations --simulator       # over the enforcing simulator, without a floor
    python -m benchmarks.rotations --memory          # a worker's memory over 100,000 rotations
    python -m benchmarks.rotations --set BYOK_WORKER_CONCURRENCY=16 --threads 16 --json

Real PostgreSQL, Valkey and a real worker process; KMS is a stub (`benchmarks.kms_stub`), whose own ceiling is
printed. All keys are due at once; the time is from the dispatch to the last end that PostgreSQL has.

The floor is the same SQL and two KMS requests a rotation in a bare loop (`benchmarks.rotation_floor`), in as
many threads. It takes turns with the worker; a ratio is between two neighbours, and the median is shown.
Everything shares this machine's cores: absolute figures are its, ratios carry over. fsync is off, so that the
disk decides nothing.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from rich.console import Console
from rich.table import Table

from benchmarks import rotation_memory
from benchmarks.cpu_split import PARTS, TITLES, NoSampler, Sampler, cpu_ms, shares
from benchmarks.kms_stub import OPERATIONS, ceiling
from benchmarks.rotation_floor import load
from benchmarks.rotation_world import Kms, RotationWorld, Round, cpu_seconds
from benchmarks.sql_recording import FOLDER_VARIABLE, Traffic, read_traffic
from byok.embedded.stack import Stack
from byok.settings import child_environment

TARGET = 0.7
_BEFORE, _FLOOR = "byok_before", "byok_floor"
console, progress = Console(width=110), Console(stderr=True)


@dataclass(frozen=True)
class FloorRun:
    """The floor on all keys once."""

    rotations: int
    seconds: float
    cpu_seconds: float
    postgres_cpu_seconds: float
    commits: int

    @property
    def per_second(self) -> float:
        return self.rotations / self.seconds


@dataclass
class AtLatency:
    """Rounds in turns; the n-th of each are neighbours."""

    latency_ms: float
    rounds: list[Round] = field(default_factory=list)
    floors: list[FloorRun] = field(default_factory=list)
    most_in_flight: int = 0

    @property
    def ratio(self) -> float:
        pairs = zip(self.rounds, self.floors, strict=True)
        return statistics.median(ours.per_second / floor.per_second for ours, floor in pairs)


@dataclass
class Report:
    """All that was measured."""

    keys: int
    tenants: int
    threads: int
    settings: Mapping[str, str]
    stub_per_core_second: float = 0.0
    at: list[AtLatency] = field(default_factory=list)
    shares: dict[str, float] | None = None
    traffic: Traffic | None = None
    floor_traffic: Traffic | None = None
    statements: list[tuple[str, float]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        report = asdict(self)
        for shown, one in zip(report["at"], self.at, strict=True):
            shown["rounds"] = [each.to_json() for each in one.rounds]
            shown["ratio"] = one.ratio if one.floors else None
        return report


class Floors:
    """Runs the floor on copies of the database as it was before the recorded round."""

    def __init__(self, world: RotationWorld, recording: Path, threads: int) -> None:
        self._world = world
        self._recording = recording
        self._threads = threads
        base = world.database_url.rpartition("/")[0]
        self._admin_url, self._floor_url = f"{base}/postgres", f"{base}/{_FLOOR}"

    def keep_database(self) -> None:
        """Copy the database as it is; nobody may be connected to it."""
        self._world.disconnect()
        self._copy("byok", _BEFORE)

    def _copy(self, source: str, target: str) -> None:
        names = {"source": sql.Identifier(source), "target": sql.Identifier(target)}
        with psycopg.connect(self._admin_url, autocommit=True) as admin:
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {target} WITH (FORCE)").format(**names))
            admin.execute(sql.SQL("CREATE DATABASE {target} TEMPLATE {source}").format(**names))
            admin.execute("CHECKPOINT")

    def run(self, rotations: int, trace: Path | None = None) -> FloorRun:
        self._copy(_BEFORE, _FLOOR)
        postgres = self._world.stack.postgres.child
        assert postgres is not None
        argv = [sys.executable, "-m", "benchmarks.rotation_floor", str(self._recording)]
        argv += ["--database", self._floor_url, "--kms", self._world.kms.url]
        argv += ["--threads", str(self._threads), "--rotations", str(rotations)]
        argv += [] if trace is None else ["--trace", str(trace)]
        before, commits_before = cpu_seconds(postgres.process.pid), self._commits()
        done = subprocess.run(argv, env=child_environment({}), stdout=subprocess.PIPE, check=True)
        used, commits = cpu_seconds(postgres.process.pid) - before, self._commits() - commits_before
        told = json.loads(done.stdout)
        return FloorRun(rotations, told["seconds"], told["cpu_seconds"], used, commits)

    def _commits(self) -> int:
        with psycopg.connect(self._admin_url, autocommit=True) as admin:
            row = admin.execute(
                "SELECT xact_commit FROM pg_stat_database WHERE datname = %s", (_FLOOR,)
            ).fetchone()
        assert row is not None
        return int(row[0])


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
        measured = AtLatency(0.0)
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


# --- what is printed ------------------------------------------------------------------------------


def throughput_table(report: Report) -> Table:
    title = f"{report.keys:,} due keys of {report.tenants:,} tenants, {report.threads} threads; medians"
    table = _table(
        title,
        "KMS",
        "what",
        "rotations/s",
        "to the floor",
        "CPU-ms: process",
        "PostgreSQL",
        "Valkey",
        "KMS stub",
    )
    for one in report.at:
        if one.floors:
            table.add_row(
                f"{one.latency_ms:g} ms",
                "floor",
                f"{_median(floor.per_second for floor in one.floors):,.0f}",
                "1",
                f"{_median(floor.cpu_seconds * 1000 / floor.rotations for floor in one.floors):.2f}",
                f"{_median(floor.postgres_cpu_seconds * 1000 / floor.rotations for floor in one.floors):.2f}",
                "–",
                "–",
            )
        cpu = [
            f"{_median(each.cpu_ms(name) for each in one.rounds):.2f}"
            for name in ("worker", "postgres", "valkey", "kms")
        ]
        table.add_row(
            f"{one.latency_ms:g} ms" if not one.floors else "",
            "byok",
            f"{_median(each.per_second for each in one.rounds):,.0f}",
            f"{one.ratio:.2f}" if one.floors else "–",
            *cpu,
            end_section=True,
        )
    return table


def split_table(report: Report) -> Table:
    assert report.shares is not None
    total_ms = _median(each.cpu_ms("worker") for each in report.at[0].rounds)
    table = _table("Where the worker's CPU goes", "part", "CPU-ms per rotation", "share")
    parts = cpu_ms(report.shares, total_ms)
    for part in PARTS:
        table.add_row(TITLES[part], f"{parts[part]:.2f}", f"{report.shares[part]:.0%}")
    table.add_section()
    table.add_row("together", f"{total_ms:.2f}", "100%")
    return table


def counts_table(report: Report) -> Table:
    assert report.traffic is not None
    assert report.floor_traffic is not None
    ours, floor = report.at[0].rounds[-1], report.at[0].floors[-1]
    table = _table("Per rotation", "what", "byok", "floor")
    floor_requests = {"GenerateDataKeyWithoutPlaintext": 1, "Decrypt": 1}
    for operation in OPERATIONS:
        count = ours.kms_requests[operation] / ours.rotations
        table.add_row(f"KMS: {operation}", f"{count:.2f}", f"{floor_requests.get(operation, 0):.2f}")
    for what, name in (("SQL statements", "statements"), ("round trips", "round_trips"), ("pings", "pings")):
        each = [f"{getattr(one, name) / report.keys:.2f}" for one in (report.traffic, report.floor_traffic)]
        table.add_row(f"PostgreSQL: {what}", *each)
    table.add_row(
        "PostgreSQL: commits, pings included",
        f"{ours.commits / ours.rotations:.2f}",
        f"{floor.commits / floor.rotations:.2f}",
    )
    return table


def statements_table(report: Report) -> Table:
    table = _table("SQL of the tasks, which the floor repeats", "statement", "per rotation")
    for kind, count in report.statements:
        table.add_row(kind, f"{count:.2f}")
    return table


def print_report(report: Report) -> None:
    console.print(throughput_table(report))
    if report.shares is not None:
        console.print(split_table(report))
    if report.traffic is not None:
        console.print(counts_table(report), statements_table(report))
        console.print(
            f"KMS stub: {report.stub_per_core_second:,.0f} requests per second of its CPU", highlight=False
        )
        console.print(f"target: {TARGET} of the floor or more")
    deferrals = sum(each.deferrals for one in report.at for each in one.rounds)
    if deferrals:
        console.print(f"{deferrals} rotations were deferred, their tenant having too many calls at once")


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 or column == "what" else "right")
    return table


def _median(values: Any) -> float:  # noqa: ANN401  # any iterable of numbers
    return float(statistics.median(values))


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
        kms = Kms(stack, simulator=arguments.simulator)
        with RotationWorld(stack, kms) as world:
            if arguments.memory:
                rotation_memory.run(
                    world, arguments.threads, settings, arguments.rotations, as_json=arguments.json
                )
                return
            tenants = min(arguments.tenants, 25) if arguments.simulator else arguments.tenants
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
