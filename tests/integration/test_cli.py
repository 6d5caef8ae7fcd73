"""The command line over real servers: one line for each mistake, and exit codes that mean something."""

import base64
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from byok.cli.main import main
from byok.embedded.stack import Stack
from byok.errors import TenantNotActive, ValidationFailed
from byok.simulator.control import SimulatorControl
from byok.store import migrate
from byok.wiring import Runtime
from tests.conftest import empty
from tests.customers import Customer, add_key, join
from tests.world import kms_key_arn


@dataclass
class Result:
    """What a command did."""

    exit_code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


Byok = Callable[..., Result]


@pytest.fixture
def byok(
    environment: Mapping[str, str],
    engine: sa.Engine,
    capsysbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> Byok:
    """Run the command as its entry point does, over empty tables."""
    empty(engine)

    def run(*arguments: str, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "argv", ["byok", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsysbinary.readouterr()
        code = ended.value.code
        return Result(code if isinstance(code, int) else 0, out.decode("utf-8", "replace"), err.decode())

    return run


@pytest.fixture
def acme(byok: Byok, stack: Stack, runtime: Runtime) -> Customer:
    customer = join(stack, runtime, "acme")
    add_key(runtime, "acme")
    return customer


def snapshot(engine: sa.Engine) -> list[object]:
    """All rows of all tables, but for what other processes write meanwhile: that they live, what they use and
    asked AWS."""
    from byok.store.schema import kms_requests, members, metadata, version_usage

    with engine.connect() as connection:
        return [
            sorted(map(repr, connection.execute(sa.select(table)).all()))
            for table in metadata.sorted_tables
            if table not in (kms_requests, members, version_usage)
        ]


def test_the_tour_of_a_tenant(byok: Byok, stack: Stack) -> None:
    added = byok("tenant", "add", "acme", "--json")
    assert added.exit_code == 0
    assert added.json()["state"] == "pending"
    from byok.core.arns import KmsKeyArn
    from tests.customers import new_account

    account = new_account(stack)
    key = account.create_key()
    assert KmsKeyArn.parse(key).account == account.account_id
    policy = byok("tenant", "policy", "acme", "--kms-key-arn", key, "--json").json()
    trust = policy["role_trust_policy"]["Statement"][0]["Condition"]["StringEquals"]
    assert trust == {"sts:ExternalId": added.json()["external_id"]}
    role = account.create_role("byok", policy["role_trust_policy"], policy["role_permissions_policy"])
    verified = byok("tenant", "verify", "acme", "--kms-key-arn", key, "--role-arn", role, "--json")
    assert verified.exit_code == 0
    assert verified.json()["state"] == "active"
    assert {check["verdict"] for check in verified.json()["checks"]} == {"passed"}
    assert [tenant["tenant"] for tenant in byok("tenant", "list", "--json").json()] == ["acme"]
    shown = byok("tenant", "show", "acme")
    assert "active" in shown.out
    assert key in shown.out
    assert byok("audit", "verify", "acme").out == "3 events, the chain is intact\n"
    assert byok("audit", "verify", "--all", "--json").json()["intact"] is True
    assert "all chains are intact" in byok("audit", "verify", "--all").out
    assert byok("audit", "verify").exit_code == byok("audit", "verify", "acme", "--all").exit_code == 2


def test_the_tour_of_a_key(byok: Byok, acme: Customer, runtime: Runtime) -> None:
    listed = byok("key", "list", "acme", "--json").json()
    assert [key["key"] for key in listed] == ["pii"]
    requested = byok("key", "rotate", "acme", "pii", "--idempotency-key", "k", "--json").json()
    assert requested["state"] == "requested"
    again = byok("key", "rotate", "acme", "pii", "--json").json()
    assert again["outcome"] == "joined"
    assert again["rotation"] == requested["rotation"]
    rotation = runtime.services.registry.show_key("acme", "pii").rotations[0]
    runtime.services.rotations.run(rotation.id)
    shown = byok("key", "show", "acme", "pii", "--json").json()
    assert [version["state"] for version in shown["versions"]] == ["retired", "active"]
    assert shown["versions"][1]["requested_by"].startswith("cli")
    assert byok("key", "validate", "acme", "pii", "--json").json()["passed"]
    assert "uses" in byok("key", "show", "acme", "pii").out
    changed = byok("key", "set-rotation", "acme", "pii", "--every", "30d", "--ttl", "15m", "--json").json()
    assert (changed["rotation_period_seconds"], changed["lease_ttl_seconds"]) == (2_592_000.0, 900.0)
    created = byok("key", "create", "acme", "cards", "--rotate-every", "1h", "--ttl", "0", "--json")
    assert created.json()["reason"] == "initial"
    runtime.queue._app.control.purge()  # nobody consumes here


def test_a_failed_rotation_is_shown_and_retried(
    byok: Byok, acme: Customer, runtime: Runtime, simulator: SimulatorControl
) -> None:
    requested = byok("key", "rotate", "acme", "pii", "--json").json()["rotation"]
    simulator.inject(operation="Decrypt", code="InvalidCiphertextException", times=1)
    with pytest.raises(ValidationFailed):
        runtime.services.rotations.run(UUID(requested))
    status = byok("status")
    assert f"byok rotation retry {requested}" in " ".join(status.out.split())
    (shown,) = byok("status", "--json").json()["failed"]
    assert shown["rotation"] == requested
    (listed,) = byok("rotation", "list", "--failed", "--json").json()
    assert (listed["tenant"], listed["key"], listed["rotation"]) == ("acme", "pii", requested)
    assert listed["failure"].startswith("validation-failed: version 2")
    assert "failed" in byok("rotation", "list").out
    assert byok("rotation", "show", requested, "--json").json() == listed
    assert requested in byok("rotation", "show", requested).out
    first = byok("rotation", "retry", requested, "--json").json()
    again = byok("rotation", "retry", requested, "--json").json()
    assert (first["outcome"], again["outcome"]) == ("new", "repeated")
    assert first["rotation"] == again["rotation"] != requested
    assert "repeated" in byok("rotation", "retry", requested).out
    runtime.services.rotations.run(UUID(first["rotation"]))
    assert byok("rotation", "list", "--failed", "--json").json() == []
    assert byok("rotation", "retry", first["rotation"]).exit_code == 4
    assert byok("rotation", "show", "nonsense").exit_code == 2
    assert byok("rotation", "show", str(UUID(int=1))).exit_code == 3
    runtime.queue._app.control.purge()


def test_the_tour_of_a_blind_index(
    byok: Byok, acme: Customer, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def index(*options: str) -> Result:
        return byok("key", "index", "acme", "pii", *options)

    monkeypatch.setenv("BYOK_RECHECK_SECONDS", "0.1")
    assert "byok key index acme pii --enable" in index().out
    assert index("--enable", "--json").json() == {
        "key": "pii",
        "index_version": 1,
        "other_index_version": None,
    }
    assert index("--enable").exit_code == 4
    nothing_new = index("--rebuild")
    assert (nothing_new.exit_code, "byok key rotate" in nothing_new.err) == (4, True)
    assert index("--finish").exit_code == 4
    assert index("--enable", "--finish").exit_code == 2
    rotation = runtime.services.vault.request_rotation("acme", "pii").rotation
    runtime.services.rotations.run(rotation.id)
    assert "version 2; those under version 1 count until --finish" in index("--rebuild").out
    assert "new blind indexes are under version 2" in byok("key", "show", "acme", "pii").out
    shown = byok("key", "show", "acme", "pii", "--json").json()
    assert (shown["index_version"], shown["other_index_version"]) == (2, 1)
    assert index("--finish").exit_code == 0
    assert "new blind indexes are under version 2\n" in index().out
    runtime.queue._app.control.purge()


def test_encrypt_and_decrypt_are_pipes(byok: Byok, acme: Customer, capsysbinary: object) -> None:
    sealed = byok("encrypt", "acme", "pii", "--context", "users.email:1", stdin=b"ada@example.com")
    assert sealed.exit_code == 0
    assert sealed.out.startswith("\x01")
    assert "ada" not in sealed.out


def rotate(runtime: Runtime) -> None:
    runtime.services.rotations.run(runtime.services.vault.request_rotation("acme", "pii").rotation.id)
    runtime.queue._app.control.purge()


def test_a_version_is_put_below_the_floor_and_destroyed(
    byok: Byok, acme: Customer, runtime: Runtime, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("byok.services.usage.FLUSH_PERIOD", timedelta(seconds=1))
    sealed = byok("encrypt", "acme", "pii", "--context", "c", stdin=b"ada").out.encode("utf-8", "replace")
    assert sealed
    rotate(runtime)
    destroy = ("key", "destroy", "acme", "pii", "1")
    refused = byok(*destroy, "--yes", "--json")
    assert refused.exit_code == 4
    assert "byok key set-floor acme pii 2" in json.loads(refused.err)["remedy"]
    assert byok("key", "set-floor", "acme", "pii", "2", "--wait", "--json").json() == {
        "key": "pii",
        "decryption_floor": 2,
    }
    shown = byok("key", "show", "acme", "pii").out
    assert "decryption floor 2" in shown
    assert "below floor" in shown
    first = byok("key", "show", "acme", "pii", "--json").json()["versions"][0]
    assert (first["state"], first["decrypts"], first["uses"]) == ("retired", False, 1)
    assert "still-in-use" in byok(*destroy, "--yes").err
    before = snapshot(engine)
    mistyped = byok(*destroy, "--force", stdin=b"acme\n")
    assert (mistyped.exit_code, "nothing was destroyed" in mistyped.err) == (2, True)
    assert byok(*destroy, "--unused-for", "soon", "--yes").exit_code == 2
    assert snapshot(engine) == before
    destroyed = byok(*destroy, "--force", "--json", stdin=b"pii\n")
    assert (destroyed.exit_code, destroyed.json()["state"], destroyed.json()["uses"]) == (0, "destroyed", 1)
    gone = byok("key", "show", "acme", "pii", "--json").json()["versions"][0]
    assert (gone["state"], gone["master_key_id"], gone["decrypts"]) == ("destroyed", None, False)
    assert "destroyed" in byok("key", "show", "acme", "pii").out
    assert byok(*destroy, "--yes").exit_code == 0, "it is destroyed: asked again, nothing happens"


def test_set_floor_tells_who_has_not_heard_of_it(
    byok: Byok, acme: Customer, runtime: Runtime, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from byok.cli import destruction

    rotate(runtime)
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO members (id, kind, host, pid, started_at, seen_at)"
                " VALUES (gen_random_uuid(), 'service', 'h', 7, now(), now())"
            )
        )
    monkeypatch.setattr(destruction, "_PATIENCE", timedelta(seconds=1))
    waited = byok("key", "set-floor", "acme", "pii", "2", "--wait")
    assert (waited.exit_code, "service 7@h" in waited.err) == (6, True)
    assert runtime.services.registry.show_key("acme", "pii").key.decryption_floor == 2


def test_audit_verify_names_each_tenant_whose_chain_is_broken(byok: Byok, engine: sa.Engine) -> None:
    for tenant in ("acme", "globex"):
        byok("tenant", "add", tenant)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE audit_events SET actor = 'somebody else'"))
    broken = byok("audit", "verify", "--all")
    assert broken.exit_code == 7
    assert "2 of 2 chains are broken" in broken.err
    assert "globex: event 1 was changed" in broken.err


def test_status_and_doctor(byok: Byok, acme: Customer) -> None:
    status = byok("status", "--json").json()
    assert status["tenants"] == {"active": 1}
    assert (status["keys"], status["overdue"]) == (1, 0)
    assert status["rotations"] == {"done": 1}
    assert status["inexact"] == {}
    assert "within a day: 1 done" in byok("status").out
    examined = byok("doctor", "--json")
    findings = {check["name"]: check for check in examined.json()}
    assert findings["postgresql"]["verdict"] == "passed"
    assert findings["workers"]["verdict"] == "failed"  # no worker runs in this test
    assert "celery -A workers worker" in findings["workers"]["remedy"]
    assert examined.exit_code == 6


def test_master_key_generate_prints_an_entry_of_the_ring(byok: Byok) -> None:
    import os

    from byok.crypto.keyring import MasterKeyRing

    printed = byok("master-key", "generate", "--id", "mk-7")
    assert MasterKeyRing.parse(printed.out, os.urandom).ids == ("mk-7",)


def test_db_upgrade_is_idempotent(byok: Byok) -> None:
    assert migrate.head_revision() in byok("db", "upgrade").out
    assert migrate.head_revision() in byok("db", "upgrade").out


BAD_INPUT: list[tuple[list[str], str, int]] = [
    (["tenant", "show", "nobody"], "unknown-tenant", 3),
    (["key", "show", "acme", "nothing"], "unknown-key", 3),
    (["key", "rotate", "nobody", "pii"], "unknown-tenant", 3),
    (["key", "rotate", "acme", "nothing"], "unknown-key", 3),
    (["key", "rotate", "acme", "pii", "--reason", "whim"], "invalid-input", 2),
    (["tenant", "add", "Not A Slug"], "invalid-name", 2),
    (["tenant", "add", "acme"], "duplicate-tenant", 4),
    (["key", "create", "acme", "pii"], "duplicate-key", 4),
    (["key", "create", "acme", "BAD"], "invalid-name", 2),
    (["key", "create", "acme", "x", "--rotate-every", "59m"], "out-of-bounds", 2),
    (["key", "create", "acme", "x", "--rotate-every", "3651d"], "out-of-bounds", 2),
    (["key", "create", "acme", "x", "--ttl", "25h"], "out-of-bounds", 2),
    (["key", "create", "acme", "x", "--ttl", "soon"], "invalid-input", 2),
    (["key", "set-rotation", "acme", "pii", "--every", "1s"], "out-of-bounds", 2),
    (["key", "set-rotation", "acme", "pii", "--ttl", "2d"], "out-of-bounds", 2),
    (["tenant", "policy", "acme", "--kms-key-arn", "arn:aws:kms:nonsense"], "invalid-arn", 2),
    (["tenant", "verify", "pending", "--kms-key-arn", "nonsense"], "invalid-arn", 2),
    (["tenant", "verify", "pending"], "not-ready", 4),
    (["key", "create", "pending", "pii"], "tenant-not-active", 5),
    (["encrypt", "nobody", "pii", "--context", "c"], "unknown-tenant", 3),
    (["encrypt", "acme", "nothing", "--context", "c"], "unknown-key", 3),
    (["encrypt", "acme", "pii", "--context", ""], "empty-context", 2),
    (["decrypt", "acme", "pii", "--context", "c"], "cannot-decrypt", 7),
]


@pytest.mark.parametrize(("arguments", "code", "exit_code"), BAD_INPUT)
def test_bad_input_is_one_line_a_stable_code_and_changes_nothing(
    byok: Byok, acme: Customer, engine: sa.Engine, arguments: list[str], code: str, exit_code: int
) -> None:
    byok("tenant", "add", "pending")
    before = snapshot(engine)
    result = byok(*arguments, stdin=b"\x01garbage")
    assert result.exit_code == exit_code
    assert f"[{code}]" in result.err
    assert result.err.count("\n") == 1
    assert result.out == ""
    assert snapshot(engine) == before
    if "encrypt" not in arguments and "decrypt" not in arguments:
        as_json = byok(*arguments, "--json")
        assert json.loads(as_json.err)["error"] == code
        assert as_json.exit_code == exit_code


def test_another_tenant_cannot_register_the_same_key_or_role(byok: Byok, acme: Customer) -> None:
    byok("tenant", "add", "twin")
    same_key = byok("tenant", "verify", "twin", "--kms-key-arn", acme.kms_key)
    assert "[kms-key-taken]" in same_key.err
    assert same_key.exit_code == 4
    own_key = acme.account.create_key()
    same_role = byok("tenant", "verify", "twin", "--kms-key-arn", own_key, "--role-arn", acme.role)
    assert "[role-taken]" in same_role.err


def test_a_verified_tenant_keeps_its_connection(byok: Byok, acme: Customer) -> None:
    moved = byok("tenant", "verify", "acme", "--kms-key-arn", kms_key_arn(9))
    assert "[connection-fixed]" in moved.err


def test_verify_shows_what_is_wrong_and_the_tenant_stays_pending(byok: Byok, acme: Customer) -> None:
    byok("tenant", "add", "open-door")
    key = acme.account.create_key()
    open_trust = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}],
    }
    wide = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "kms:*", "Resource": key}]}
    role = acme.account.create_role("open-door", open_trust, wide)
    result = byok("tenant", "verify", "open-door", "--kms-key-arn", key, "--role-arn", role)
    assert result.exit_code == 8
    assert "role-refuses-missing-external-id" in result.err
    assert "external-id-not-required" in result.err
    assert "add the condition StringEquals sts:ExternalId byok-" in result.out
    assert "foreign-tenant-context-is-refused: context-not-enforced" in result.out
    assert "no-unneeded-rights: too-many-rights" in result.out
    assert byok("tenant", "show", "open-door", "--json").json()["state"] == "pending"


