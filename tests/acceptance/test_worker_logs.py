"""The lines of a real worker at DEBUG: whole, about something, and without a secret."""

import base64
import json
import os
import uuid
from collections import defaultdict
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
import redis
import sqlalchemy as sa
from celery import Celery

from byok.core.model import TenantState
from byok.crypto.keyring import MasterKeyRing
from byok.embedded.stack import Stack
from byok.services.records import Records
from byok.simulator.control import SimulatorControl
from tests.acceptance.conftest import Fleet, running_fleet
from tests.customers import Customer, join
from tests.needles import spellings

pytestmark = pytest.mark.slow

_PASSWORD = "hunter2-hunter2"
_STRANGERS_SECRET = "plaintext-of-a-stranger"
_KEYS = ("pii", "notes", "files")


def _with_user(url: str, user: str, password: str) -> str:
    parts = urlsplit(url)
    address = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{user}:{password}@{address}"))


@pytest.fixture(scope="module")
def talkative(stack: Stack, engine: sa.Engine) -> Iterator[Fleet]:
    """A worker and a Beat that tell all, and whose servers have passwords."""
    additions = {"BYOK_LOG_LEVEL": "DEBUG", "BYOK_LOG_FORMAT": "json"}
    for name in ("BYOK_BROKER_URL", "BYOK_CACHE_URL"):
        with redis.Redis.from_url(stack.environment[name]) as server:
            server.execute_command("ACL", "SETUSER", "talk", "on", f">{_PASSWORD}", "~*", "&*", "+@all")
        additions[name] = _with_user(stack.environment[name], "talk", _PASSWORD)
    with running_fleet(stack, engine, additions, "talkative-") as fleet:
        yield fleet


@pytest.fixture(scope="module")
def customers(talkative: Fleet, stack: Stack) -> list[Customer]:
    """Two customers with three keys each, through a forced rotation, a batch, an outage and a revocation; and
    a stranger who sends nonsense."""
    services, control = talkative.runtime.services, SimulatorControl(stack.simulator.url)
    found = [join(stack, talkative.runtime, f"t-{uuid.uuid4().hex[:12]}") for _ in range(2)]
    for customer in found:
        for key in _KEYS:
            services.registry.create_key(
                customer.name,
                key,
                rotation_period=timedelta(hours=1),
                lease_ttl=timedelta(minutes=5),
                actor="test",
            )
    _wait_for_versions(talkative, found, 1)
    cipher = services.vault.cipher(found[0].name, "pii")
    cipher.encrypt(b"ada@example.com", context=b"users.email:1")
    services.vault.request_rotation(found[0].name, "pii")
    talkative.wait_until(lambda: len(talkative.states(found[0].name)) == 2)
    for customer in found:  # a batch
        for key in _KEYS:
            services.registry.set_rotation(customer.name, key, actor="test", next_in=timedelta(0))
    _wait_for_versions(talkative, found, 2)
    control.internal_error(operation="GenerateDataKeyWithoutPlaintext", key_arn=found[1].kms_key)
    services.vault.request_rotation(found[1].name, "notes")
    talkative.wait_until(lambda: "KMSInternalException" in talkative.worker.log_file.read_text())
    control.clear_faults()
    found[0].account.disable_key(found[0].kms_key)
    talkative.wait_until(
        lambda: services.registry.show_tenant(found[0].name)[0].state is TenantState.SUSPENDED
    )
    found[0].account.enable_key(found[0].kms_key)
    talkative.wait_until(lambda: services.registry.show_tenant(found[0].name)[0].state is TenantState.ACTIVE)
    _send_nonsense(talkative)
    _cut_off(talkative)
    return found


def _wait_for_versions(fleet: Fleet, customers: list[Customer], count: int) -> None:
    fleet.wait_until(
        lambda: all(len(fleet.states(one.name, key)) >= count for one in customers for key in _KEYS)
    )
    fleet.wait_until(
        lambda: not any("pending" in fleet.states(one.name, key) for one in customers for key in _KEYS)
    )


def _send_nonsense(fleet: Fleet) -> None:
    stranger = Celery("stranger", broker=fleet.stack.environment["BYOK_BROKER_URL"], set_as_current=False)
    nonsense = {"password": _STRANGERS_SECRET, "tenant": 7}
    stranger.send_task("byok.keys.rotate", kwargs=nonsense, queue="rotate.forced")
    stranger.send_task("no.such.task", args=[_STRANGERS_SECRET], queue="rotate.forced")
    with stranger.connection_for_write() as connection:
        connection.SimpleQueue("rotate.forced").put({"what": _STRANGERS_SECRET})
    stranger.close()
    fleet.wait_until(lambda: fleet.worker.log_file.read_text().count("message_not_understood") >= 2)


def _cut_off(fleet: Fleet) -> None:
    """The broker's connections end under the worker."""
    with redis.Redis.from_url(fleet.stack.environment["BYOK_BROKER_URL"]) as server:
        server.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    fleet.wait_until(lambda: "onnection to broker lost" in fleet.worker.log_file.read_text())


@pytest.fixture
def lines(talkative: Fleet, customers: list[Customer]) -> list[dict[str, Any]]:
    """What worker and Beat wrote. Celery's banner comes before all logging."""
    whole = [*_body(talkative.worker.log_file.read_text()), *_body(talkative.beat.log_file.read_text())]
    return [json.loads(line) for line in whole]


def _body(log: str) -> list[str]:
    found = log.splitlines()
    first = next(place for place, line in enumerate(found) if line.startswith("{"))
    return [line for line in found[first:] if line]


