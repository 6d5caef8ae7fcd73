"""``byok findings``, ``byok tenant inspect`` and what ``byok tenant show`` says of them."""

import pytest

from byok.core.model import Job
from byok.simulator.control import SimulatorControl
from byok.wiring import Runtime
from tests.customers import Customer
from tests.integration.test_cli import Byok, acme, byok

__all__ = ["acme", "byok"]  # fixtures


@pytest.fixture
def rotating(acme: Customer) -> Customer:
    acme.account.enable_key_rotation(acme.kms_key, 365)
    return acme


def test_nothing_is_found(byok: Byok, rotating: Customer) -> None:
    inspected = byok("tenant", "inspect", "acme")
    assert (inspected.exit_code, inspected.out) == (0, "acme: nothing was found\n")
    assert byok("findings").out == "nothing was found\n"
    assert byok("findings", "acme", "--json").json() == []
    assert "watch       found nothing; last look 20" in byok("tenant", "show", "acme").out


def test_a_note_is_no_failure(byok: Byok, acme: Customer) -> None:
    inspected = byok("tenant", "inspect", "acme")
    assert inspected.exit_code == 0
    assert "kms-key-rotation-off" in inspected.out


def test_what_was_found_is_told_with_its_deadline_and_remedy(byok: Byok, rotating: Customer) -> None:
    rotating.account.schedule_key_deletion(rotating.kms_key, 7)
    inspected = byok("tenant", "inspect", "acme")
    assert inspected.exit_code == 8
    assert "the watch found of tenant 'acme': kms-key-pending-deletion" in inspected.err
    (told,) = byok("findings", "--json").json()
    assert (told["tenant"], told["kind"], told["severity"], told["side"]) == (
        "acme", "kms-key-pending-deletion", "urgent", "customer",
    )  # fmt: skip
    assert told["deadline_at"] > told["first_seen_at"]
    key_id = rotating.kms_key.rpartition("/")[2]
    assert told["remedy"].startswith(
        f"aws kms cancel-key-deletion --region eu-central-1 --key-id {key_id}, then"
    )
    shown = byok("findings").out
    assert told["remedy"] in shown
    assert "for the customer" in shown
    day = told["deadline_at"][:10]
    assert (
        f"watch       found urgent kms-key-pending-deletion by {day};" in byok("tenant", "show", "acme").out
    )
    assert byok("tenant", "show", "acme", "--json").json()["findings"] == [told]


def test_what_was_resolved_is_kept_and_shown_on_request(byok: Byok, rotating: Customer) -> None:
    rotating.account.disable_key(rotating.kms_key)
    byok("tenant", "inspect", "acme")
    rotating.account.enable_key(rotating.kms_key)
    assert byok("tenant", "inspect", "acme", "--json").json()["findings"] == []
    assert byok("findings", "acme").out == "nothing was found\n"
    (told,) = byok("findings", "acme", "--all", "--json").json()
    assert (told["kind"], told["resolved_at"] is None) == ("kms-key-disabled", False)
    assert "resolved" in byok("findings", "acme", "--all").out


def test_an_outage_is_told_as_one(
    byok: Byok, rotating: Customer, simulator: SimulatorControl, runtime: Runtime
) -> None:
    simulator.internal_error(operation="DescribeKey")
    inspected = byok("tenant", "inspect", "acme", "--json")
    assert inspected.exit_code == 6
    assert "did not answer" in inspected.err
    assert inspected.json()["unreached"] is not None


def test_all_is_for_one_tenant(byok: Byok) -> None:
    refused = byok("findings", "--all")
    assert refused.exit_code == 2
    assert "--all needs a tenant" in refused.err
    assert byok("findings", "nobody").exit_code == 3


def test_a_webhook_is_set_shown_and_taken_away(byok: Byok, rotating: Customer, runtime: Runtime) -> None:
    url = "https://nobody.invalid/byok"
    assert f"told of findings at {url}" in byok("tenant", "set", "acme", "--webhook", url).out
    rotating.account.disable_key(rotating.kms_key)
    byok("tenant", "inspect", "acme")
    runtime.services.scheduling.tick(Job.WEBHOOKS)
    shown = byok("tenant", "show", "acme")
    assert f"webhook     {url}: last delivered –, 2 waiting, 0 given up; the latest failure: " in shown.out
    told = byok("tenant", "show", "acme", "--json").json()["webhook"]
    assert (told["url"], told["waiting"], told["failure"]) == (url, 2, "the host's name does not resolve")
    assert "no webhook" in byok("tenant", "set", "acme", "--webhook", "none").out
    assert "webhook " not in byok("tenant", "show", "acme").out
    for wrong in (["--webhook", "ftp://x.example/"], []):
        assert byok("tenant", "set", "acme", *wrong).exit_code == 2