def test_verify_waits_until_iam_knows(byok: Byok, acme: Customer, simulator: SimulatorControl) -> None:
    tenant = byok("tenant", "add", "slow", "--json").json()
    key = acme.account.create_key()
    policy = byok("tenant", "policy", "slow", "--kms-key-arn", key, "--json").json()
    assert tenant["external_id"] in json.dumps(policy)
    simulator.delay_propagation(3)
    try:
        role = acme.account.create_role(
            policy["role_name"], policy["role_trust_policy"], policy["role_permissions_policy"]
        )
        arns = ("--kms-key-arn", key, "--role-arn", role)
        impatient = byok("tenant", "verify", "slow", *arns, "--wait", "0")
        assert impatient.exit_code == 8
        assert "role-refuses-us" in impatient.err
        assert byok("tenant", "verify", "slow", "--wait", "30s").exit_code == 0
    finally:
        simulator.delay_propagation(0)
    assert byok("tenant", "show", "slow", "--json").json()["state"] == "active"


def test_two_tenants_of_one_customer_are_said_to_share(byok: Byok, acme: Customer) -> None:
    byok("tenant", "add", "acme-staging")
    arns = ("--kms-key-arn", acme.kms_key, "--role-arn", acme.role, "--wait", "0")
    taken = byok("tenant", "verify", "acme-staging", *arns)
    assert (taken.exit_code, "--shared" in taken.err) == (4, True)
    assert byok("tenant", "verify", "acme-staging", *arns, "--shared").exit_code == 8  # its own external id


