"""Two hosts on one machine: each with processes, folders and paths to the servers of its own."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import sqlalchemy as sa

from benchmarks.kill_switch_service import Run
from byok.core.stops import StopReport
from byok.embedded.stack import Stack
from byok.embedded.supervisor import Child
from byok.settings import child_environment, load_settings, use_environment
from byok.store import migrate
from byok.store.postgres import create_engine
from byok.wiring import build
from tests.chaos.fleet import PACE, Fleet, KeyName
from tests.customers import Customer, add_key, join
from tests.proxy import Cut, CuttableProxy

ROOT = Path(__file__).parents[2]
SERVERS = ("BYOK_DATABASE_URL", "BYOK_BROKER_URL", "BYOK_CACHE_URL", "BYOK_KMS_ENDPOINT_URL")
TTL = timedelta(seconds=6)
# A worker is deaf for 10 to 30 s where packets are dropped (docs/celery.md).
RETURN_SECONDS = 60.0


class Host:
    """A machine: its processes, its folders, its path to each server."""

    def __init__(self, name: str, stack: Stack, folder: Path, paths: Mapping[str, CuttableProxy]) -> None:
        self.name = name
        self.stack = stack
        self.paths = paths
        self.folders = {what: folder / name / what for what in ("home", "tmp", "work")}
        self.reports = folder / f"{name}-reports"
        for made in (*self.folders.values(), self.reports):
            made.mkdir(parents=True)
        self.children: dict[str, Child] = {}

    def start(self, environment: Mapping[str, str]) -> None:
        """Start a worker and a Beat."""
        own = {name: _detour(environment[name], path.port) for name, path in self.paths.items()}
        self._environment = child_environment(
            {
                **environment,
                **own,
                "HOME": str(self.folders["home"]),
                "TMPDIR": str(self.folders["tmp"]),
                "PYTHONPATH": str(ROOT),
                "PYTHONDONTWRITEBYTECODE": "1",
                "PYTHONUNBUFFERED": "1",
                "PYTHONWARNINGS": "ignore:You're running the worker with superuser privileges",
            }
        )
        celery = ("-m", "celery", "-A", "workers")
        self._spawn("worker", *celery, "worker", "--loglevel", "INFO", "--hostname", f"worker@{self.name}")
        self._spawn("beat", *celery, "beat", "--loglevel", "INFO", "--pidfile=")

    def start_service(self, tenant: str) -> None:
        """Start a service that encrypts and decrypts all the time."""
        report = str(self.reports / tenant)
        self._spawn(tenant, "-m", "benchmarks.kill_switch_service", tenant, "pii", report)

    def _spawn(self, name: str, *arguments: str) -> None:
        self.children[name] = self.stack.supervisor.spawn(
            f"{self.name}-{name}",
            [sys.executable, *arguments],
            self._environment,
            popen_arguments={"cwd": self.folders["work"]},
        )

    def stop(self) -> None:
        self.stack.supervisor.stop(list(self.children.values()))

    def is_ready(self) -> bool:
        return "ready." in self.log()

    def cut(self, how: Cut) -> None:
        for path in self.paths.values():
            path.cut(how)

    def mend(self) -> None:
        for path in self.paths.values():
            path.mend()

    def log(self) -> str:
        """What its worker wrote."""
        return self.children["worker"].log_file.read_text(errors="replace")

    def rotations(self) -> int:
        """How many rotations its worker has brought to an end."""
        return sum(
            "Task byok.keys.rotate" in line and "succeeded" in line for line in self.log().splitlines()
        )

    def last_success(self, tenant: str) -> float:
        """When the last call ended that succeeded, as told up to 0.1 s ago; 0 if none did."""
        try:
            runs = [Run(**run) for run in json.loads((self.reports / tenant).read_text())["runs"]]
        except FileNotFoundError:
            return 0.0
        return max((run.ended_seconds for run in runs if run.code is None), default=0.0)

    def pids(self) -> set[int]:
        return {child.process.pid for child in self.children.values()}

    def left_behind(self) -> list[Path]:
        """What its processes wrote into their folders."""
        return [path for folder in self.folders.values() for path in folder.rglob("*")]


def _detour(url: str, port: int) -> str:
    direct = urlsplit(url)
    return urlunsplit(direct._replace(netloc=direct.netloc.replace(f":{direct.port}", f":{port}")))


@dataclass
class TwoHosts:
    """Both hosts, and the fleet's ledger beside them."""

    fleet: Fleet
    a: Host
    b: Host
    stopped: Customer
    served: Customer
    rotated: list[KeyName]  # of other customers

    def wait_until(self, condition: Callable[[], bool], timeout_seconds: float, what: str) -> None:
        assert self.fleet.wait_until(condition, timeout_seconds), f"{what}: {self.a.log()[-3000:]}"

    def now(self) -> datetime:
        """PostgreSQL's time."""
        with self.fleet.engine.connect() as connection:
            at: datetime = connection.execute(sa.text("SELECT clock_timestamp()")).scalar_one()
            return at

    def wait_for_service(self, host: Host, customer: Customer, since_seconds: float) -> None:
        """Wait until a host's service serves a customer."""
        self.wait_until(
            lambda: host.last_success(customer.name) >= since_seconds,
            RETURN_SECONDS,
            f"{host.name} does not serve {customer.name}",
        )

    def reports(self) -> Sequence[StopReport]:
        """The stops of the stopped customer, the newest first."""
        with self.fleet.runtime.store.transaction() as tx:
            return tx.stops.list_latest(self.stopped.tenant.id, limit=10)

    def taken_over(self, cut_at: datetime) -> dict[UUID, float]:
        """Rotations that were claimed again after the cut, and how many seconds after it."""
        again = sa.text("SELECT rotation_id, at FROM witness.claims WHERE at > :cut_at AND attempt > 1")
        with self.fleet.engine.connect() as connection:
            rows = connection.execute(again, {"cut_at": cut_at})
            return {row.rotation_id: (row.at - cut_at).total_seconds() for row in rows}

    def shortest_gaps(self) -> dict[str, float]:
        """By job, the fewest seconds between two ticks."""
        gaps = sa.text(
            "SELECT job, extract(epoch FROM min(gap)) AS shortest FROM (SELECT job, began_at -"
            " lag(began_at) OVER (PARTITION BY job ORDER BY began_at) AS gap FROM witness.ticks) t"
            " WHERE gap IS NOT NULL GROUP BY job"
        )
        with self.fleet.engine.connect() as connection:
            return {row.job: float(row.shortest) for row in connection.execute(gaps)}

    def decrypted_before(self, customer: Customer, cut_at: datetime) -> float:
        """How many seconds before the cut KMS last decrypted for a customer: no lease of A's is younger."""
        calls = self.fleet.simulator.calls(operation="Decrypt", key_arn=customer.kms_key, outcome="ok")
        times = [datetime.fromisoformat(call["at"]) for call in calls]
        return min((cut_at - at).total_seconds() for at in times if at <= cut_at)

    def ended(self) -> list[str]:
        """Processes that ended although nobody told them."""
        children = [*self.a.children.values(), *self.b.children.values()]
        return [child.log_tail(20) for child in children if child.process.poll() is not None]


