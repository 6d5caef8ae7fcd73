"""``byok status``: what needs attention, and what is told while a server is away."""

import itertools
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

import pexpect
import pytest
import sqlalchemy as sa

from byok.cli import output
from byok.core.counts import Count
from byok.core.lookout import Severity
from byok.core.model import Job, RotationReason
from byok.embedded.stack import Stack
from byok.errors import GaveUp, KmsAccessRevoked, QueueUnavailable, ValidationFailed
from byok.services.overview import STUCK_AFTER
from byok.services.status import OVERDUE_AFTER, Status, StatusReader
from byok.settings import child_environment
from byok.simulator.control import SimulatorControl
from byok.store.postgres import PostgresStore
from byok.wiring import Runtime
from tests.customers import Customer, add_key, join
from tests.integration.acts import request
from tests.integration.test_cli import Byok, acme, byok
from tests.ports import unused_port
from tests.redis_servers import valkey
from tests.world import World, kms_key_arn

__all__ = ["acme", "byok"]


class FakeQueues:
    """A broker that can be away."""

    def __init__(self) -> None:
        self.names = ["worker@a"]
        self.away = False

    def depths(self) -> Mapping[str, int]:
        if self.away:
            raise QueueUnavailable("the broker does not answer")
        return {"rotate.forced": 3}

    def workers(self) -> list[str]:
        return self.names


@pytest.fixture
def queues() -> FakeQueues:
    return FakeQueues()


@pytest.fixture
def reader(world: World, queues: FakeQueues) -> StatusReader:
    """Over a fleet whose Beat ticks."""
    world.add_tenant()
    world.add_key()
    tick(world)
    return StatusReader(world.services.observer, queues, world.cache, world.clock)


def tick(world: World) -> None:
    for job in Job:
        world.services.scheduling.tick(job)


def codes(status: Status) -> list[str]:
    return [one.code for one in status.concerns]


def test_a_fleet_that_is_well_needs_no_attention(world: World, reader: StatusReader) -> None:
    seen = reader.read()
    assert codes(seen) == []
    assert seen.overview is not None
    assert (str(seen.overview.keys), str(seen.overview.overdue)) == ("1", "0")
    assert seen.overview.oldest_overdue is None
    assert (seen.queues, seen.workers) == ({"rotate.forced": 3}, ["worker@a"])


def test_late_jobs_are_named_and_only_they(world: World, reader: StatusReader) -> None:
    world.clock.advance(seconds=60)
    for job in set(Job) - {Job.SWEEP}:
        world.services.scheduling.tick(job)
    (concern,) = reader.read().concerns
    assert (concern.code, concern.text) == ("jobs-late", "late: sweep")


def test_a_fleet_without_beat(world: World, queues: FakeQueues) -> None:
    reader = StatusReader(world.services.observer, queues, world.cache, world.clock)
    assert codes(reader.read()) == ["no-ticks"]


def test_a_fleet_without_workers(world: World, reader: StatusReader, queues: FakeQueues) -> None:
    queues.names = []
    assert codes(reader.read()) == ["no-workers"]


def test_a_suspended_tenant_until_it_is_back(world: World, reader: StatusReader) -> None:
    world.services.kill_switch.suspend("acme", "stop", actor="test")
    assert codes(reader.read()) == ["tenants-suspended"]
    world.services.kill_switch.resume("acme", actor="test")
    assert codes(reader.read()) == []


def test_what_the_watch_found_until_it_is_put_right(world: World, reader: StatusReader) -> None:
    key = world.kms.keys[kms_key_arn(1)]
    key.state = "Disabled"
    world.services.lookout.look("acme", actor="watch")
    seen = reader.read()
    assert codes(seen) == ["findings"]
    assert seen.concerns[0].text == "1 finding urgent"
    assert seen.overview is not None
    assert seen.overview.findings == {Severity.URGENT: Count(1)}
    key.state = "Enabled"
    world.services.lookout.look("acme", actor="watch")
    assert reader.read().concerns == []