@pytest.mark.parametrize(
    ("form", "sign"),
    [
        ("cloudformation", "AWS::IAM::Role"),
        ("terraform", 'resource "aws_iam_role"'),
        ("cli", "aws iam create-role"),
    ],
)
def test_policy_prints_every_form_unwrapped(byok: Byok, acme: Customer, form: str, sign: str) -> None:
    printed = byok("tenant", "policy", "acme", "--format", form)
    assert printed.exit_code == 0
    assert sign in printed.out
    assert acme.tenant.external_id in printed.out
    assert (
        "aws_kms_key" in byok("tenant", "policy", "acme", "--format", "terraform", "--mode", "key-policy").out
    )
    assert byok("tenant", "policy", "acme", "--format", "json").exit_code == 2  # which KMS key?


def test_sync_shows_what_the_kms_key_says_and_what_follows(
    byok: Byok, acme: Customer, runtime: Runtime
) -> None:
    def tag(value: str) -> None:
        acme.account.kms.tag_resource(
            KeyId=acme.kms_key, Tags=[{"TagKey": "byok:rotation-days", "TagValue": value}]
        )

    tag("14")
    acme.account.rotate_key_on_demand(acme.kms_key)
    synced = byok("tenant", "sync", "acme", "--json").json()
    assert (synced["tag_days"], synced["keys"][0]["rotation_source"]) == (14, "tag")
    assert len(synced["rotations_requested"]) == 1
    assert "14 days" in byok("tenant", "sync", "acme").out
    tag("often")
    assert "'often' counts for nothing" in byok("tenant", "sync", "acme").out
    runtime.queue._app.control.purge()


