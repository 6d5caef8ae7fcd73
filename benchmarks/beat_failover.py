"""Two Beats, one of them killed, the broker emptied: how long does nobody tick?

    pip install -c constraints.txt -e '.[dev,bench]'
    python -m benchmarks.beat_failover            # 4 minutes; without RedBeat half of it

Runs on the embedded stack with a real worker. A job of 1 s is watched in the table of ticks; the figure
is the longest silence after each blow. Without a blow the longest silence is given, too.
"""

import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import redis
import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

from byok.cli import processes
from byok.embedded.stack import Stack
from byok.embedded.supervisor import Child
from byok.settings import child_environment
from byok.store import migrate
from byok.store.postgres import create_engine

PACE = {
    "BYOK_DISPATCH_INTERVAL_SECONDS": "1",
    "BYOK_SWEEP_INTERVAL_SECONDS": "2",
    "BYOK_RECHECK_SECONDS": "1",
}
CANDIDATES = {
    "celery.beat × 2, ticks in PostgreSQL": "workers",
    "RedBeat × 2, lock of 30 s": "benchmarks.redbeat_app",
}


def start_beat(stack: Stack, application: str, name: str) -> Child:
    argv = [sys.executable, "-m", "celery", "-A", application, "beat", "--loglevel", "INFO", "--pidfile="]
    return stack.supervisor.spawn(name, argv, child_environment({**stack.environment, **PACE}))


def longest_silence(engine: sa.Engine, seconds: float) -> tuple[float, int]:
    """The longest time between two ticks within the next ``seconds``, and how many ticks there were."""
    query = sa.text("SELECT began_at FROM ticks WHERE job = 'dispatch-due'")
    last_seen, last_change, longest, ticks = None, time.monotonic(), 0.0, 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with engine.connect() as connection:
            seen = connection.execute(query).scalar_one_or_none()
        if seen != last_seen:
            last_seen, last_change, ticks = seen, time.monotonic(), ticks + 1
        longest = max(longest, time.monotonic() - last_change)
        time.sleep(0.02)
    return longest, ticks


def leader(beats: list[Child]) -> Child:
    """The Beat that sends; with two that both do, the first."""
    sizes = [beat.log_file.stat().st_size for beat in beats]
    time.sleep(3)
    grown = [beat.log_file.stat().st_size - size for beat, size in zip(beats, sizes, strict=True)]
    return beats[grown.index(max(grown))]


def measure(
    stack: Stack, engine: sa.Engine, application: str, seconds: float
) -> list[tuple[str, float, int, str]]:
    broker = redis.Redis.from_url(stack.broker.url)
    broker.flushall()
    beats = [start_beat(stack, application, f"beat-{number}") for number in (1, 2)]
    time.sleep(6)
    rows: list[tuple[str, float, int, str]] = []

    def note(blow: str, act: Callable[[], object], watch_seconds: float) -> None:
        act()
        silence, ticks = longest_silence(engine, watch_seconds)
        alive = ", ".join(beat.name for beat in beats if beat.process.poll() is None)
        rows.append((blow, silence, ticks, alive))

    note("none", lambda: None, 10)
    killed = leader(beats)
    note("SIGKILL of the leader", killed.process.kill, seconds)
    note("FLUSHALL of the broker", broker.flushall, 15)

    def restart_broker() -> None:
        assert stack.broker.child is not None
        stack.supervisor.stop([stack.broker.child])
        stack.broker.start()
        stack.broker.wait()

    note("broker restarted, empty", restart_broker, 25)
    stack.supervisor.stop([beat for beat in beats if beat in stack.supervisor.children])
    return rows


def main() -> None:
    table = Table(title="Beat: the longest silence of a job of 1 s")
    for column in ("scheduler", "blow", "longest silence", "ticks seen", "Beats alive after"):
        table.add_column(column)
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder) / "home", durable=False) as stack:
        engine = create_engine(stack.environment["BYOK_DATABASE_URL"], 2)
        migrate.upgrade(engine)
        worker = processes.start_worker(stack, stack.environment | PACE)
        processes.wait_for_worker(stack, worker)
        for name, application in CANDIDATES.items():
            if application != "workers" and importlib.util.find_spec("redbeat") is None:
                print("left out: RedBeat is not installed (see the module's docstring)", file=sys.stderr)
                continue
            for blow, silence, ticks, alive in measure(stack, engine, application, 45):
                table.add_row(name, blow, f"{silence:.1f} s", str(ticks), alive)
        engine.dispose()
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
