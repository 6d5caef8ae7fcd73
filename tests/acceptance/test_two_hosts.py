"""Two hosts that share PostgreSQL, Redis and KMS, and nothing else; one is cut off from all, and returns.

Each host is a real worker, a real Beat and services that encrypt, with a home, a temporary folder and a
working folder of its own, and with its own path to each server.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import pytest
import sqlalchemy as sa

from benchmarks.kill_switch_service import Run, now_seconds
from byok.core.model import Job
from byok.core.stops import StopReport, revocation_bound
from byok.embedded.stack import Stack
from byok.embedded.supervisor import Child
from byok.settings import child_environment, load_settings, use_environment
from byok.store import migrate
from byok.store.postgres import create_engine
from byok.wiring import build
from tests.chaos import fleet as chaos
from tests.chaos import invariants
from tests.chaos.fleet import Fleet, KeyName
from tests.customers import Customer, add_key, join
from tests.proxy import Cut, CuttableProxy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[2]
SERVERS = ("BYOK_DATABASE_URL", "BYOK_BROKER_URL", "BYOK_CACHE_URL", "BYOK_KMS_ENDPOINT_URL")
TTL = timedelta(seconds=6)
PROBE_PERIOD = timedelta(seconds=5)  # half of the TTL, and 5 s at least
DISPATCH_SECONDS = float(chaos.PACE["BYOK_DISPATCH_INTERVAL_SECONDS"])
SLOW_KMS_SECONDS = 1.0  # a rotation is in the middle for at least as long
# The message of the sweeper waits for a thread of B's; the machine may be busy.
ALLOWANCE_SECONDS = 3.0
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
        """When the last call began that succeeded; 0 if none did."""
        try:
            runs = [Run(**run) for run in json.loads((self.reports / tenant).read_text())["runs"]]
        except FileNotFoundError:
            return 0.0
        return max((run.last_seconds for run in runs if run.code is None), default=0.0)

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

    def report(self) -> StopReport | None:
        """The latest stop of the stopped customer."""
        with self.fleet.runtime.store.transaction() as tx:
            return next(iter(tx.stops.list_latest(self.stopped.tenant.id, limit=1)), None)

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


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoHosts]:
    before = dict(os.environ)
    folder = tmp_path_factory.mktemp("hosts")
    with ExitStack() as closing:
        stack = closing.enter_context(Stack(folder / "servers", durable=False))
        environment = stack.environment | chaos.PACE
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
        a, b = (
            Host(
                name,
                stack,
                folder,
                {server: closing.enter_context(_path(stack, server)) for server in SERVERS},
            )
            for name in ("host-a", "host-b")
        )
        both = TwoHosts(fleet, a, b, stopped, served, rotated)
        for host in (a, b):
            closing.callback(host.stop)
            host.start(environment)
            host.start_service(stopped.name)
        a.start_service(served.name)
        for host in (a, b):
            both.wait_until(host.is_ready, 60, f"the worker of {host.name} is not ready")
            both.wait_for_service(host, stopped, 0.1)
        yield both
    os.environ.clear()
    os.environ.update(before)


def _path(stack: Stack, server: str) -> CuttableProxy:
    port = urlsplit(stack.environment[server]).port
    assert port is not None
    return CuttableProxy(port)


def test_both_share_the_work(hosts: TwoHosts) -> None:
    def both_have() -> bool:
        hosts.fleet.storm(hosts.rotated)
        return hosts.fleet.settle() and hosts.a.rotations() > 0 and hosts.b.rotations() > 0

    hosts.wait_until(both_have, 60, "one of the workers does nothing")


@pytest.mark.parametrize("how", list(Cut))
def test_a_host_is_cut_off_and_returns(hosts: TwoHosts, how: Cut) -> None:
    fleet, a, b = hosts.fleet, hosts.a, hosts.b

    # In the middle of rotations.
    fleet.simulator.hang(SLOW_KMS_SECONDS, operation="GenerateDataKeyWithoutPlaintext")
    fleet.storm(hosts.rotated)
    claimed = "SELECT count(*) FROM rotations WHERE claimed_until > clock_timestamp()"
    concurrency = int(chaos.PACE["BYOK_WORKER_CONCURRENCY"])
    hosts.wait_until(
        lambda: fleet.count(claimed) > concurrency, 20, "A has claimed nothing"
    )  # B can't have all
    a.cut(how)
    cut_at, cut_seconds = hosts.now(), now_seconds()
    fleet.simulator.clear_faults()

    # B takes over, once.
    assert fleet.settle(), "B does not take over"
    late = taken_over(fleet.engine, cut_at)
    assert late
    bound_seconds = 2 * chaos.SWEEP_SECONDS + ALLOWANCE_SECONDS
    print(f"{len(late)} rotations taken over, the last {max(late.values()):.1f} s after the cut")
    assert max(late.values()) < bound_seconds

    # A customer takes the access away meanwhile.
    bound = revocation_bound(TTL, PROBE_PERIOD, timedelta(seconds=float(chaos.PACE["BYOK_RECHECK_SECONDS"])))
    before = hosts.report()
    revoked_seconds = now_seconds()
    hosts.stopped.account.disable_key(hosts.stopped.kms_key)
    hosts.wait_until(lambda: hosts.report() != before, 20, "B does not notice the revocation")
    time.sleep(max(0.0, revoked_seconds + bound.polled.total_seconds() - now_seconds()))
    report = hosts.report()
    assert report is not None
    silent = {int(member.split()[1].partition("@")[0]) for member in report.silent}
    assert a.children[hosts.stopped.name].process.pid in silent
    assert silent <= a.pids(), report.silent
    assert report.answered > 0
    assert b.last_success(hosts.stopped.name) - revoked_seconds < bound.polled.total_seconds()
    for customer in (hosts.stopped, hosts.served):
        served_seconds = a.last_success(customer.name) - cut_seconds
        lease_seconds = TTL.total_seconds() - decrypted_before(fleet, customer, cut_at)
        print(f"A served {customer.name} for {served_seconds:.1f} s, {lease_seconds:.1f} s allowed")
        assert served_seconds < lease_seconds

    # A returns, and nobody restarts it.
    mended_seconds, done_before = now_seconds(), a.rotations()
    a.mend()
    hosts.wait_until(lambda: not current(hosts).silent, RETURN_SECONDS, "A does not acknowledge the stop")
    print(f"acknowledged {now_seconds() - mended_seconds:.1f} s after the return")
    hosts.wait_for_service(a, hosts.served, mended_seconds)
    print(f"served again after {now_seconds() - mended_seconds:.1f} s")

    def a_works() -> bool:
        fleet.storm(hosts.rotated[:4])
        time.sleep(0.5)
        return a.rotations() > done_before

    hosts.wait_until(a_works, RETURN_SECONDS, "A's worker does not work")
    print(f"worked again after {now_seconds() - mended_seconds:.1f} s")
    assert a.last_success(hosts.stopped.name) < revoked_seconds + bound.unprobed.total_seconds()

    # All is well, and was.
    assert fleet.settle()
    verdict = invariants.look(fleet)
    assert verdict.good, verdict
    assert hosts.ended() == []
    gaps_seconds = shortest_gaps(fleet.engine)
    assert gaps_seconds[Job.DISPATCH_DUE] >= 0.9 * DISPATCH_SECONDS  # as early as a tick may be
    assert gaps_seconds[Job.SWEEP] >= 0.9 * chaos.SWEEP_SECONDS
    assert [*a.left_behind(), *b.left_behind()] == []

    # The customer's access is back.
    hosts.stopped.account.enable_key(hosts.stopped.kms_key)
    back_seconds = now_seconds()
    for host in (a, b):
        hosts.wait_for_service(host, hosts.stopped, back_seconds)


def current(hosts: TwoHosts) -> StopReport:
    """The latest stop, which there is."""
    report = hosts.report()
    assert report is not None
    return report


def decrypted_before(fleet: Fleet, customer: Customer, cut_at: datetime) -> float:
    """How many seconds before the cut KMS last decrypted for a customer: no lease that A has is younger."""
    calls = fleet.simulator.calls(operation="Decrypt", key_arn=customer.kms_key, outcome="ok")
    times = [datetime.fromisoformat(call["at"]) for call in calls]
    return min((cut_at - at).total_seconds() for at in times if at <= cut_at)


def taken_over(engine: sa.Engine, cut_at: datetime) -> dict[UUID, float]:
    """Rotations that were claimed again after the cut, and how many seconds after it."""
    again = sa.text("SELECT rotation_id, at FROM witness.claims WHERE at > :cut_at AND attempt > 1")
    with engine.connect() as connection:
        rows = connection.execute(again, {"cut_at": cut_at})
        return {row.rotation_id: (row.at - cut_at).total_seconds() for row in rows}


def shortest_gaps(engine: sa.Engine) -> dict[str, float]:
    """By job, the fewest seconds between two ticks."""
    gaps = sa.text(
        "SELECT job, extract(epoch FROM min(gap)) AS shortest FROM (SELECT job, began_at -"
        " lag(began_at) OVER (PARTITION BY job ORDER BY began_at) AS gap FROM witness.ticks) t GROUP BY job"
    )
    with engine.connect() as connection:
        return {row.job: float(row.shortest) for row in connection.execute(gaps) if row.shortest is not None}
