"""Each alert raised by a real fault in a real fleet, seen by a real Prometheus, ended as the runbook says.

One fleet for all. Each test leaves it as it was, so that they may come in any order.
"""

import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from byok.core import policies
from byok.core.model import RotationReason
from byok.core.webhooks import WebhookMessage
from byok.queue import REENCRYPT, REENCRYPT_QUEUE, CeleryQueue
from byok.simulator.control import SimulatorControl
from deploy.monitoring.alerts import alerts
from tests.customers import Customer, add_key, join
from tests.debian import needs
from tests.monitoring.watched_fleet import HURRY, WatchedFleet, watched_fleet

pytestmark = pytest.mark.slow

needs_prometheus = needs("prometheus", "prometheus")

PAGE, TICKET = "page", "ticket"
_REWRITE = "UPDATE audit_events SET actor = :actor WHERE tenant_id = :tenant AND sequence = 1"

BY_CUSTOMERS = (
    ("ByokTenantSuspended", PAGE),
    ("ByokTenantSuspended", TICKET),
    ("ByokRevocationSlow", PAGE),
)
BY_MANY = (("ByokTenantsSuspended", PAGE),)
BY_WATCH = (
    ("ByokKmsKeyDeletion", TICKET),
    ("ByokKmsKeyDeletion", PAGE),
    ("ByokKeyMaterialExpiry", TICKET),
    ("ByokKeyMaterialExpiry", PAGE),
    ("ByokDriftFound", TICKET),
    ("ByokAuditChainBroken", PAGE),
    ("ByokWatchStale", TICKET),
    ("ByokWebhooksGivenUp", TICKET),
)
BY_ONE_KMS = (("ByokRotationFailed", TICKET), ("ByokRotationFailed", PAGE), ("ByokIntegrityAlarm", PAGE))
BY_EVERY_KMS = (
    ("ByokRotationStuck", TICKET),
    ("ByokKmsErrorBudget", PAGE),
    ("ByokKmsErrorBudget", TICKET),
)
BY_HAND = (("ByokOrphanVersion", TICKET), ("ByokSweeperBusy", TICKET), ("ByokQueueDeep", TICKET))
BY_BEAT = (("ByokBeatSilent", PAGE), ("ByokRotationOverdue", TICKET), ("ByokRotationOverdue", PAGE))
BY_SERVERS = (("ByokServerUnreachable", PAGE), ("ByokServerUnreachable", TICKET))
BY_PROCESSES = (
    ("ByokNoWorker", PAGE),
    ("ByokTargetDown", TICKET),
    ("ByokWorkersNotScraped", TICKET),
    ("ByokExporterDown", PAGE),
)


def test_every_alert_is_raised_here() -> None:
    raised = [
        *BY_CUSTOMERS, *BY_MANY, *BY_WATCH, *BY_ONE_KMS, *BY_EVERY_KMS, *BY_HAND, *BY_BEAT, *BY_SERVERS,
        *BY_PROCESSES,
    ]  # fmt: skip
    assert sorted(raised) == sorted((one.name, one.severity.value) for one in alerts(HURRY))


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedFleet]:
    with watched_fleet(tmp_path_factory.mktemp("watched")) as running:
        yield running


@pytest.fixture
def simulator(watched: WatchedFleet) -> Iterator[SimulatorControl]:
    yield watched.fleet.simulator
    watched.fleet.simulator.clear_faults()


def customer(watched: WatchedFleet) -> Customer:
    """A customer of a test's own, with a key."""
    joined = join(watched.fleet.stack, watched.fleet.runtime, f"t-{uuid4().hex[:8]}")
    add_key(watched.fleet.runtime, joined.name, ttl=timedelta(minutes=5))
    return joined


def rotate(watched: WatchedFleet, whose: Customer, reason: RotationReason = RotationReason.FORCED) -> str:
    """Ask for a rotation; return its id."""
    requests = watched.fleet.runtime.services.requests
    return str(requests.request(whose.name, "pii", reason=reason, requested_by="test").rotation.id)


@needs_prometheus
def test_access_that_is_turned_off_and_a_process_that_does_not_hear_of_a_stop(watched: WatchedFleet) -> None:
    revoked, stopped = customer(watched), customer(watched)
    service = watched.start_service(stopped.name, "pii")
    service.process.send_signal(signal.SIGSTOP)
    revoked.account.disable_key(revoked.kms_key)
    watched.byok("tenant", "suspend", stopped.name, "--reason", "customer called")
    page, ticket, slow = watched.wait_for(*BY_CUSTOMERS)
    assert page["labels"] | {"tenant": revoked.name, "code": "DisabledException"} == page["labels"]
    assert ticket["labels"] | {"tenant": stopped.name, "code": "by-hand"} == ticket["labels"]
    # The process that does not hear owes an answer to both stops; which is told first, chance decides.
    assert slow["labels"]["tenant"] in {revoked.name, stopped.name}
    service.process.send_signal(signal.SIGCONT)
    watched.fleet.stop([service])
    revoked.account.enable_key(revoked.kms_key)
    watched.byok("tenant", "resume", stopped.name)
    watched.wait_quiet("ByokTenantSuspended")


