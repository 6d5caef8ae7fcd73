"""A fleet of real processes, and a real Prometheus that asks them each second, under the rules in a hurry."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import sqlalchemy as sa
import yaml

from byok.cli import processes
from byok.embedded.stack import Stack
from byok.embedded.supervisor import Child
from byok.settings import child_environment, load_settings, use_environment
from byok.store import migrate
from byok.store.postgres import create_engine
from byok.wiring import build
from deploy.monitoring.alerts import alerts
from deploy.monitoring.rules import EXPORTER_JOB, WORKERS_JOB, Pace, rules_file
from tests.chaos.fleet import Fleet
from tests.ports import unused_port

# An hour of the rules is ten seconds here. The exporter reads anew every 5 s, a sweep may be late.
HURRY = Pace(360, shortest=timedelta(seconds=10))
PACE = {
    "BYOK_DISPATCH_INTERVAL_SECONDS": "2",
    "BYOK_SWEEP_INTERVAL_SECONDS": "2",
    "BYOK_PROBE_INTERVAL_SECONDS": "2",
}
# Nobody of this fleet takes the queue of campaigns, so that a test can fill it.
_QUEUES = ("-Q", "rotate.forced,maintenance,validate,rotate.scheduled")
FIRES_WITHIN_SECONDS = 60.0

_SERVICE = """
import sys, time
from byok import connect
connect().cipher(sys.argv[1], sys.argv[2]).encrypt(b"x", context=b"users.email:1")
print("holds a lease", flush=True)
time.sleep(3600)
"""


class WatchedFleet:
    """A fleet with an exporter and a Prometheus."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.fleet.environment = {**fleet.environment, **PACE}
        self._ports = {name: unused_port() for name in ("worker", "exporter", "prometheus")}
        self.worker: Child
        self.exporter: Child

    # --- processes --------------------------------------------------------------------------------

    def start(self) -> None:
        """Start all, and wait until Prometheus has heard of each."""
        self.start_worker()
        self.fleet.beat = self.fleet.start_beat()
        self.start_exporter()
        self._start_prometheus()
        self.wait_quiet("ByokExporterDown", "ByokBeatSilent", "ByokNoWorker", "ByokWorkersNotScraped")

    def start_worker(self) -> None:
        """Start the worker that Prometheus asks, and wait until it is ready."""
        self.worker = self.start_another_worker(*_QUEUES, BYOK_METRICS_PORT=str(self._ports["worker"]))

    def start_another_worker(self, *options: str, **settings: str) -> Child:
        """Start one that Prometheus knows nothing of."""
        environment = {**self.fleet.environment, **settings}
        name = f"worker-{time.monotonic_ns()}"
        worker = processes.start_worker(self.fleet.stack, environment, name, options)
        processes.wait_for_worker(self.fleet.stack, worker)
        return worker

    def start_exporter(self) -> None:
        """Start the exporter."""
        environment = {**self.fleet.environment, "BYOK_EXPORTER_PORT": str(self._ports["exporter"])}
        self.exporter = self._spawn("exporter", [sys.executable, "-m", "byok.cli", "exporter"], environment)

    def start_service(self, tenant: str, key: str) -> Child:
        """Start a service that holds a lease, and wait until it does."""
        argv = [sys.executable, "-c", _SERVICE, tenant, key]
        service = self._spawn("service", argv, self.fleet.environment)
        self.fleet.stack.supervisor.wait_for_line(service, "holds a lease", timeout_seconds=30)
        return service

    def _start_prometheus(self) -> None:
        folder = self.fleet.stack.home.path / "prometheus"
        folder.mkdir()
        (folder / "rules.yml").write_text(rules_file(alerts(HURRY), HURRY))
        targets = {EXPORTER_JOB: self._ports["exporter"], WORKERS_JOB: self._ports["worker"]}
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yml"],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
                for job, port in targets.items()
            ],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        argv = [
            "prometheus",
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{self._ports['prometheus']}",
        ]
        self._spawn("prometheus", argv, {})

    def _spawn(self, name: str, argv: Sequence[str], environment: Mapping[str, str]) -> Child:
        return self.fleet.stack.supervisor.spawn(
            f"{name}-{time.monotonic_ns()}",
            argv,
            child_environment(environment),
            emergency_signal=signal.SIGKILL,
        )

    def byok(self, *arguments: str, fails: bool = False) -> str:
        """What a command of byok's prints, as an operator runs it."""
        environment = child_environment(dict(self.fleet.environment))
        done = subprocess.run(
            [sys.executable, "-m", "byok.cli", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode != 0) is fails, done.stdout + done.stderr
        return done.stdout

    def execute(self, statement: str, **values: object) -> None:
        """A hand in the database."""
        with self.fleet.engine.begin() as connection:
            connection.execute(sa.text(statement), values)

    # --- alerts -----------------------------------------------------------------------------------

    def firing(self) -> list[dict[str, Any]]:
        """The alerts that fire now, with ``labels`` and ``annotations``; none while Prometheus starts."""
        url = f"http://127.0.0.1:{self._ports['prometheus']}/api/v1/alerts"
        try:
            with urlopen(url, timeout=10) as reply:
                listed = json.load(reply)["data"]["alerts"]
        except (URLError, ConnectionError):
            return []
        return [one for one in listed if one["state"] == "firing"]

    def names_firing(self) -> set[tuple[str, str]]:
        """Names and severities of the alerts that fire now."""
        return {(one["labels"]["alertname"], one["labels"]["severity"]) for one in self.firing()}

    def wait_for(
        self, *wanted: tuple[str, str], meanwhile: Callable[[], object] = lambda: None
    ) -> list[dict[str, Any]]:
        """Wait until each of these has fired, not all at one time; return them as they were told."""
        told: dict[tuple[str, str], dict[str, Any]] = {}
        deadline = time.monotonic() + FIRES_WITHIN_SECONDS
        while missing := set(wanted) - set(told):
            assert time.monotonic() < deadline, f"{missing} did not fire, but {self.names_firing()}"
            meanwhile()
            time.sleep(0.5)
            told |= {(one["labels"]["alertname"], one["labels"]["severity"]): one for one in self.firing()}
        return [told[one] for one in wanted]

    def wait_quiet(self, *names: str) -> None:
        """Wait until none of these fires. Prometheus answers by then."""
        deadline = time.monotonic() + FIRES_WITHIN_SECONDS
        while not self._answers() or {name for name, _ in self.names_firing()} & set(names):
            assert time.monotonic() < deadline, f"{self.names_firing()} are firing still"
            time.sleep(0.5)

    def _answers(self) -> bool:
        query = f"http://127.0.0.1:{self._ports['prometheus']}/api/v1/query?query=byok_reachable"
        try:
            with urlopen(query, timeout=10) as reply:
                return bool(json.load(reply)["data"]["result"])
        except (URLError, ConnectionError):
            return False


@contextmanager
def watched_fleet(folder: Path) -> Iterator[WatchedFleet]:
    """All of it, started. This process runs under the fleet's settings meanwhile."""
    before = dict(os.environ)
    with Stack(folder / "home", durable=False) as stack:
        engine = create_engine(stack.environment["BYOK_DATABASE_URL"], 4)
        migrate.upgrade(engine)
        use_environment({**stack.environment, "BYOK_ENV": "test", "BYOK_RECHECK_SECONDS": "1"})
        runtime = build(load_settings())
        watched = WatchedFleet(Fleet(stack, runtime, engine))
        try:
            watched.start()
            yield watched
        finally:
            runtime.close()
            engine.dispose()
            os.environ.clear()
            os.environ.update(before)
