"""``byok reencrypt`` over real servers."""

import threading
import time
from collections.abc import Iterator, Mapping

import pytest
import sqlalchemy as sa

from byok.core.reencryption import CampaignState
from byok.embedded.stack import Stack
from byok.settings import load_settings
from byok.wiring import Runtime, build
from tests.applications import Application, application, context
from tests.customers import Customer, add_key, join
from tests.integration.test_cli import Byok, byok

__all__ = ["byok"]


@pytest.fixture
def target(stack: Stack, byok: Byok, monkeypatch: pytest.MonkeyPatch) -> Iterator[Application]:
    with application(stack, "shown") as made:
        monkeypatch.setenv("BYOK_APPLICATION_DATABASE_URL", made.url)
        yield made


@pytest.fixture
def runtime(target: Application, environment: Mapping[str, str]) -> Iterator[Runtime]:
    runtime = build(load_settings())
    yield runtime
    runtime.close()


@pytest.fixture
def acme(stack: Stack, runtime: Runtime, target: Application) -> Customer:
    customer = join(stack, runtime, "acme")
    add_key(runtime, "acme")
    cipher = runtime.services.vault.cipher("acme", "pii")
    target.insert(cipher, {row_id: f"user-{row_id}" for row_id in range(1, 21)})
    return customer


def run_to_end(runtime: Runtime) -> None:
    campaign = runtime.services.campaigns.latest(1)[0].campaign
    while campaign.is_open:
        assert runtime.services.reencryption.run(campaign.id) is not None
        campaign = runtime.services.campaigns.get(campaign.id).campaign


def run_when_started(runtime: Runtime) -> None:
    while not runtime.services.campaigns.latest(1):
        time.sleep(0.05)
    time.sleep(0.6)  # the command looks once before anything is done
    run_to_end(runtime)


REGISTER = ("reencrypt", "register", "acme", "pii", "--table", "users", "--primary-key", "id")
EMAIL = ("--column", "email=users.email:{id}")


def test_the_tour_of_a_campaign(
    byok: Byok, acme: Customer, runtime: Runtime, target: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BYOK_RECHECK_SECONDS", "0.1")
    registered = byok(
        *REGISTER, *EMAIL, "--column", "note=users.note:{id}", "--where", "tenant=acme", "--json"
    )
    assert registered.exit_code == 0
    assert registered.json()["tried"] == 30
    assert registered.json()["where"] == "tenant=acme"
    listed = byok("reencrypt", "targets", "acme", "pii")
    assert "public.users" in listed.out
    assert "email=users.email:{id}" in listed.out
    started = byok("reencrypt", "start", "acme", "pii", "--rows-per-second", "1000", "--json").json()
    campaign = started[0]["campaign"]
    assert (started[0]["state"], started[0]["new"]) == ("running", True)
    assert "joined" in byok("reencrypt", "start", "acme", "pii").out
    assert "paused" in byok("reencrypt", "pause", campaign).out
    assert byok("reencrypt", "pause", campaign).exit_code == 4
    assert "running" in byok("reencrypt", "resume", campaign).out
    run_to_end(runtime)
    shown = byok("reencrypt", "status", campaign, "--json").json()
    assert (shown["state"], shown["before"], shown["after"]) == ("done", {"1": 30}, {"1": 30})
    assert "done" in byok("reencrypt", "status").out
    text = byok("reencrypt", "status", campaign, "--watch").out
    assert "values after" in text
    assert "version 1: 30" in text
    log = byok("audit", "log", "acme", "--json").json()
    assert [event["action"] for event in log][-1] == "campaign.finished"
    assert byok("reencrypt", "unregister", registered.json()["target"]).exit_code == 0
    assert byok("reencrypt", "targets", "acme", "pii", "--json").json() == []


def test_whoever_waits_gets_the_end(
    byok: Byok, acme: Customer, runtime: Runtime, target: Application
) -> None:
    assert byok(*REGISTER, *EMAIL).exit_code == 0
    cipher = runtime.services.vault.cipher("acme", "pii")
    target.write(4, cipher.encrypt(b"secret value", context=b"elsewhere"))
    requested = runtime.services.vault.request_rotation("acme", "pii")
    runtime.services.rotations.run(requested.rotation.id)
    worker = threading.Thread(target=run_when_started, args=(runtime,))
    worker.start()
    waited = byok("reencrypt", "start", "acme", "pii", "--wait")
    worker.join()
    assert waited.exit_code == 10
    assert "1 values don't open" in waited.err
    campaign = runtime.services.campaigns.latest(1)[0].campaign
    assert campaign.state is CampaignState.FAILED
    shown = byok("reencrypt", "status", str(campaign.id))
    assert "email of 4" in shown.out
    assert "secret value" not in shown.out


def test_old_versions_are_destroyed_when_their_leases_have_ended(
    byok: Byok, acme: Customer, runtime: Runtime, target: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BYOK_RECHECK_SECONDS", "0.1")
    byok(*REGISTER, *EMAIL, "--where", "tenant=acme")
    assert byok("reencrypt", "destroy-old", "acme", "pii", "--yes").exit_code == 4, "nothing is proven yet"
    requested = runtime.services.vault.request_rotation("acme", "pii")
    runtime.services.rotations.run(requested.rotation.id)
    byok("reencrypt", "start", "acme", "pii")
    run_to_end(runtime)
    runtime.services.watch.close()  # what it used is written, and nobody is waited for
    early = byok("reencrypt", "destroy-old", "acme", "pii", "--yes")
    assert early.exit_code == 4
    assert "may hold a lease from before until" in " ".join(early.err.split())
    assert byok("key", "show", "acme", "pii", "--json").json()["decryption_floor"] == 2
    with runtime.engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE keys SET decryption_floor_set_at = decryption_floor_set_at - interval '2 h'")
        )
    destroyed = byok("reencrypt", "destroy-old", "acme", "pii", "--yes", "--json")
    assert destroyed.json() == {"key": "pii", "decryption_floor": 2, "destroyed": [1]}
    assert "no version below 2 left" in byok("reencrypt", "destroy-old", "acme", "pii", "--yes").out


@pytest.mark.parametrize(
    ("arguments", "exit_code", "told"),
    [
        (("status", "x"), 2, "not the id of a campaign"),
        (("status", "--watch"), 2, "--watch needs a campaign"),
        (("status", "00000000-0000-0000-0000-000000000000"), 3, "unknown-campaign"),
        (("unregister", "x"), 2, "not the id of a target"),
        (("start", "acme", "pii"), 3, "unknown-target"),
        (("cancel", "00000000-0000-0000-0000-000000000000"), 3, "unknown-campaign"),
        ((*REGISTER[1:], "--column", "email"), 2, "not a column with its context"),
        ((*REGISTER[1:], "--column", "email=users:{pk}"), 2, "unknown placeholder {pk}"),
        ((*REGISTER[1:], *EMAIL, "--where", "acme"), 2, "chooses no rows"),
        ((*REGISTER[1:], "--column", "email=users.mail:{id}"), 4, "target-mismatch"),
    ],
)
def test_each_mistake_is_one_line(
    byok: Byok, acme: Customer, arguments: tuple[str, ...], exit_code: int, told: str
) -> None:
    result = byok("reencrypt", *arguments)
    assert result.exit_code == exit_code
    assert told in result.err
    assert len(result.err.splitlines()) == 1


def test_a_context_is_made_of_the_template() -> None:
    assert context(7) == b"users.email:7"
