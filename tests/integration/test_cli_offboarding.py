"""``byok tenant offboard`` and ``certificate`` over real servers and the simulator."""

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
import sqlalchemy as sa

from byok.errors import TenantNotActive
from byok.wiring import Runtime
from tests.customers import Customer, add_key
from tests.integration.test_cli import Byok, acme, byok
from tests.leaving import let_the_day_come

__all__ = ["acme", "byok"]  # fixtures

REASON = ("--reason", "contract ended")


@pytest.fixture
def left(byok: Byok, acme: Customer, engine: sa.Engine) -> Customer:
    """A customer that has left."""
    assert byok("tenant", "offboard", "acme", *REASON).exit_code == 0
    let_the_day_come(engine)
    assert byok("tenant", "offboard", "acme", "--finish").exit_code == 0
    return acme


def test_from_the_stop_to_the_certificate(
    byok: Byok, acme: Customer, runtime: Runtime, engine: sa.Engine, tmp_path: Path
) -> None:
    cipher = runtime.services.vault.cipher("acme", "pii")
    cipher.encrypt(b"x", context=b"c")
    assert runtime.services.watch.is_listening(5)
    began = byok("tenant", "offboard", "acme", *REASON)
    assert began.exit_code == 0, began.err
    assert "leaves; it is suspended" in began.out
    assert "1 of 1 processes dropped it in" in began.out
    assert "until then: byok tenant offboard acme --cancel" in began.out
    with pytest.raises(TenantNotActive, match="leaves: contract ended"):
        cipher.encrypt(b"x", context=b"c")
    assert "suspended (leaves)" in byok("tenant", "list").out
    assert "leaving     waiting: its wrapped keys are destroyed after" in byok("tenant", "show", "acme").out
    resumed = byok("tenant", "resume", "acme")
    assert (resumed.exit_code, "--cancel" in resumed.err) == (4, True)
    early = byok("tenant", "offboard", "acme", "--finish")
    assert (early.exit_code, "no wrapped key is destroyed before" in early.err) == (4, True)
    assert byok("tenant", "certificate", "acme").exit_code == 4
    let_the_day_come(engine)
    finished = byok("tenant", "offboard", "acme", "--finish")
    assert finished.exit_code == 0, finished.err
    assert "has left: no wrapped key is left of its versions (1)" in finished.out
    assert "offboarded" in byok("tenant", "list").out
    shown = byok("tenant", "show", "acme", "--json").json()
    assert (shown["state"], shown["offboarding"]["certified"]) == ("offboarded", True)
    page = byok("tenant", "certificate", "acme")
    assert page.exit_code == 0
    for told in ("# Shred certificate of acme", "contract ended", acme.kms_key, acme.role, "no-wrapped-key"):
        assert told in page.out
    assert str(runtime.services.watch.member) in page.out
    assert "delete-role --role-name byok" in page.out
    file, readable = tmp_path / "acme.json", tmp_path / "acme.md"
    assert byok("tenant", "certificate", "acme", "--output", str(file)).exit_code == 0
    assert byok("tenant", "certificate", "acme", "--output", str(readable)).exit_code == 0
    assert readable.read_text() == page.out
    assert json.loads(file.read_text()) == byok("tenant", "certificate", "acme", "--json").json()
    verified = byok("report", "verify", str(file))
    assert (verified.exit_code, "shred-certificate" in verified.out) == (0, True)
    document = json.loads(file.read_text())
    document["report"]["proofs"][0]["passed"] = False
    file.write_text(json.dumps(document))
    assert byok("report", "verify", str(file)).exit_code == 7
    assert byok("audit", "verify", "acme").exit_code == 0


def test_whoever_has_no_byok_can_verify_it(byok: Byok, left: Customer, tmp_path: Path) -> None:
    file = tmp_path / "acme.json"
    byok("tenant", "certificate", "acme", "--output", str(file))
    key = next(iter(byok("report", "public-key", "--json").json().values()))
    spec = (Path(__file__).parents[2] / "docs" / "spec" / "report.md").read_text()
    script = spec.split("```python\n")[1].split("```")[0]
    checked = subprocess.run(
        [sys.executable, "-c", script, str(file), key], capture_output=True, text=True, check=True
    )
    assert checked.stdout == "authentic\n"


def test_taken_back_it_decrypts_again(
    byok: Byok, acme: Customer, runtime: Runtime, engine: sa.Engine
) -> None:
    token = runtime.services.vault.cipher("acme", "pii").encrypt(b"x", context=b"c")
    began = byok("tenant", "offboard", "acme", *REASON, "--json").json()
    assert (began["state"], began["offboarding"]["state"]) == ("suspended", "waiting")
    cancelled = byok("tenant", "offboard", "acme", "--cancel")
    assert (cancelled.exit_code, "acme stays: it is active" in cancelled.out) == (0, True)
    assert byok("decrypt", "acme", "pii", "--context", "c", stdin=token).out == "x"
    assert byok("tenant", "offboard", "acme", "--cancel").exit_code == 4