# --- the kill switch ------------------------------------------------------------------------------


def test_suspend_and_resume(byok: Byok, acme: Customer, runtime: Runtime) -> None:
    cipher = runtime.services.vault.cipher("acme", "pii")
    cipher.encrypt(b"x", context=b"c")
    assert runtime.services.watch.is_listening(5)
    stopped = byok("tenant", "suspend", "acme", "--reason", "customer called")
    assert stopped.exit_code == 0
    assert "customer called" in stopped.out
    assert "1 of 1 processes dropped it in" in stopped.out
    with pytest.raises(TenantNotActive, match="customer called"):
        cipher.encrypt(b"x", context=b"c")
    assert byok("encrypt", "acme", "pii", "--context", "c", stdin=b"x").exit_code == 5
    shown = byok("tenant", "show", "acme", "--json").json()
    assert shown["suspension"]["kind"] == "locked"
    (stop,) = shown["stops"]
    assert [one["leases"] for one in stop["processes"]] == [1]
    acme.account.disable_key(acme.kms_key)
    refused = byok("tenant", "resume", "acme")
    assert refused.exit_code == 5
    assert "DisabledException" in refused.err
    acme.account.enable_key(acme.kms_key)
    assert byok("tenant", "resume", "acme", "--json").json() == {"tenant": "acme", "state": "active"}
    assert byok("tenant", "resume", "acme").exit_code == 4
    cipher.encrypt(b"x", context=b"c")


