"""Fifty customers, one whose KMS hangs 3 s on each call, one always throttled: do the other 48 wait?

    python -m benchmarks.bulkhead                # 5 minutes

A real worker of 8 threads on the embedded stack. Every tenant rotates all its
keys at once, 4 each and 16 of each of the two, which ask first; the time is
from the request to the end, as PostgreSQL has it. The run without the two and the run with them take
turns. Target: the p95 of the 48 stays within 1.3 times. The same with the bulkhead taken out shows
whether the figure would notice.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from uuid import UUID

import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

from byok.cli import processes
from byok.embedded.stack import Stack
from byok.embedded.supervisor import Child
from byok.settings import child_environment, load_settings, use_environment
from byok.simulator.control import SimulatorControl
from byok.store import migrate
from byok.wiring import Runtime, build
from tests.customers import Customer, add_key, join

TENANTS, KEYS = 50, 4
BAD_KEYS = 16  # twice the worker's threads: enough to fill it
PACE = {"BYOK_SWEEP_INTERVAL_SECONDS": "3", "BYOK_DISPATCH_INTERVAL_SECONDS": "5"}
TARGET = 1.3
console = Console()


class Fleet:
    """Fifty customers with their keys, and one worker."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.runtime: Runtime = build(load_settings())
        migrate.upgrade(self.runtime.engine)
        self.simulator = SimulatorControl(stack.simulator.url)
        self.customers: list[Customer] = []
        with console.status("fifty customers …"):
            for number in range(TENANTS):
                customer = join(stack, self.runtime, f"tenant-{number:02d}")
                for key in range(KEYS if number < TENANTS - 2 else BAD_KEYS):
                    add_key(self.runtime, customer.name, f"key-{key}")
                self.customers.append(customer)
        self.good, self.hanging, self.throttled = self.customers[:-2], self.customers[-2], self.customers[-1]

    def rotate(self, customers: list[Customer], keys: int = KEYS) -> list[UUID]:
        """Ask for a rotation of each key, in turns over the customers."""
        return [
            self.runtime.services.vault.request_rotation(customer.name, f"key-{key}").rotation.id
            for key in range(keys)
            for customer in customers
        ]

    def wait(self, rotations: list[UUID]) -> list[float]:
        """Seconds from request to end of each, once all are done."""
        query = sa.text(
            "SELECT EXTRACT(EPOCH FROM finished_at - requested_at), state FROM rotations"
            " WHERE id = ANY(:ids) AND finished_at IS NOT NULL"
        )
        while True:
            with self.runtime.engine.connect() as connection:
                rows = connection.execute(query, {"ids": rotations}).all()
            if len(rows) == len(rotations):
                return [float(seconds) for seconds, _ in rows]
            time.sleep(0.2)

    def alone(self) -> list[float]:
        return self.wait(self.rotate(self.good))

    def with_the_two(self) -> list[float]:
        self.simulator.hang(3, account=self.hanging.account.account_id)
        self.simulator.throttle(account=self.throttled.account.account_id)
        bad = self.rotate([self.hanging, self.throttled], BAD_KEYS)
        seconds = self.wait(self.rotate(self.good))
        self.simulator.clear_faults()
        self.wait(bad)
        return seconds


def start(stack: Stack, application: str) -> list[Child]:
    environment = child_environment({**stack.environment, **PACE})
    worker = [sys.executable, "-m", "celery", "-A", application, "worker", "--loglevel", "INFO"]
    children = [stack.supervisor.spawn("worker", worker, environment)]
    processes.wait_for_worker(stack, children[0])
    beat = [sys.executable, "-m", "celery", "-A", "workers", "beat", "--loglevel", "WARNING", "--pidfile="]
    return [*children, stack.supervisor.spawn("beat", beat, environment)]


def p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    table = Table(title="time of a rotation, 48 good customers", title_justify="left")
    for column in ("worker", "alone p50", "p95", "with the two p50", "p95", "ratio of p95"):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder) / "home", durable=False) as stack:
        use_environment(stack.environment)
        fleet = Fleet(stack)
        for name, application in (("byok", "workers"), ("without bulkhead", "benchmarks.unguarded_app")):
            children = start(stack, application)
            fleet.alone()  # to warm up
            alone: list[float] = []
            together: list[float] = []
            for number in range(arguments.rounds):
                with console.status(f"{name}, round {number + 1} …"):
                    alone += fleet.alone()
                    together += fleet.with_the_two()
            ratio = p95(together) / p95(alone)
            figures = [statistics.median(alone), p95(alone), statistics.median(together), p95(together)]
            console.print(f"{name}: {ratio:.2f}")
            table.add_row(name, *(f"{figure:.2f} s" for figure in figures), f"{ratio:.2f}")
            stack.supervisor.stop(children)
        fleet.runtime.close()
    console.print(table)
    console.print(f"target: {TARGET} or less for byok")


if __name__ == "__main__":
    main()