def test_what_can_not_be_meant_is_refused_before_anything_is_done(byok: Byok, acme: Customer) -> None:
    assert byok("tenant", "offboard", "acme").exit_code == 2
    assert byok("tenant", "offboard", "acme", *REASON, "--cancel").exit_code == 2
    assert byok("tenant", "offboard", "acme", *REASON, "--retention-days", "-1").exit_code == 2
    assert byok("tenant", "offboard", "acme", *REASON, "--wait", "soon").exit_code == 2
    assert byok("tenant", "offboard", "acme", *REASON, "--output", "x.json").exit_code == 2
    assert byok("tenant", "offboard", "nobody", *REASON).exit_code == 3
    assert byok("tenant", "offboard", "acme", "--finish").exit_code == 4
    assert byok("tenant", "show", "acme", "--json").json()["state"] == "active"


def test_without_retention_it_asks(byok: Byok, acme: Customer) -> None:
    without = ("tenant", "offboard", "acme", *REASON, "--retention-days", "0")
    assert byok(*without, stdin=b"globex\n").exit_code == 2
    assert byok("tenant", "show", "acme", "--json").json()["state"] == "active"
    assert byok(*without, stdin=b"acme\n").exit_code == 0


def test_without_retention_yes_answers(byok: Byok, acme: Customer) -> None:
    began = byok("tenant", "offboard", "acme", *REASON, "--retention-days", "0", "--yes", "--json").json()
    assert began["offboarding"]["state"] == "waiting"
    assert byok("tenant", "offboard", "acme", "--finish").exit_code == 4, "a lease may live for an hour"


def test_the_customer_shuts_us_out_and_that_is_signed(byok: Byok, left: Customer, tmp_path: Path) -> None:
    assert byok("tenant", "certificate", "acme", "--access").exit_code == 4
    stands = byok("tenant", "offboard", "acme", "--check-access")
    assert (stands.exit_code, "STILL HAS ACCESS" in stands.out) == (8, True)
    assert "still lets us in" in stands.err
    left.account.delete_role("byok")
    file = tmp_path / "access.json"
    out = byok("tenant", "offboard", "acme", "--check-access", "--output", str(file))
    assert out.exit_code == 0, out.err
    report = byok("report", "verify", str(file), "--json").json()["report"]
    assert report["shut_out"] is True
    assert [(call["refused"], call["aws_code"]) for call in report["calls"]] == [(True, "AccessDenied")] * 2
    assert all(call["request_id"] for call in report["calls"])
    assert "is shut out" in byok("tenant", "certificate", "acme", "--access").out
    event = byok("audit", "log", "acme", "--json").json()[-1]
    assert event["action"] == "tenant.access-checked"
    assert event["details"]["request_id"] == report["calls"][0]["request_id"]


def test_who_comes_back_registers_the_same_role_under_another_name(
    byok: Byok, left: Customer, runtime: Runtime
) -> None:
    assert byok("tenant", "add", "acme").exit_code == 4
    added = byok("tenant", "add", "acme-2", "--json").json()
    policy = byok("tenant", "policy", "acme-2", "--kms-key-arn", left.kms_key, "--json").json()
    left.account.update_trust_policy("byok", policy["role_trust_policy"])
    left.account.put_role_policy("byok", policy["role_permissions_policy"])
    arns = ("--kms-key-arn", left.kms_key, "--role-arn", left.role)
    verified = byok("tenant", "verify", "acme-2", *arns, "--json")
    assert (verified.exit_code, verified.json()["state"]) == (0, "active"), verified.err
    assert added["id"] != str(left.tenant.id)


def dump_of(client: "redis.Redis", tenant_id: object) -> dict[bytes, bytes]:
    names: Any = client.keys(f"*{tenant_id}*")
    return {name: dumped for name in names if (dumped := client.dump(name)) is not None}


def test_a_restored_redis_gives_nothing_back(
    byok: Byok, acme: Customer, runtime: Runtime, engine: sa.Engine, environment: Mapping[str, str]
) -> None:
    add_key(runtime, "acme", "short", ttl=timedelta(seconds=2))
    used_at = time.monotonic()
    token = runtime.services.vault.cipher("acme", "short").encrypt(b"x", context=b"c")
    with engine.connect() as connection:
        generation = connection.execute(sa.text("SELECT generation FROM tenants")).scalar_one()
    client = redis.Redis.from_url(environment["BYOK_CACHE_URL"])
    dump = dump_of(client, acme.tenant.id)
    assert len(dump) == 3, "two leases, and the set of their names"
    byok("tenant", "offboard", "acme", *REASON)
    let_the_day_come(engine)
    assert byok("tenant", "offboard", "acme", "--finish").exit_code == 0
    assert runtime.cache.count(acme.tenant.id) == 0
    for name, dumped in dump.items():
        client.restore(name, 3_600_000, dumped)
    client.close()
    assert runtime.cache.count(acme.tenant.id) == 3
    decrypt = ("decrypt", "acme", "short", "--context", "c")
    assert byok(*decrypt, stdin=token).exit_code == 5
    # Nor to one who calls the tenant active again, in the generation of the dump.
    with engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE tenants SET state = 'active', generation = :generation"),
            {"generation": generation},
        )
    time.sleep(max(0.0, used_at + 2 - time.monotonic()))
    assert byok(*decrypt, stdin=token).exit_code == 7
    assert byok("encrypt", "acme", "short", "--context", "c", stdin=b"x").exit_code == 4