def test_show_says_how_fast_a_revocation_bites(byok: Byok, acme: Customer) -> None:
    assert (
        "a revocation stops every process within 306s after AWS refuses" in byok("tenant", "show", "acme").out
    )
    bound = byok("tenant", "show", "acme", "--json").json()["revocation_bound"]
    assert bound == {
        "pushed_seconds": 306.0,
        "polled_seconds": 311.0,
        "unprobed_seconds": 3600.0,
        "told_seconds": 6.0,
    }


def test_a_drill_writes_a_report_that_others_can_check(
    byok: Byok, acme: Customer, runtime: Runtime, tmp_path: Path
) -> None:
    cipher = runtime.services.vault.cipher("acme", "pii")
    cipher.encrypt(b"x", context=b"c")
    assert runtime.services.watch.is_listening(5)
    file = tmp_path / "drill.json"
    done = byok("tenant", "drill", "acme", "--report", str(file))
    assert done.exit_code == 0, done.err
    assert "1 of 1 processes dropped it in" in done.out
    cipher.encrypt(b"x", context=b"c")

    report = json.loads(file.read_text())["report"]
    assert report["passed"]
    assert report["latency_ms"] < 5000
    assert byok("report", "verify", str(file)).exit_code == 0
    (key,) = byok("report", "public-key", "--json").json().values()
    assert byok("report", "verify", str(file), "--public-key", key, "--json").json()["authentic"]

    told = json.loads(file.read_text())
    assert told["report"]["bound"] == {
        "pushed_ms": 306_000,
        "polled_ms": 311_000,
        "unprobed_ms": 3_600_000,
        "told_ms": 6_000,
    }
    without_byok = subprocess.run(
        [sys.executable, "-c", script_of("docs/spec/report.md"), str(file), key],
        capture_output=True,
        text=True,
        check=False,
    )
    assert without_byok.stdout == "authentic\n", without_byok.stderr

    file.write_text(file.read_text().replace('"passed": true', '"passed": false'))
    forged = byok("report", "verify", str(file))
    assert forged.exit_code == 7
    assert "[report-not-authentic]" in forged.err
    somebody_elses = base64.b64encode(bytes(32)).decode()
    assert byok("report", "verify", str(file), "--public-key", somebody_elses).exit_code == 7
    for no_key in ("AAAA", "not base64"):
        assert byok("report", "verify", str(file), "--public-key", no_key).exit_code == 2
    for no_report in ("no JSON", "[" * 100_000, json.dumps(told)[:-1] + ', "kind": "drill"}'):
        file.write_text(no_report)
        refused = byok("report", "verify", str(file))
        assert (refused.exit_code, "[report-not-authentic]" in refused.err) == (7, True), refused.err