# Written by the database itself, beside what the workers do.
_WITNESSES = """
CREATE SCHEMA witness;
CREATE TABLE witness.ticks (job text, began_at timestamptz);
CREATE TABLE witness.claims (rotation_id uuid, attempt integer, at timestamptz);
CREATE FUNCTION witness.tick() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO witness.ticks VALUES (NEW.job, NEW.began_at); RETURN NULL; END $$;
CREATE FUNCTION witness.claim() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO witness.claims VALUES (NEW.id, NEW.attempts, clock_timestamp()); RETURN NULL; END $$;
CREATE TRIGGER witness AFTER INSERT OR UPDATE OF began_at ON ticks
  FOR EACH ROW EXECUTE FUNCTION witness.tick();
CREATE TRIGGER witness AFTER UPDATE OF attempts ON rotations
  FOR EACH ROW WHEN (NEW.attempts > OLD.attempts) EXECUTE FUNCTION witness.claim();
"""


@contextmanager
def two_hosts(folder: Path) -> Iterator[TwoHosts]:
    """Start everything, and wait until both hosts work."""
    with ExitStack() as closing:
        closing.callback(use_environment, {name: os.environ[name] for name in os.environ if _is_ours(name)})
        stack = closing.enter_context(Stack(folder / "servers", durable=False))
        environment = stack.environment | PACE
        engine = create_engine(environment["BYOK_DATABASE_URL"], 4)
        closing.callback(engine.dispose)
        migrate.upgrade(engine)
        with engine.begin() as connection:
            connection.execute(sa.text(_WITNESSES))
        use_environment(environment)
        runtime = build(load_settings())
        closing.callback(runtime.close)
        fleet = Fleet(stack, runtime, engine)
        fleet.add_customers(tenants=4, keys=3)
        rotated = list(fleet.keys)
        stopped, served = (join(stack, runtime, name) for name in ("stopped", "served"))
        for customer in (stopped, served):
            add_key(runtime, customer.name, ttl=TTL)
            fleet.keys.append(KeyName(customer.name, "pii"))
        hosts: list[Host] = []
        for name in ("host-a", "host-b"):
            paths = {server: closing.enter_context(_path(stack, server)) for server in SERVERS}
            hosts.append(Host(name, stack, folder, paths))
            closing.callback(hosts[-1].stop)
            hosts[-1].start(environment)
            hosts[-1].start_service(stopped.name)
        both = TwoHosts(fleet, hosts[0], hosts[1], stopped, served, rotated)
        both.a.start_service(served.name)
        for host in hosts:
            both.wait_until(host.is_ready, 60, f"the worker of {host.name} is not ready")
            both.wait_for_service(host, stopped, 0.1)
        yield both


def _is_ours(name: str) -> bool:
    return name.startswith(("BYOK_", "AWS_"))


def _path(stack: Stack, server: str) -> CuttableProxy:
    port = urlsplit(stack.environment[server]).port
    assert port is not None
    return CuttableProxy(port)
