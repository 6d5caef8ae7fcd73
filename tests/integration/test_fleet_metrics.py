"""What the exporter tells of the fleet is what the tables say, and each metric of the list is told."""

import math
from datetime import timedelta
from uuid import uuid4

import pytest
import sqlalchemy as sa

from byok.core.bounds import MAX_LEASE_TTL
from byok.core.metric_list import METRICS, REACHABLE, Kind, Origin, Sample
from byok.core.model import Job, RotationReason, SuspensionKind
from byok.core.stops import revocation_bound
from byok.core.webhooks import WebhookMessage
from byok.errors import KmsRequestRejected
from byok.queue import QUEUES
from byok.services.fleet_metrics import read_depths, read_settings, read_store
from byok.services.periods import Periods
from tests.metric_pages import of_list
from tests.world import PERIOD, PERIODS, RECHECK, World, kms_key_arn

DAY = timedelta(days=1)
Told = dict[tuple[str, ...], float]


def tell(world: World) -> dict[str, Told]:
    told: dict[str, Told] = {}
    for sample in read_store(world.store, world.clock):
        told.setdefault(sample.metric.name, {})[sample.labels] = sample.value
    return told


@pytest.fixture
def fleet(world: World) -> World:
    """Three tenants and a bit of everything: a stop, a failed rotation, an open one, a key that is due, and
    KMS keys whose days are counted."""
    for name in ("acme", "globex", "initech"):
        world.add_tenant(name)
        world.add_key(name)
    world.services.scheduling.tick(Job.SWEEP)
    world.services.vault.cipher("initech", "pii").encrypt(b"x", context=b"c")
    world.services.kill_switch.suspend("initech", "an exercise", actor="test")
    world.kms.fail_next(KmsRequestRejected("no", aws_code="ValidationException"))
    world.services.requests.request("acme", "pii", reason=RotationReason.FORCED, requested_by="test")
    with pytest.raises(KmsRequestRejected):
        world.run_published()
    world.services.requests.request("globex", "pii", reason=RotationReason.FORCED, requested_by="test")
    days = world.clock.now() + 6 * DAY
    for number, name in enumerate(("acme", "globex", "initech"), start=1):
        key = world.kms.keys[kms_key_arn(number)]
        key.rotation_days = 365
        if name == "globex":
            key.material_expires_at = days
        if name == "initech":
            key.state, key.deletion_at = "PendingDeletion", days
        world.services.lookout.look(name, actor="watch")
    world.clock.advance(seconds=20)
    return world


def test_each_metric_of_the_list_is_told_with_its_labels_and_nothing_else(fleet: World) -> None:
    samples: list[Sample] = [
        *read_store(fleet.store, fleet.clock),
        *read_depths(dict.fromkeys(QUEUES, 0)),
        *read_settings(PERIODS, RECHECK),
    ]
    told = {sample.metric.name: sample.metric for sample in samples} | {REACHABLE.name: REACHABLE}
    assert told == of_list(Origin.FLEET)
    series = [(sample.metric.name, sample.labels) for sample in samples]
    assert len(series) == len(set(series))


def test_a_sample_has_a_value_for_each_label() -> None:
    with pytest.raises(ValueError, match="byok_reachable"):
        Sample(REACHABLE, 1.0)


def test_tenants_and_keys(fleet: World) -> None:
    told = tell(fleet)
    assert told["byok_tenants"] == {
        ("pending",): 0, ("active",): 2, ("suspended",): 1, ("offboarded",): 0
    }  # fmt: skip
    assert told["byok_tenant_suspended"] == {("initech", "by-hand"): 20}
    assert told["byok_keys"] == {(): 3}
    assert (told["byok_keys_overdue"], told["byok_oldest_overdue_seconds"]) == ({(): 0}, {(): 0})


def test_keys_of_suspended_tenants_are_not_overdue(fleet: World) -> None:
    fleet.clock.advance(seconds=1.1 * PERIOD.total_seconds())
    told = tell(fleet)
    assert told["byok_keys_overdue"] == {(): 2}
    with fleet.store.transaction() as tx:
        due = [tx.keys.get(fleet.tenant(name), "pii").next_rotation_at for name in ("acme", "globex")]
    assert told["byok_oldest_overdue_seconds"] == {
        (): max((fleet.clock.now() - at).total_seconds() for at in due if at is not None)
    }


def test_who_stopped_a_tenant_is_told_by_awss_code(fleet: World) -> None:
    fleet.kms.disable(fleet.tenant("acme").connection.kms_key_arn)  # type: ignore[union-attr]  # it is active
    fleet.services.checkups.probe("acme")
    fleet.services.kill_switch.suspend("globex", "x", actor="test", kind=SuspensionKind.DRILL)
    assert set(tell(fleet)["byok_tenant_suspended"]) == {
        ("acme", "DisabledException"), ("globex", "drill"), ("initech", "by-hand")
    }  # fmt: skip