def test_a_mistake_in_an_option_stops_nobody(
    byok: Byok, acme: Customer, runtime: Runtime, engine: sa.Engine
) -> None:
    runtime.services.vault.cipher("acme", "pii").encrypt(b"x", context=b"c")  # the fleet has a member
    before = snapshot(engine)
    for command in ("suspend", "drill"):
        assert byok("tenant", command, "acme", "--wait", "soon").exit_code == 2
        assert snapshot(engine) == before


def test_a_tenant_without_a_key_is_not_drilled(
    byok: Byok, acme: Customer, stack: Stack, runtime: Runtime
) -> None:
    runtime.services.vault.cipher("acme", "pii").encrypt(b"x", context=b"c")
    join(stack, runtime, "keyless")
    refused = byok("tenant", "drill", "keyless")
    assert refused.exit_code == 4
    assert "has no key" in refused.err
    assert byok("tenant", "show", "keyless", "--json").json()["stops"] == []


def script_of(page: str) -> str:
    """The Python that a page of the documentation shows."""
    text = (Path(__file__).parents[2] / page).read_text()
    (script,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return str(script)


def test_a_drill_with_nobody_to_stop_changes_nothing(byok: Byok, acme: Customer, engine: sa.Engine) -> None:
    before = snapshot(engine)
    refused = byok("tenant", "drill", "acme")
    assert refused.exit_code == 4
    assert "there is nothing to measure" in refused.err
    assert snapshot(engine) == before


def test_outage_wait_is_set_within_its_bounds(byok: Byok, acme: Customer) -> None:
    assert byok("tenant", "set", "acme", "--outage-wait", "30s", "--json").json()["outage_wait_seconds"] == 30
    assert byok("tenant", "set", "acme", "--outage-wait", "6m").exit_code == 2


def test_a_missing_setting_is_one_line(byok: Byok, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BYOK_MASTER_KEYS")
    result = byok("tenant", "list")
    assert result.exit_code == 78
    assert result.err.startswith("byok: BYOK_MASTER_KEYS: set it")
    monkeypatch.setenv("BYOK_MASTER_KEYS", "mk:c2hvcnQ=")
    assert "has 5 bytes, not 32" in byok("tenant", "list").err


def test_servers_that_do_not_answer_are_one_line(byok: Byok, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYOK_DATABASE_URL", "postgresql+psycopg://u:hidden-password@127.0.0.1:1/d")
    result = byok("tenant", "list")
    assert result.exit_code == 6
    assert "[store-unavailable]" in result.err
    assert "hidden-password" not in result.err


@pytest.mark.parametrize(
    "command", ["", "tenant", "key", "db", "audit", "master-key", "report", "rotation", "demo", "up"]
)
def test_help_is_there_for_everything(byok: Byok, command: str) -> None:
    result = byok(*([command] if command else []), "--help")
    assert result.exit_code == 0
    assert "Usage" in result.out


def test_verify_corrects_one_arn_and_gives_up_a_role_only_when_told(byok: Byok, acme: Customer) -> None:
    tenant = byok("tenant", "add", "typo", "--json").json()
    key = acme.account.create_key()
    wrong = ("--kms-key-arn", key, "--role-arn", f"{acme.role}-typo", "--wait", "0")
    assert byok("tenant", "verify", "typo", *wrong).exit_code == 8
    assert byok("tenant", "verify", "typo", "--kms-key-arn", key, "--wait", "0").exit_code == 8
    assert byok("tenant", "show", "typo", "--json").json()["role_arn"] == f"{acme.role}-typo"
    root = {"AWS": f"arn:aws:iam::{acme.account.account_id}:root"}
    own = {"Effect": "Allow", "Principal": root, "Action": "kms:*", "Resource": "*"}
    added = byok("tenant", "policy", "typo", "--mode", "key-policy", "--json").json()["key_policy_statements"]
    assert tenant["id"] in json.dumps(added)
    acme.account.put_key_policy(key, {"Version": "2012-10-17", "Statement": [own, *added]})
    verified = byok("tenant", "verify", "typo", "--mode", "key-policy", "--json").json()
    assert (verified["state"], verified["role_arn"]) == ("active", None)
    assert "[connection-fixed]" in byok("tenant", "verify", "typo", "--mode", "role").err
