"""A worker with a pool of processes: its page has what all of them count, also after one is killed."""

import os
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from byok.cli import processes
from byok.core.metric_list import Origin
from byok.embedded.stack import Stack
from byok.embedded.supervisor import Child
from byok.wiring import Runtime
from tests.acceptance.conftest import PACE, Fleet
from tests.customers import join
from tests.metric_pages import assert_listed, read_page, value

pytestmark = pytest.mark.slow

KEYS = 6
WEEK, HOUR = timedelta(days=7), timedelta(hours=1)
OPTIONS = ["--pool", "processes", "--concurrency", "2"]


def done(port: int) -> float:
    return value(read_page(port), "byok_rotations_total", reason="initial", state="done") or 0


def test_a_pool_of_processes_counts_on_one_page(stack: Stack, runtime: Runtime, tmp_path: Path) -> None:
    customer = join(stack, runtime, "acme")
    port = stack.home.port("prefork-metrics")
    folder = tmp_path / "counts"
    together = {
        "BYOK_METRICS_PORT": str(port),
        "PROMETHEUS_MULTIPROC_DIR": str(folder),
        "BYOK_HEALTH_FOLDER": str(tmp_path),  # its threads are there when the pool is forked
    }
    worker = processes.start_worker(stack, stack.environment | PACE | together, "prefork", OPTIONS)
    try:
        processes.wait_for_worker(stack, worker)
        wait_until = waiting(stack, runtime, worker)
        create_keys(runtime, customer.name, range(KEYS))
        wait_until(lambda: done(port) == KEYS)
        pool = psutil.Process(worker.process.pid).children()
        assert {process_id for file in folder.glob("counter_*.db") if (process_id := file.stem[8:])} >= {
            str(one.pid) for one in pool
        }
        assert_listed(read_page(port), Origin.PROCESS)
        os.kill(pool[0].pid, signal.SIGKILL)
        pool[0].wait(10)
        assert done(port) == KEYS
        create_keys(runtime, customer.name, range(KEYS, KEYS + 2))
        wait_until(lambda: done(port) == KEYS + 2)
    finally:
        stack.supervisor.stop([worker])


def create_keys(runtime: Runtime, tenant: str, numbers: range) -> None:
    for number in numbers:
        runtime.services.registry.create_key(
            tenant, f"key-{number}", rotation_period=WEEK, lease_ttl=HOUR, actor="test"
        )


def waiting(stack: Stack, runtime: Runtime, worker: Child) -> Callable[[Callable[[], bool]], None]:
    return Fleet(stack, runtime, worker, worker).wait_until