@needs_prometheus
def test_access_of_many_that_is_turned_off(watched: WatchedFleet) -> None:
    revoked = [customer(watched) for _ in range(11)]
    for one in revoked:
        one.account.disable_key(one.kms_key)
    (page,) = watched.wait_for(*BY_MANY)
    assert page["annotations"]["description"].startswith("11 tenants")
    for one in revoked:
        one.account.enable_key(one.kms_key)
    watched.wait_quiet("ByokTenantsSuspended", "ByokTenantSuspended")


@needs_prometheus
def test_what_the_watch_finds(watched: WatchedFleet, simulator: SimulatorControl) -> None:
    deleting, soon_deleted, expiring, soon_expiring, widened, edited = (customer(watched) for _ in range(6))
    now = datetime.now(UTC)

    def look_at(*looked_at: Customer) -> None:
        for one in looked_at:
            watched.fleet.runtime.services.lookout.look(one.name, actor="test")

    for one in (deleting, soon_deleted):
        one.account.schedule_key_deletion(one.kms_key, days=7)
    simulator.import_material(expiring.kms_key, now + timedelta(days=20))
    simulator.import_material(soon_expiring.kms_key, now + timedelta(days=2))
    _widen(widened)
    watched.execute(_REWRITE, actor="nobody", tenant=edited.tenant.id)
    watched.byok("tenant", "inspect", edited.name, fails=True)
    look_at(deleting, soon_deleted, expiring, soon_expiring, widened)
    # AWS waits seven days at least: five of them have passed.
    watched.execute(
        "UPDATE findings SET deadline_at = deadline_at - interval '5 days' WHERE tenant_id = :tenant",
        tenant=soon_deleted.tenant.id,
    )
    watched.execute(
        "UPDATE tenants SET looked_at = looked_at - interval '3 days' WHERE id = :tenant",
        tenant=widened.tenant.id,
    )
    # Twelve tries take days: this message has had all but its last, which nobody answers.
    registry = watched.fleet.runtime.services.registry
    registry.set_webhook(widened.name, "https://nobody.invalid/", allow_http=False, actor="test")
    with watched.fleet.runtime.store.transaction() as tx:
        tx.outbox.add([WebhookMessage(uuid4(), widened.tenant.id, "{}")], now)
    watched.execute(
        "UPDATE webhook_messages SET attempts = 11, due_at = now() WHERE tenant_id = :tenant",
        tenant=widened.tenant.id,
    )
    told = dict(zip(BY_WATCH, watched.wait_for(*BY_WATCH), strict=True))
    assert told["ByokKmsKeyDeletion", TICKET]["labels"]["tenant"] == deleting.name
    assert told["ByokKmsKeyDeletion", PAGE]["labels"]["tenant"] == soon_deleted.name
    assert told["ByokKeyMaterialExpiry", TICKET]["labels"]["tenant"] == expiring.name
    assert told["ByokKeyMaterialExpiry", PAGE]["labels"]["tenant"] == soon_expiring.name
    for one in (deleting, soon_deleted):
        one.account.cancel_key_deletion(one.kms_key)
        one.account.enable_key(one.kms_key)
    for one in (expiring, soon_expiring):
        simulator.import_material(one.kms_key)
    _narrow(widened)
    watched.execute(_REWRITE, actor="test", tenant=edited.tenant.id)
    watched.byok("tenant", "inspect", edited.name)
    registry.set_webhook(widened.name, None, allow_http=False, actor="test")
    watched.execute(
        "UPDATE webhook_messages SET given_up_at = given_up_at - interval '1 day' WHERE tenant_id = :tenant",
        tenant=widened.tenant.id,
    )
    look_at(deleting, soon_deleted, expiring, soon_expiring, widened)
    watched.wait_quiet(*(name for name, _ in BY_WATCH))


@needs_prometheus
def test_a_kms_that_refuses_throttles_and_answers_nonsense(
    watched: WatchedFleet, simulator: SimulatorControl
) -> None:
    refusing, wrong, *waiting = (customer(watched) for _ in range(6))
    simulator.inject(
        code="LimitExceededException",
        operation="GenerateDataKeyWithoutPlaintext",
        account=refusing.account.account_id,
    )
    simulator.inject(code="InvalidCiphertextException", operation="Decrypt", account=wrong.account.account_id)
    failed = rotate(watched, refusing, RotationReason.COMPROMISE)
    watched.wait_for(*BY_ONE_KMS)
    simulator.throttle(operation="Decrypt")  # a region that is overloaded, whoever's key it is
    for one in waiting:
        rotate(watched, one)
    *_, budget = watched.wait_for(*BY_EVERY_KMS)
    assert "% of the requests" in budget["annotations"]["description"]
    simulator.clear_faults()
    watched.byok("rotation", "retry", failed)
    assert watched.fleet.settle()
    left = watched.fleet.runtime.services.observer.rotations(failed=True, limit=99)
    names = {one.name for one in (refusing, wrong, *waiting)}
    assert [work.rotation for work in left if work.tenant in names] == []
    watched.wait_quiet("ByokRotationFailed", "ByokRotationStuck", "ByokIntegrityAlarm")