def test_a_failed_rotation_until_it_is_made_up_for(world: World, reader: StatusReader) -> None:
    request(world)
    world.kms.fail_next(GaveUp("no end"))
    with pytest.raises(GaveUp):
        world.run_published()
    assert codes(reader.read()) == ["rotations-failed"]
    world.clock.advance(seconds=1)
    request(world)
    world.run_published()
    assert codes(reader.read()) == []


def test_a_rotation_that_does_not_get_on(world: World, reader: StatusReader) -> None:
    rotation_id = request(world)
    assert codes(reader.read()) == []
    world.clock.advance(seconds=STUCK_AFTER.total_seconds() + 1)
    tick(world)
    seen = reader.read()
    assert codes(seen) == ["rotations-stuck"]
    assert seen.overview is not None
    assert [str(work.rotation.id) for work in seen.overview.stuck] == [rotation_id]


def test_keys_that_have_been_due_for_long(world: World, reader: StatusReader, engine: sa.Engine) -> None:
    def due_for(age: timedelta) -> None:
        with engine.begin() as connection:
            due_at = world.clock.now() - age
            connection.execute(sa.text("UPDATE keys SET next_rotation_at = :at"), {"at": due_at})

    due_for(OVERDUE_AFTER)
    assert codes(reader.read()) == []
    due_for(OVERDUE_AFTER + timedelta(seconds=1))
    seen = reader.read()
    assert [(one.code, one.text) for one in seen.concerns] == [("keys-overdue", "1 key overdue")]
    world.services.kill_switch.suspend("acme", "stop", actor="test")
    assert codes(reader.read()) == ["tenants-suspended"], "its keys wait for the tenant"


def test_a_server_that_is_away_is_timed_and_the_rest_is_told(
    world: World, reader: StatusReader, queues: FakeQueues
) -> None:
    queues.away = True
    (away,) = reader.read().unreachable
    world.clock.advance(seconds=20)
    seen = reader.read()
    (away,) = seen.unreachable
    assert (away.server, away.lasting) == ("broker", timedelta(seconds=20))
    assert (seen.queues, seen.workers) == (None, None)
    assert seen.overview is not None
    queues.away = False
    assert reader.read().unreachable == []


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def away(
    unused_port: int, monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str]
) -> Callable[[str], None]:
    """Have a server's address lead nowhere."""

    def lead_nowhere(variable: str) -> None:
        scheme, _, _ = environment[variable].partition("://")
        path = "/byok" if scheme.startswith("postgresql") else "/0"
        monkeypatch.setenv(variable, f"{scheme}://u:p@127.0.0.1:{unused_port}{path}")

    return lead_nowhere


def test_without_postgresql_the_broker_is_told_of(byok: Byok, away: Callable[[str], None]) -> None:
    away("BYOK_DATABASE_URL")
    told = byok("status", "--json")
    status = told.json()
    assert told.exit_code == 0
    assert "PostgreSQL does not answer" in status["unreachable"]["postgresql"]["error"]
    assert "rotate.forced" in status["queues"]
    assert (status["tenants"], status["workers"], status["ok"]) == (None, [], False)
    shown = byok("status").out.splitlines()
    assert shown[0] == "byok: needs attention: postgresql unreachable, no worker answers"
    (line,) = [line for line in shown if line.startswith("postgresql")]
    assert "unreachable" in line


def test_without_broker_and_cache_postgresql_is_told_of(
    byok: Byok, acme: Customer, away: Callable[[str], None]
) -> None:
    away("BYOK_BROKER_URL")
    away("BYOK_CACHE_URL")
    status = byok("status", "--json").json()
    assert set(status["unreachable"]) == {"broker", "cache"}
    assert (status["tenants"], status["queues"], status["workers"]) == ({"active": 1}, None, None)


def test_check_tells_cron_by_its_exit_code(byok: Byok) -> None:
    assert byok("status").exit_code == 0
    assert byok("status", "--check").exit_code == 1
    assert byok("status", "--check", "--watch").exit_code == 2


