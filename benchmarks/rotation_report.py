"""What `benchmarks.rotations` measured, and the tables of it."""

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.cpu_split import PARTS, TITLES, cpu_ms
from benchmarks.kms_stub import OPERATIONS
from benchmarks.rotation_usage import Round
from benchmarks.sql_recording import Traffic

TARGET = 0.7
console = Console(width=110)


@dataclass(frozen=True)
class FloorRun:
    """The floor on all keys once."""

    rotations: int
    seconds: float
    cpu_seconds: float
    postgres_cpu_seconds: float

    @property
    def per_second(self) -> float:
        return self.rotations / self.seconds


@dataclass
class AtLatency:
    """Rounds in turns; the n-th of each are neighbours. ``latency_ms``: of the stub; None: the simulator."""

    latency_ms: float | None
    rounds: list[Round] = field(default_factory=list)
    floors: list[FloorRun] = field(default_factory=list)
    most_in_flight: int = 0

    @property
    def kms(self) -> str:
        return "simulator" if self.latency_ms is None else f"{self.latency_ms:g} ms"

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
    transactions: int = 0  # of the recorded tasks
    statements: list[tuple[str, float]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        report = asdict(self)
        for shown, one in zip(report["at"], self.at, strict=True):
            shown["rounds"] = [each.to_json() for each in one.rounds]
            shown["ratio"] = one.ratio if one.floors else None
        return report


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
        "KMS itself",
    )
    for one in report.at:
        if one.floors:
            table.add_row(
                one.kms,
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
            one.kms if not one.floors else "",
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
    ours = report.at[0].rounds[-1]
    table = _table("Per rotation", "what", "byok", "floor")
    floor_requests = {"GenerateDataKeyWithoutPlaintext": 1, "Decrypt": 1}
    for operation in OPERATIONS:
        count = ours.kms_requests[operation] / ours.rotations
        table.add_row(f"KMS: {operation}", f"{count:.2f}", f"{floor_requests.get(operation, 0):.2f}")
    for name in ("statements", "round_trips", "commits", "pings"):
        each = [f"{getattr(one, name) / report.keys:.2f}" for one in (report.traffic, report.floor_traffic)]
        table.add_row(f"PostgreSQL: {name.replace('_', ' ')}", *each)
    return table


def statements_table(report: Report) -> Table:
    table = _table("SQL of the tasks, which the floor repeats", "statement", "per rotation")
    for kind, count in report.statements:
        table.add_row(kind, f"{count:.3f}")
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
        for one in report.at:
            if one.most_in_flight:
                console.print(f"most KMS requests in flight at {one.kms}: {one.most_in_flight}")
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