@needs_prometheus
def test_hands_in_the_tables_requests_that_get_lost_and_a_queue_that_nobody_takes(
    watched: WatchedFleet,
) -> None:
    touched, *losing = (customer(watched) for _ in range(12))
    _end_by_hand(watched, touched)
    queue = CeleryQueue.connect(watched.fleet.stack.broker.url)
    for _ in range(1001):
        queue._send(REENCRYPT, {"campaign_id": str(uuid4())}, REENCRYPT_QUEUE)
    names = iter(losing * 20)

    def lose_a_request() -> None:
        watched.fleet.runtime.services.requests.record(
            next(names).name, "pii", reason=RotationReason.FORCED, requested_by="test"
        )

    watched.wait_for(*BY_HAND, meanwhile=lose_a_request)
    helper = watched.start_another_worker("-Q", REENCRYPT_QUEUE)
    rotate(watched, touched)
    assert watched.fleet.settle()
    watched.wait_quiet(*(name for name, _ in BY_HAND), "ByokRotationFailed")
    watched.fleet.stop([helper])
    queue.close()


@needs_prometheus
def test_a_beat_that_died(watched: WatchedFleet) -> None:
    late = customer(watched)
    watched.fleet.stop([watched.fleet.beat])
    due = (
        "UPDATE keys SET next_rotation_at = clock_timestamp() - CAST(:ago AS interval)"
        " WHERE tenant_id = :tenant"
    )
    watched.execute(due, ago="20 seconds", tenant=late.tenant.id)
    watched.wait_for(*BY_BEAT[:2])
    watched.execute(due, ago="1 hour", tenant=late.tenant.id)
    watched.wait_for(BY_BEAT[2])
    watched.fleet.beat = watched.fleet.start_beat()
    watched.wait_quiet("ByokBeatSilent", "ByokRotationOverdue")


@needs_prometheus
def test_servers_that_are_away(watched: WatchedFleet) -> None:
    stack = watched.fleet.stack
    for server in (stack.broker, stack.cache):
        assert server.child is not None
        watched.fleet.stop([server.child])
    page, ticket = watched.wait_for(*BY_SERVERS)
    assert (page["labels"]["server"], ticket["labels"]["server"]) == ("broker", "cache")
    for server in (stack.broker, stack.cache):
        server.start()
        server.wait()
    watched.wait_quiet("ByokServerUnreachable", "ByokBeatSilent")


@needs_prometheus
def test_processes_that_are_away_or_not_asked(watched: WatchedFleet) -> None:
    watched.fleet.stop([watched.worker])
    watched.wait_for(*BY_PROCESSES[:2])
    unasked = watched.start_another_worker()
    watched.wait_for(BY_PROCESSES[2])
    watched.fleet.stop([unasked])
    watched.start_worker()
    watched.wait_quiet("ByokNoWorker", "ByokTargetDown", "ByokWorkersNotScraped", "ByokBeatSilent")
    watched.fleet.stop([watched.exporter])
    watched.wait_for(BY_PROCESSES[3])
    watched.start_exporter()
    watched.wait_quiet("ByokExporterDown", "ByokTargetDown")


def _widen(whose: Customer) -> None:
    permissions = policies.role_permissions(whose.kms_key, whose.tenant.id)
    permissions["Statement"].append({"Effect": "Allow", "Action": "kms:*", "Resource": whose.kms_key})
    whose.account.put_role_policy("byok", permissions)


def _narrow(whose: Customer) -> None:
    whose.account.put_role_policy("byok", policies.role_permissions(whose.kms_key, whose.tenant.id))


def _end_by_hand(watched: WatchedFleet, whose: Customer) -> None:
    """End a rotation and leave its pending version, as no step of byok's does."""
    simulator = watched.fleet.simulator
    simulator.throttle(account=whose.account.account_id, operation="Decrypt")
    rotation_id = rotate(watched, whose)
    generated = f"SELECT count(*) FROM rotations WHERE id = '{rotation_id}' AND state = 'generated'"
    assert watched.fleet.wait_until(lambda: watched.fleet.count(generated) == 1)
    watched.execute(
        "UPDATE rotations SET state = 'failed', failure = 'by hand', finished_at = clock_timestamp(),"
        " wake_at = NULL, claimed_until = NULL WHERE id = :rotation",
        rotation=rotation_id,
    )
    simulator.clear_faults()
