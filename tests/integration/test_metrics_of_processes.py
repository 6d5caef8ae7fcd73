"""Forked processes count together, and none of them takes its counts along when it dies."""

import re
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from byok.embedded.stack import Stack
from byok.metrics import ProcessFolder
from byok.wiring import Runtime
from tests.customers import add_key, join
from tests.scripts import run_script

# Each child counts, says so, and lives until it is killed.
SCRIPT = """
import os, signal, sys
from pathlib import Path
from prometheus_client import CollectorRegistry, generate_latest
from byok.metrics import ProcessFolder, PrometheusMetrics

metrics = PrometheusMetrics()
metrics.integrity_alarm()
reader, writer = os.pipe()

def child(alarms, leases):
    pid = os.fork()
    if pid == 0:
        metrics.forget()
        for _ in range(alarms):
            metrics.integrity_alarm()
        metrics.leases_held(leases)
        metrics.stop_reached(__import__("datetime").timedelta(seconds=2))
        os.write(writer, b"x")
        signal.pause()
    os.read(reader, 1)
    return pid

registry = CollectorRegistry()
registry.register(ProcessFolder(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])))

def show(when):
    for line in generate_latest(registry).decode().splitlines():
        if line.startswith(("byok_integrity_alarms_total", "byok_leases_held", "byok_stop_seconds_count")):
            print(when, line)

first, second = child(2, 10), child(3, 100)
show("alive")
os.kill(first, signal.SIGKILL)
os.waitpid(first, 0)
show("one died")
third = child(4, 1000)
show("another came")
for pid in (second, third):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where processes that are started from here count together."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    return tmp_path


def test_a_death_loses_no_count_and_takes_its_gauges_along(stack: Stack, folder: Path) -> None:
    told = re.findall(r"^([\w ]+) (byok_\w+) ([\d.]+)$", run_script(stack, "-c", SCRIPT), re.MULTILINE)
    seen = {(when, name): float(value) for when, name, value in told}
    alarms, leases, stops = "byok_integrity_alarms_total", "byok_leases_held", "byok_stop_seconds_count"
    assert [seen["alive", name] for name in (alarms, leases, stops)] == [1 + 2 + 3, 110, 2]
    assert [seen["one died", name] for name in (alarms, leases, stops)] == [6, 100, 2]
    assert [seen["another came", name] for name in (alarms, leases, stops)] == [10, 1100, 3]


def test_a_process_tells_how_many_leases_it_holds(stack: Stack, runtime: Runtime) -> None:
    registry = CollectorRegistry()
    registry.register(runtime.services.vault.metrics_collector())

    def held() -> float | None:
        return registry.get_sample_value("byok_leases_held")

    join(stack, runtime, "acme")
    add_key(runtime, "acme")
    runtime.services.watch.close()
    assert held() == 0
    runtime.services.vault.cipher("acme", "pii").encrypt(b"x", context=b"c")
    deadline = time.monotonic() + 20
    while held() != 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    runtime.services.vault.close()
    assert held() == 0


def test_before_the_first_count_what_the_dead_left_is_removed(stack: Stack, folder: Path) -> None:
    run_script(stack, "-c", SCRIPT)
    assert list(folder.glob("counter_*.db"))
    (folder / "counter_1.db").touch()  # of a process that lives
    ProcessFolder(folder).clear()
    assert [file.name for file in folder.glob("*.db")] == ["counter_1.db"]
