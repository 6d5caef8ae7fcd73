"""Customers are told of findings at least once each, by messages that they can verify without byok."""

import base64
import json
import os
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from byok.core.webhooks import MAX_ATTEMPTS, WebhookMessage
from byok.crypto.hazmat import SecretBytes
from byok.crypto.keyring import MasterKeyRing
from byok.crypto.reports import PURPOSE
from byok.crypto.webhooks import signed_headers
from byok.errors import InvalidInput
from byok.services.checkpoints import Checkpoints
from byok.services.webhooks import WebhookDeliveries
from byok.store import schema
from byok.webhooks import WebhookPoster
from tests.fakes import FakeKmsKey
from tests.unit.test_webhook_poster import Endpoint, serving
from tests.world import World, kms_key_arn

URL = "https://hooks.acme.example/byok"
WATCH_PAGE = Path(__file__).parents[2] / "docs" / "watch.md"


@pytest.fixture(autouse=True)
def without_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """They go out by the same box, and would be counted in: test_checkpoints.py has them."""
    monkeypatch.setattr(Checkpoints, "sign_news", lambda *_, **__: None)


@pytest.fixture
def acme(world: World) -> FakeKmsKey:
    """The KMS key of a tenant that has a webhook."""
    key = world.kms.keys[kms_key_arn(1)] = FakeKmsKey(rotation_days=365)
    world.add_tenant()
    set_webhook(world, URL)
    return key


def set_webhook(world: World, url: str | None, tenant: str = "acme") -> None:
    world.services.registry.set_webhook(tenant, url, allow_http=True, actor="test")


def look(world: World, tenant: str = "acme") -> None:
    world.services.lookout.look(tenant, actor="watch")


def post(world: World) -> int:
    """What Beat's tick does; how many got through."""
    return WebhookDeliveries(world.store, world.webhooks, world.master_keys, world.clock).run()


def bodies(world: World) -> list[dict[str, Any]]:
    return [json.loads(body) for _, _, body in world.webhooks.posted]


def test_a_finding_is_told_when_it_opens_changes_and_ends(world: World, acme: FakeKmsKey) -> None:
    acme.state, acme.deletion_at = "PendingDeletion", world.clock.now() + timedelta(days=8)
    for _ in range(3):
        look(world)
        post(world)
        world.clock.advance(days=1)
    acme.state, acme.deletion_at = "Enabled", None
    look(world)
    post(world)
    told = [(one["type"], one["data"]["severity"], one["data"]["severity_before"]) for one in bodies(world)]
    assert told == [
        ("finding.opened", "warning", None),
        ("finding.severity-changed", "urgent", "warning"),
        ("finding.resolved", "urgent", "urgent"),
    ]
    data = bodies(world)[0]["data"]
    assert data["tenant"] == "acme"
    assert data["deadline_at"] == "2026-01-09T00:00:00Z"
    assert data["remedy"].startswith("aws kms cancel-key-deletion --region eu-central-1")
    assert len({one["data"]["id"] for one in bodies(world)}) == 1
    assert len({headers["webhook-id"] for _, headers, _ in world.webhooks.posted}) == 3


