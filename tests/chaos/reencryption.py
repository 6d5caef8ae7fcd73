"""A campaign under load: writers go on writing, a worker is killed in the middle, another goes on.

    python -m tests.chaos.reencryption --rows 200000

First one worker alone, for its pace beside what PostgreSQL does at best; then the campaign that a compromise
starts, with everything going on at once.
"""

import argparse
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

from byok.cli import processes
from byok.core.reencryption import CampaignState, CampaignWork, Phase, TargetColumn
from byok.embedded.stack import Stack
from byok.embedded.supervisor import Child
from byok.failpoints import FailPoint
from byok.services.fields import Cipher
from byok.settings import load_settings, use_environment
from byok.store import migrate
from byok.store.postgres import create_engine
from byok.wiring import Runtime, build
from tests.applications import Application, application, context
from tests.customers import add_key, join

PACE = {
    "BYOK_ENV": "test",  # allows fail points
    "BYOK_SWEEP_INTERVAL_SECONDS": "1",
    "BYOK_RECHECK_SECONDS": "0.5",
    "BYOK_DISPATCH_INTERVAL_SECONDS": "1",
}
WRITERS = 2
WRITES_PER_SECOND = 50  # of each writer
_CHUNK = 5_000
_COLUMNS = (
    "run",
    "state",
    "rows/s",
    "rewritten",
    "passes",
    "conflicts",
    "writes meanwhile",
    "lost writes",
    "rows on old versions",
    "workers killed",
)


@dataclass
class Report:
    """What a campaign came to, and what it did to the rows."""

    work: CampaignWork
    rewriting_seconds: float
    lost_writes: int
    old_rows: int
    writes: int
    audited: bool
    kills: int = 0

    @property
    def rows_per_second(self) -> float:
        """While it rewrote; the counts, the wait and the time after a death are not in it."""
        return self.work.campaign.tally.rewritten / self.rewriting_seconds


@dataclass
class Writer:
    """A service that updates and inserts rows of its own, and knows what it committed last."""

    cipher: Cipher
    target: Application
    number: int
    committed: dict[int, str]
    seed: int = 7
    writes: int = 0
    error: Exception | None = None
    stopped: threading.Event = field(default_factory=threading.Event)

    def start(self) -> threading.Thread:
        thread = threading.Thread(target=self._run, name=f"writer-{self.number}", daemon=True)
        thread.start()
        return thread

    def _run(self) -> None:
        chance = random.Random(self.seed + self.number)
        mine = list(self.committed)
        try:
            while not self.stopped.wait(1 / WRITES_PER_SECOND):
                value = f"write-{self.number}-{self.writes}"
                if chance.random() < 0.2:
                    row_id = mine[-1] + WRITERS
                    self.target.insert(self.cipher, {row_id: value})
                    mine.append(row_id)
                else:
                    row_id = chance.choice(mine)
                    token = self.cipher.encrypt(value.encode(), context=context(row_id))
                    self.target.write(row_id, token)
                self.committed[row_id] = value
                self.writes += 1
        except Exception as error:  # noqa: BLE001  # told to the thread that waits
            self.error = error


@dataclass
class Scene:
    """The stack, the application, a customer, and the processes."""

    stack: Stack
    environment: dict[str, str]
    runtime: Runtime
    target: Application
    cipher: Cipher
    committed: dict[int, str]

    def start_worker(self, name: str, point: FailPoint | None = None) -> Child:
        armed = {} if point is None else {"BYOK_FAIL_POINT": point.value}
        worker = processes.start_worker(self.stack, self.environment | armed, name)
        processes.wait_for_worker(self.stack, worker)
        return worker

    def wait_until(self, condition: Callable[[], bool], timeout_seconds: float = 300.0) -> None:
        deadline = time.monotonic() + timeout_seconds
        while not condition():
            assert time.monotonic() < deadline, "it takes too long"
            time.sleep(0.05)

    def rotate(self, reason: str) -> None:
        services = self.runtime.services
        requested = services.vault.request_rotation("acme", "pii", reason=reason)
        self.wait_until(lambda: not services.requests.get(requested.rotation.id).is_open, 60)

    def has_compromise(self) -> bool:
        works = self.runtime.services.campaigns.latest(1)
        return bool(works) and works[0].campaign.requested_by == "compromise"

    def latest(self) -> CampaignWork:
        return self.runtime.services.campaigns.latest(1)[0]

    def follow(
        self, at_share: float = 2.0, act: Callable[[], None] = lambda: None
    ) -> tuple[CampaignWork, float]:
        """Watch the latest campaign to its end; do something once a share of the rows is done. Returns how
        long rewriting took, without pauses of more than half a second, in which nobody worked."""
        seconds, last_change, last_seen = 0.0, time.monotonic(), -1
        while True:
            work = self.latest()
            now, seen = time.monotonic(), work.campaign.tally.seen
            if seen != last_seen and work.campaign.phase is not Phase.COUNT_BEFORE:
                seconds += now - last_change if now - last_change < 0.5 else 0.0
            if seen != last_seen:
                last_seen, last_change = seen, now
            if seen > at_share * max(work.campaign.rows, 1) and work.campaign.rows:
                at_share = 99.0
                act()
            if not work.campaign.is_open:
                return work, seconds
            time.sleep(0.02)

    def report(self, work: CampaignWork, seconds: float, writes: int, kills: int) -> Report:
        values = self.target.values(self.cipher)
        counts = work.campaign.to_version
        old = [column for column in ("email", "note") for one in self.target.versions(column) if one < counts]
        events = self.runtime.services.registry.audit_log("acme")
        return Report(
            work=work,
            rewriting_seconds=seconds,
            lost_writes=sum(values.get(row_id) != value for row_id, value in self.committed.items()),
            old_rows=len(old),
            writes=writes,
            audited=any(
                event.action == "campaign.finished" and event.details["campaign"] == str(work.campaign.id)
                for event in events
            ),
            kills=kills,
        )


