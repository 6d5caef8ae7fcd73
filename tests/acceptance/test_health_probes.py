"""``byok-health`` beside a real worker and a real Beat that are frozen, cut off, and well again."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa

from byok import health
from byok.cli import processes
from byok.embedded.stack import Stack
from byok.embedded.supervisor import Child
from byok.settings import child_environment
from tests.acceptance.conftest import PACE
from tests.conftest import empty
from tests.ports import unused_port
from tests.proxy import Cut, CuttableProxy
from tests.redis_servers import Server, valkey

pytestmark = pytest.mark.slow
WITHIN = "8"  # seconds: four signs


@dataclass
class Host:
    """A worker and a Beat with a broker of their own, and a path to PostgreSQL that can be cut."""

    stack: Stack
    folder: Path
    broker: Server
    postgres: CuttableProxy
    worker: Child
    beat: Child

    def probe(self, question: str, role: str) -> str:
        """What the command says; empty where the answer is yes."""
        asked = subprocess.run(
            [sys.executable, "-m", "byok.health", question, role, "--within", WITHIN],
            env=child_environment({"BYOK_HEALTH_FOLDER": str(self.folder)}),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (asked.returncode == 0) == (asked.stdout == f"{role}: {question}\n"), asked
        return "" if asked.returncode == 0 else asked.stdout

    def wait_for(self, question: str, role: str, part: str, timeout_seconds: float = 60.0) -> float:
        """Wait until the answer has ``part``, which is empty for yes; how long that took."""
        began = time.monotonic()
        while not ((said := self.probe(question, role)) == part or (part and part in said)):
            assert time.monotonic() < began + timeout_seconds, (said, self.worker.log_tail(30))
            time.sleep(0.2)
        return time.monotonic() - began


@pytest.fixture
def host(stack: Stack, engine: sa.Engine, tmp_path: Path) -> Iterator[Host]:
    empty(engine)
    port = unused_port()
    url = sa.make_url(stack.environment["BYOK_DATABASE_URL"])
    assert url.port is not None
    with CuttableProxy(url.port) as postgres, valkey(stack, tmp_path / "broker", port=port) as broker:
        environment = stack.environment | PACE | {
            "BYOK_BROKER_URL": f"redis://127.0.0.1:{port}/0",
            "BYOK_DATABASE_URL": url.set(port=postgres.port).render_as_string(hide_password=False),
            "BYOK_HEALTH_FOLDER": str(tmp_path),
        }  # fmt: skip
        worker = processes.start_worker(stack, environment, name="probed")
        beat = processes.start_beat(stack, environment, name="probed-beat")
        running = Host(stack, tmp_path, broker, postgres, worker, beat)
        for role in health.ROLES:
            running.wait_for("ready", role, "")
        yield running
        stack.supervisor.stop([worker, beat])


@pytest.mark.parametrize("role", health.ROLES)
def test_a_frozen_process_is_not_live_until_it_thaws(host: Host, role: str) -> None:
    process = (host.worker if role == "worker" else host.beat).process
    process.send_signal(signal.SIGSTOP)
    took = host.wait_for("live", role, "no sign of life for")
    assert took < float(WITHIN) + 5
    process.send_signal(signal.SIGCONT)
    host.wait_for("live", role, "")
    host.wait_for("ready", role, "")


def test_without_a_broker_both_are_live_and_not_ready(host: Host, tmp_path: Path) -> None:
    host.broker.kill()
    for role in health.ROLES:
        host.wait_for("ready", role, "no connection to the broker")
        assert host.probe("live", role) == ""
    with valkey(host.stack, tmp_path / "again", port=host.broker.port):
        for role in health.ROLES:
            host.wait_for("ready", role, "")


def test_without_postgresql_a_worker_is_live_and_not_ready(host: Host) -> None:
    host.postgres.cut(Cut.RESET)
    host.wait_for("ready", "worker", "PostgreSQL does not answer it")
    assert host.probe("live", "worker") == ""
    assert host.probe("ready", "beat") == ""
    host.postgres.mend()
    host.wait_for("ready", "worker", "")


def test_a_worker_that_ends_leaves_no_sign(host: Host) -> None:
    host.worker.process.terminate()
    host.worker.process.wait(30)
    assert "has given no sign of life" in host.probe("live", "worker")