def test_what_only_the_vendor_can_mend_is_not_told(world: World, acme: FakeKmsKey, engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE audit_events SET actor = 'nobody'"))
    look(world)
    assert post(world) == 0
    assert world.webhooks.posted == []


def test_without_a_webhook_nothing_is_kept(world: World, acme: FakeKmsKey, engine: sa.Engine) -> None:
    set_webhook(world, None)
    acme.state = "Disabled"
    look(world)
    with engine.connect() as connection:
        assert connection.execute(sa.select(schema.webhook_messages)).all() == []


def test_a_message_that_failed_comes_again_under_its_id_and_is_given_up_at_last(
    world: World, acme: FakeKmsKey
) -> None:
    acme.state = "Disabled"
    look(world)
    world.webhooks.failures[URL] = "HTTP 503"
    tries: list[datetime] = []
    for _ in range(7 * 24 * 12):
        before = len(world.webhooks.posted)
        post(world)
        tries += [world.clock.now()] * (len(world.webhooks.posted) - before)
        world.clock.advance(minutes=5)
    assert len(tries) == MAX_ATTEMPTS
    assert len({headers["webhook-id"] for _, headers, _ in world.webhooks.posted}) == 1
    assert len({headers["webhook-timestamp"] for _, headers, _ in world.webhooks.posted}) == MAX_ATTEMPTS
    state = world.services.lookout.webhook_state(world.tenant())
    assert (state.waiting, state.given_up, state.failure) == (0, 1, "HTTP 503")
    assert state.last_delivered_at is None


def test_an_endpoint_that_comes_back_gets_what_it_missed(world: World, acme: FakeKmsKey) -> None:
    acme.state = "Disabled"
    look(world)
    world.webhooks.failures[URL] = "HTTP 503"
    assert post(world) == 0
    world.webhooks.failures.clear()
    assert post(world) == 0, "not before its pause is over"
    world.clock.advance(minutes=1)
    assert post(world) == 1
    world.clock.advance(days=7)
    assert post(world) == 0
    state = world.services.lookout.webhook_state(world.tenant())
    assert (state.waiting, state.given_up, state.failure) == (0, 0, None)


def test_who_dies_between_the_try_and_its_note_tries_again(world: World, acme: FakeKmsKey) -> None:
    acme.state = "Disabled"
    look(world)
    with world.store.transaction() as tx:
        assert len(tx.outbox.claim(world.clock.now(), 8)) == 1
    assert post(world) == 0
    world.clock.advance(minutes=1)
    assert post(world) == 1


def test_first_tries_go_before_those_of_a_dead_endpoint(world: World, acme: FakeKmsKey) -> None:
    world.add_tenant("globex")
    set_webhook(world, "https://globex.example/", "globex")
    world.webhooks.failures[URL] = "no answer (TimeoutError)"
    for _ in range(20):  # a backlog of its own
        acme.state = "Enabled" if acme.state == "Disabled" else "Disabled"
        look(world)
        world.clock.advance(seconds=1)
    post(world)
    world.clock.advance(hours=1)
    look(world, "globex")
    world.webhooks.posted.clear()
    post(world)
    first = [url for url, _, _ in world.webhooks.posted[:8]]
    assert "https://globex.example/" in first


def add_messages(world: World, tenant: str, number: int) -> None:
    messages = [WebhookMessage(uuid4(), world.tenant(tenant).id, "{}") for _ in range(number)]
    with world.store.transaction() as tx:
        tx.outbox.add(messages, world.clock.now())


def claim(world: World) -> list[WebhookMessage]:
    with world.store.transaction() as tx:
        return [message for message, _ in tx.outbox.claim(world.clock.now(), 8)]


def test_a_round_has_one_message_of_a_tenant(world: World, acme: FakeKmsKey) -> None:
    world.add_tenant("globex")
    add_messages(world, "acme", 20)
    world.clock.advance(seconds=1)
    add_messages(world, "globex", 2)
    ids = [world.tenant(name).id for name in ("acme", "globex")]
    assert [message.tenant_id for message in claim(world)] == ids
    set_webhook(world, "https://globex.example/", "globex")
    assert post(world) == 5, "four rounds, each with one of those who have any"


def test_retries_have_places_however_many_first_tries_are_due(world: World, acme: FakeKmsKey) -> None:
    add_messages(world, "acme", 1)
    assert len(claim(world)) == 1
    for number in range(9):
        world.add_tenant(f"tenant-{number}")
        add_messages(world, f"tenant-{number}", 1)
    world.clock.advance(minutes=1)
    assert [message.attempts for message in claim(world)] == [1, 1, 1, 2, 1, 1, 1, 1]


def test_what_was_settled_a_month_ago_is_deleted_and_what_waits_is_not(
    world: World, acme: FakeKmsKey, engine: sa.Engine
) -> None:
    def kept() -> list[UUID]:
        with engine.connect() as connection:
            return list(connection.scalars(sa.select(schema.webhook_messages.c.id)))

    add_messages(world, "acme", 1)
    assert post(world) == 1
    add_messages(world, "acme", 1)
    (given_up,) = claim(world)
    with world.store.transaction() as tx:
        tx.outbox.set_failed(given_up.id, "HTTP 503", world.clock.now(), give_up=True)
    world.clock.advance(days=30)
    post(world)
    assert len(kept()) == 2
    add_messages(world, "acme", 1)
    world.webhooks.failures[URL] = "HTTP 503"
    world.clock.advance(seconds=1)
    post(world)
    assert len(kept()) == 1
    assert world.services.lookout.webhook_state(world.tenant()).waiting == 1


def test_few_are_deleted_at_once(world: World, acme: FakeKmsKey) -> None:
    add_messages(world, "acme", 3)
    assert post(world) == 3
    world.clock.advance(days=1)
    with world.store.transaction() as tx:
        assert [tx.outbox.remove_settled(world.clock.now(), 2) for _ in range(3)] == [2, 1, 0]


def test_whose_webhook_is_taken_away_is_not_tried_again(world: World, acme: FakeKmsKey) -> None:
    acme.state = "Disabled"
    look(world)
    set_webhook(world, None)
    assert post(world) == 0
    assert world.webhooks.posted == []
    assert world.services.lookout.webhook_state(world.tenant()).given_up == 1


def test_the_audit_log_has_the_host_alone(world: World, acme: FakeKmsKey) -> None:
    set_webhook(world, "https://hooks.acme.example/secret")
    event = world.services.registry.audit_log("acme")[-1]
    assert (event.action, event.details) == ("tenant.webhook-set", {"host": "hooks.acme.example"})
    with pytest.raises(InvalidInput):
        world.services.registry.set_webhook("acme", "http://x.example/", allow_http=False, actor="test")


def test_the_customer_verifies_what_it_got_by_the_docs_alone(world: World, acme: FakeKmsKey) -> None:
    """The example of docs/watch.md, over what a real server was sent."""
    source = re.search(r"<!-- verify -->\n```python\n(.*?)```", WATCH_PAGE.read_text(), re.DOTALL)
    assert source is not None
    key = base64.b64encode(next(iter(world.master_keys.signing_keys(PURPOSE).values()))).decode()
    names: dict[str, Any] = {}
    exec(source[1].replace("…", key), names)  # noqa: S102  # the docs' own example
    verify = names["verify"]
    world.clock.time = datetime.now(world.clock.time.tzinfo)  # the customer's own clock
    with serving() as port:
        set_webhook(world, f"http://127.0.0.1:{port}/")
        acme.state = "Disabled"
        look(world)
        world.webhooks = WebhookPoster(public_only=False)  # type: ignore[assignment]  # the real one
        assert post(world) == 1
    ((_, _, body),) = Endpoint.seen
    headers: Mapping[str, str] = Endpoint.headers_seen[-1]
    verify(headers, body)
    assert json.loads(body)["data"]["kind"] == "kms-key-disabled"
    with pytest.raises(ValueError, match="not signed"):
        verify(headers, body.replace(b"urgent", b"note"))
    with pytest.raises(ValueError, match="not signed"):
        verify({**headers, "webhook-id": "another"}, body)
    both = MasterKeyRing([("mk-2", SecretBytes(bytes(32))), *world.master_keys._keys.items()], os.urandom)
    changing = signed_headers(both, UUID(int=1), world.clock.time, body.decode())
    assert changing["webhook-signature"].count("v1a,") == 2
    verify(changing, body)
    new_only = MasterKeyRing([("mk-2", SecretBytes(bytes(32)))], os.urandom)
    unknown = signed_headers(new_only, UUID(int=1), world.clock.time, body.decode())
    with pytest.raises(ValueError, match="not signed"):
        verify(unknown, body)
    with pytest.raises(ValueError, match="too old"):
        verify({**headers, "webhook-timestamp": str(int(headers["webhook-timestamp"]) - 400)}, body)