@contextmanager
def scene(folder: Path, rows: int, *, durable: bool) -> Iterator[Scene]:
    """A customer with that many rows, and a Beat."""
    with Stack(folder / "home", durable=durable) as stack, application(stack) as target:
        environment = stack.environment | PACE | {"BYOK_APPLICATION_DATABASE_URL": target.url}
        engine = create_engine(environment["BYOK_DATABASE_URL"], 1)
        migrate.upgrade(engine)
        engine.dispose()
        use_environment(environment)
        runtime = build(load_settings())
        join(stack, runtime, "acme")
        add_key(runtime, "acme")
        cipher = runtime.services.vault.cipher("acme", "pii")
        committed = {row_id: f"user-{row_id}" for row_id in range(1, rows + 1)}
        for first in range(1, rows + 1, _CHUNK):
            last = min(first + _CHUNK, rows + 1)
            target.insert(cipher, {row_id: committed[row_id] for row_id in range(first, last)})
        target.run("ANALYZE users")
        runtime.services.targets.register(
            "acme", "pii", table="users", primary_key="id", actor="test",
            columns=[TargetColumn.parse(f"{name}=users.{name}:{{id}}") for name in ("email", "note")],
        )  # fmt: skip
        beat = processes.start_beat(stack, environment)
        try:
            yield Scene(stack, environment, runtime, target, cipher, committed)
        finally:
            stack.supervisor.stop([beat])
            runtime.close()


def alone(on: Scene) -> Report:
    """One worker, nobody else."""
    worker = on.start_worker("alone")
    on.rotate("forced")
    on.runtime.services.campaigns.start("acme", "pii", requested_by="test")
    work, seconds = on.follow()
    on.stack.supervisor.stop([worker])
    return on.report(work, seconds, 0, 0)


def under_load(on: Scene, point: FailPoint | None = None) -> Report:
    """A compromise while services write. The worker is killed, at a fail point or in the middle, and another
    takes over."""
    workers = [on.start_worker("first", point)]
    writers = [
        Writer(
            on.cipher,
            on.target,
            number,
            {row_id: v for row_id, v in on.committed.items() if row_id % 2 == number},
        )
        for number in range(WRITERS)
    ]
    threads = [writer.start() for writer in writers]

    def kill() -> None:
        if point is None:
            workers[0].process.kill()
        workers[0].process.wait()
        workers.append(on.start_worker("second"))

    on.rotate("compromise")
    on.wait_until(on.has_compromise, 60)
    work, seconds = on.follow(0.4 if point is None else -1.0, kill)
    for writer, thread in zip(writers, threads, strict=True):
        writer.stopped.set()
        thread.join()
        if writer.error is not None:
            raise writer.error
        on.committed |= writer.committed
    on.stack.supervisor.stop(workers[1:])
    return on.report(work, seconds, sum(writer.writes for writer in writers), len(workers) - 1)


def floor(on: Scene) -> float:
    """Rows a second that PostgreSQL rewrites by itself, in transactions of 500, with nothing else to do."""
    rows = len(on.committed)
    statement = sa.text(
        "UPDATE users SET email = email, note = note WHERE id > :after AND id <= :after + 500"
    )
    began = time.monotonic()
    for after in range(0, rows, 500):
        with on.target.engine.begin() as connection:
            connection.execute(statement, {"after": after})
    return rows / (time.monotonic() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    rows = parser.parse_args().rows
    table = Table(title=f"re-encryption of {rows} rows, half of them with a second column")
    for name in _COLUMNS:
        table.add_column(name)
    passed = True
    with tempfile.TemporaryDirectory() as folder, scene(Path(folder), rows, durable=True) as on:
        for name, act in (("one worker, alone", alone), ("under load", under_load)):
            one = act(on)
            campaign = one.work.campaign
            table.add_row(
                name, campaign.state, f"{one.rows_per_second:.0f}", str(campaign.tally.rewritten),
                str(campaign.pass_number), str(campaign.tally.conflicts), str(one.writes),
                str(one.lost_writes), str(one.old_rows), str(one.kills),
            )  # fmt: skip
            passed &= campaign.state is CampaignState.DONE and not one.lost_writes and not one.old_rows
        table.add_row("PostgreSQL itself", "", f"{floor(on):.0f}", *[""] * 7)
    Console(width=160).print(table)
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