def test_rotations(fleet: World) -> None:
    told = tell(fleet)
    assert told["byok_rotations_open"] == {("requested",): 1, ("generated",): 0, ("validated",): 0}
    assert told["byok_oldest_rotation_seconds"] == {(): 20}
    assert told["byok_rotations_failed"] == {(): 1}
    fleet.run_published()
    told = tell(fleet)
    assert told["byok_rotations_open"][("requested",)] == 0
    assert told["byok_oldest_rotation_seconds"] == {(): 0}


def test_a_job_that_never_ran_is_infinitely_late(fleet: World) -> None:
    ages = tell(fleet)["byok_tick_age_seconds"]
    assert ages == {(job.value,): 20 if job is Job.SWEEP else math.inf for job in Job}


def test_processes_and_stops(fleet: World) -> None:
    told = tell(fleet)
    assert told["byok_members"] == {("service",): 1, ("worker",): 0, ("command",): 0}
    assert set(told["byok_worst_revocation_seconds"]) == {("initech",)}


def test_what_the_settings_say_is_there_without_any_server() -> None:
    told = {(sample.metric.name, sample.labels): sample.value for sample in read_settings(PERIODS, RECHECK)}
    bound = revocation_bound(MAX_LEASE_TTL, PERIODS.probe, RECHECK)
    assert told["byok_revocation_bound_seconds", ()] == bound.polled.total_seconds() == 311
    assert told["byok_stop_bound_seconds", ()] == bound.told.total_seconds() == 6
    assert told["byok_tick_period_seconds", ("sweep",)] == 15
    assert told["byok_watch_period_seconds", ()] == 86_400
    assert len(told) == len(Job) + 3


def test_every_job_has_a_period() -> None:
    periods = Periods(*(timedelta(seconds=number) for number in range(1, 12)))
    assert len({periods.of(job) for job in Job}) == len(Job)


def test_the_list_has_each_name_once_and_gauges_alone_of_the_fleet() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    assert {metric.kind for metric in METRICS if metric.origin is Origin.FLEET} == {Kind.GAUGE}


def test_findings_are_counted_and_days_counted_down(fleet: World, engine: sa.Engine) -> None:
    told = tell(fleet)
    findings = {labels: number for labels, number in told["byok_findings"].items() if number}
    assert findings == {("key-material-expiring", "urgent"): 1, ("kms-key-pending-deletion", "urgent"): 1}
    left = pytest.approx(6 - 20 / 86_400)
    assert told["byok_key_material_expiry_days"] == {("globex",): left}
    assert told["byok_kms_key_deletion_days"] == {("initech",): left}
    assert told["byok_oldest_watch_seconds"] == {(): 20}
    assert told["byok_audit_chains_broken"] == {(): 0}
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE audit_events SET actor = 'nobody' WHERE action = 'key.created'"))
    fleet.clock.advance(days=30)
    fleet.services.lookout.look("acme", actor="watch")
    told = tell(fleet)
    assert told["byok_audit_chains_broken"] == {(): 1}
    assert told["byok_kms_key_deletion_days"][("initech",)] < 0
    assert told["byok_oldest_watch_seconds"] == {(): 30 * 86_400 + 20}


def test_webhooks_that_wait_and_that_were_given_up(fleet: World) -> None:
    tenant_id = fleet.tenant("acme").id
    assert tell(fleet)["byok_webhooks_waiting_seconds"] == {(): 0}
    with fleet.store.transaction() as tx:
        tx.outbox.add([WebhookMessage(uuid4(), tenant_id, "{}")], fleet.clock.now())
    fleet.clock.advance(seconds=50)
    assert tell(fleet)["byok_webhooks_waiting_seconds"] == {(): 50}
    with fleet.store.transaction() as tx:
        ((message, _),) = tx.outbox.claim(fleet.clock.now(), 1)
    assert tell(fleet)["byok_webhooks_waiting_seconds"] == {(): 0}, "it is not due"
    fleet.clock.advance(seconds=90)
    assert tell(fleet)["byok_webhooks_waiting_seconds"] == {(): 30}, "a retry counts as well"
    assert tell(fleet)["byok_webhooks_given_up"] == {(): 0}
    with fleet.store.transaction() as tx:
        tx.outbox.set_failed(message.id, "HTTP 503", fleet.clock.now(), give_up=True)
    told = tell(fleet)
    assert (told["byok_webhooks_waiting_seconds"], told["byok_webhooks_given_up"]) == ({(): 0}, {(): 1})
    fleet.clock.advance(hours=25)
    assert tell(fleet)["byok_webhooks_given_up"] == {(): 0}