def test_each_line_of_a_task_names_it(lines: list[dict[str, Any]]) -> None:
    ended = [one for one in lines if one["event"].startswith("Task byok.") and "received" not in one["event"]]
    assert ended
    assert [one for one in ended if f"{one['task']}[{one['task_id']}]" not in one["event"]] == []
    in_tasks = [one for one in lines if one["event"] in ("kms_request", "rotation_done", "rotation_put_off")]
    assert [one for one in in_tasks if not {"task", "task_id", "tenant"} <= one.keys()] == []


def test_each_line_about_a_rotation_names_it_its_tenant_and_its_key(
    lines: list[dict[str, Any]], customers: list[Customer], talkative: Fleet
) -> None:
    show = talkative.runtime.services.registry.show_key
    owners = {
        str(rotation.id): (customer.name, key)
        for customer in customers
        for key in _KEYS
        for rotation in show(customer.name, key).rotations
    }
    requests: dict[str, set[str]] = defaultdict(set)
    names = {customer.name for customer in customers}
    for line in lines:
        if "rotation_id" in line:
            assert {"tenant", "key"} <= line.keys(), line
            if line["tenant"] not in names:  # what an earlier test left in the queue
                continue
            assert (line["tenant"], line["key"]) == owners[line["rotation_id"]]
            if line["event"] == "kms_request":
                requests[line["rotation_id"]].add(line.get("kms_request_id", ""))
    assert requests.keys() == owners.keys()
    ids = [one for found in requests.values() for one in found if one]
    assert len(ids) == len(set(ids)), "a request to KMS is one rotation's"
    done = [one for one in lines if one["event"] == "rotation_done" and one["tenant"] in names]
    assert any(one["task"] == "byok.keys.rotate_many" for one in done)
    assert [one for one in done if one["kms_request_id"] not in requests[one["rotation_id"]]] == []
    versions = {version.kms_request_id for key in _KEYS for version in show(customers[0].name, key).versions}
    assert versions <= set(ids)


def test_celerys_last_line_of_a_rotation_names_it_too(lines: list[dict[str, Any]]) -> None:
    (ended, *_) = [
        one for one in lines if one["event"].startswith("Task byok.keys.rotate[") and "done" in one["event"]
    ]
    assert {"tenant", "key", "rotation_id", "kms_request_id"} <= ended.keys()
    batches = [one for one in lines if one["event"].startswith("Task byok.keys.rotate_many[")]
    assert [one for one in batches if "rotation_id" in one or "kms_request_id" in one] == []


def test_a_refused_and_a_failed_request_are_told_with_aws_code_and_id(
    lines: list[dict[str, Any]], customers: list[Customer]
) -> None:
    failed = [one for one in lines if one["event"] == "kms_request" and one["level"] == "warning"]
    assert {"DisabledException", "KMSInternalException"} <= {one["code"] for one in failed}
    assert [one for one in failed if not one.get("kms_request_id") or not one["duration_ms"]] == []
    well = [one for one in lines if one["event"] == "kms_request" and one["outcome"] == "ok"]
    assert {one["level"] for one in well} == {"debug"}
    (suspended,) = [one for one in lines if one["event"] == "tenant_suspended"]
    assert suspended["tenant"] == customers[0].name
    assert suspended["kms_request_id"] in {one["kms_request_id"] for one in failed}


def test_the_lines_in_the_docs_have_the_fields_of_real_ones(lines: list[dict[str, Any]]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "logs.md").read_text()
    shown = [json.loads(line) for line in page.splitlines() if line.startswith("{")]
    assert len(shown) == 4
    for example in shown:
        same = ("logger", "event", "level", "task", "outcome", "operation", "aws_code")
        real = [one for one in lines if all(one.get(name) == example.get(name) for name in same)]
        assert list(example) in [list(one) for one in real], example["event"]


def test_no_line_comes_twice_and_an_outage_is_no_error(lines: list[dict[str, Any]]) -> None:
    told = [json.dumps(one) for one in lines]
    assert len(told) == len(set(told))
    errors = [one for one in lines if one["level"] in ("error", "critical")]
    assert {one["event"] for one in errors if one["logger"].startswith(("byok", "workers"))} == set()


def test_no_secret_in_all_that_they_wrote(
    talkative: Fleet, customers: list[Customer], lines: list[dict[str, Any]]
) -> None:
    written = talkative.worker.log_file.read_bytes() + talkative.beat.log_file.read_bytes()
    needles = {
        "password of Redis": _PASSWORD.encode(),
        "password of PostgreSQL": talkative.stack.home.secret("postgres").encode(),
        "plaintext": b"ada@example.com",
        "stranger's argument": _STRANGERS_SECRET.encode(),
    }
    secrets = [base64.b64decode(talkative.stack.environment["BYOK_MASTER_KEYS"].partition(":")[2])]
    records = Records(
        talkative.runtime.kms,
        MasterKeyRing.parse(talkative.stack.environment["BYOK_MASTER_KEYS"], os.urandom),
    )
    for customer in customers:
        for key in _KEYS:
            for version in talkative.runtime.services.registry.show_key(customer.name, key).versions:
                if version.state.value in ("active", "retired"):
                    with records.unwrap(customer.tenant, version).secret.borrow() as raw:
                        secrets.append(bytes(raw))
    for number, secret in enumerate(secrets):
        needles |= spellings(f"secret {number}", secret)
    assert len(needles) > 60
    assert [name for name, needle in needles.items() if needle in written] == []