def trouble(runtime: Runtime, acme: Customer, globex: Customer, simulator: SimulatorControl) -> str:
    """A rotation of globex that failed, and acme suspended by its customer; the rotation's id."""
    add_key(runtime, "globex")
    requested = runtime.services.requests.request(
        "globex", "pii", reason=RotationReason.FORCED, requested_by="test"
    )
    simulator.inject(operation="Decrypt", code="InvalidCiphertextException", times=1)
    with pytest.raises(ValidationFailed):
        runtime.services.rotations.run(requested.rotation.id)
    acme.account.disable_key(acme.kms_key)
    with pytest.raises(KmsAccessRevoked):
        runtime.services.checkups.validate("acme", "pii", actor="test")
    return str(requested.rotation.id)


def test_what_is_wrong_is_shown_with_its_evidence_and_what_to_do_at_80_columns(
    byok: Byok, stack: Stack, runtime: Runtime, acme: Customer, simulator: SimulatorControl,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    rotation_id = trouble(runtime, acme, join(stack, runtime, "globex"), simulator)
    monkeypatch.setattr(output.console, "_width", 80)
    shown = byok("status").out
    assert max(map(len, shown.splitlines())) <= 80
    assert "1 tenant suspended" in shown.splitlines()[0]
    status = byok("status", "--json").json()
    (suspended,), (failed,) = status["suspended"], status["failed"]
    assert (suspended["tenant"], suspended["aws_code"]) == ("acme", "DisabledException")
    for wanted in (suspended["request_id"], "byok tenant show acme", f"byok rotation retry {rotation_id}"):
        assert wanted in shown
    assert (failed["rotation"], failed["key"]) == (rotation_id, "pii")
    listed = byok("rotation", "list").out
    assert max(map(len, listed.splitlines())) <= 80
    assert rotation_id in listed


def test_the_fields_are_those_that_are_documented(byok: Byok, acme: Customer) -> None:
    status = byok("status", "--json").json()
    page = (Path(__file__).parents[2] / "docs" / "health.md").read_text()
    page = page.partition("### As JSON")[2].partition("## Doctor")[0]
    assert set(status) == set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))


# --- again and again ------------------------------------------------------------------------------

STATUS = [sys.executable, "-m", "byok.cli", "status", "--watch", "--every", "0.5"]


def test_watch_outlives_an_outage_and_ends_with_ctrl_c(
    stack: Stack, tmp_path: Path, store: PostgresStore
) -> None:
    port = unused_port()
    environment = child_environment(stack.environment | {"BYOK_CACHE_URL": f"redis://127.0.0.1:{port}/0"})
    watching = subprocess.Popen([*STATUS, "--json"], env=environment, stdout=subprocess.PIPE, text=True)
    assert watching.stdout is not None
    seen = (json.loads(line) for line in watching.stdout)
    try:
        first, second = next(seen), next(seen)
        assert set(second["unreachable"]) == {"cache"}
        lasting = [one["unreachable"]["cache"]["for_seconds"] for one in (first, second)]
        assert lasting[1] > lasting[0] + 0.4
        with valkey(stack, tmp_path / "cache", port=port):
            assert any(one["unreachable"] == {} for one in itertools.islice(seen, 20))
        assert any("cache" in one["unreachable"] for one in itertools.islice(seen, 20))
    finally:
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=20)
    assert watching.returncode == 0


def test_watch_on_a_terminal(stack: Stack, store: PostgresStore) -> None:
    environment = child_environment(stack.environment | {"TERM": "xterm"})
    watching = pexpect.spawn(STATUS[0], STATUS[1:], env=environment, dimensions=(40, 80), timeout=30)
    watching.expect("no worker answers")
    watching.expect("no Beat has ever ticked")
    watching.sendintr()
    watching.expect(pexpect.EOF)
    watching.close()
    assert (watching.exitstatus, watching.signalstatus) == (0, None)
