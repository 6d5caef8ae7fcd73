"""Following the customer's KMS key: period by tag, KMS key, setting or default; and its new material."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from byok.core.model import Connection, RotationReason, RotationSource, RotationState
from byok.embedded.stack import Stack
from byok.errors import KmsRequestRejected, KmsUnavailable, TenantNotActive
from byok.simulator.control import SimulatorControl
from byok.wiring import Runtime
from tests.customers import Customer, add_key, join
from tests.fakes import FakeKmsKey
from tests.world import World

DAY = timedelta(days=1)


@pytest.fixture
def acme(world: World) -> FakeKmsKey:
    """The customer's KMS key; tenant acme has the key pii, set to 30 days."""
    world.add_tenant()
    world.add_key(period=30 * DAY)
    (key,) = world.kms.keys.values()
    return key


def sync(world: World) -> None:
    world.services.follower.sync("acme", actor="test")


def period(world: World) -> tuple[int, RotationSource]:
    key = world.show().key
    return key.rotation_period.days, key.rotation_source


def test_the_tag_goes_before_the_kms_keys_period_before_the_setting(world: World, acme: FakeKmsKey) -> None:
    sync(world)
    assert period(world) == (30, RotationSource.SETTING)
    acme.rotation_days = 180
    sync(world)
    assert period(world) == (180, RotationSource.KMS_KEY)
    acme.rotation_tag = "7"
    sync(world)
    assert period(world) == (7, RotationSource.TAG)
    acme.rotation_tag = acme.rotation_days = None
    sync(world)
    assert period(world) == (30, RotationSource.SETTING)


def test_without_anything_said_it_is_a_year(world: World) -> None:
    world.add_tenant()
    world.services.registry.create_key(
        "acme", "cards", rotation_period=None, lease_ttl=timedelta(0), actor="test"
    )
    key = world.show(key="cards").key
    assert (key.rotation_period, key.rotation_source) == (365 * DAY, RotationSource.DEFAULT)


def test_a_new_key_follows_at_once_what_is_known(world: World, acme: FakeKmsKey) -> None:
    acme.rotation_tag = "9"
    sync(world)
    created, _ = world.services.registry.create_key(
        "acme", "cards", rotation_period=30 * DAY, lease_ttl=timedelta(0), actor="test"
    )
    assert (created.rotation_period, created.rotation_source) == (9 * DAY, RotationSource.TAG)


def test_a_setting_waits_behind_the_customers_wish(world: World, acme: FakeKmsKey) -> None:
    acme.rotation_tag = "9"
    sync(world)
    changed = world.services.registry.set_rotation("acme", "pii", actor="test", rotation_period=2 * DAY)
    assert (changed.rotation_period, changed.rotation_source) == (9 * DAY, RotationSource.TAG)
    acme.rotation_tag = None
    sync(world)
    assert period(world) == (2, RotationSource.SETTING)


@pytest.mark.parametrize("tag", ["0", "3651", "-1", "7.5", "weekly", "", "٧", "00000007"])
def test_a_tag_that_makes_no_sense_counts_for_nothing(world: World, acme: FakeKmsKey, tag: str) -> None:
    acme.rotation_tag = tag
    synced = world.services.follower.sync("acme", actor="test")
    assert synced.ignored_tag == tag
    assert period(world) == (30, RotationSource.SETTING)


def test_the_vendor_bounds_every_period(world: World, acme: FakeKmsKey) -> None:
    acme.rotation_tag = "3650"
    follower = world.services.follower
    follower._longest = 90 * DAY
    sync(world)
    assert period(world) == (90, RotationSource.TAG)


def test_a_change_is_audited_with_its_source_and_counts_from_the_activation(
    world: World, acme: FakeKmsKey
) -> None:
    activated = world.versions()[0].activated_at
    assert activated is not None
    world.clock.advance(days=3)
    acme.rotation_tag = "7"
    sync(world)
    assert world.show().key.next_rotation_at == activated + 7 * DAY
    event = world.services.registry.audit_log("acme")[-1]
    assert event.action == "key.rotation-set"
    assert event.details["source"] == "tag"
    assert event.details["source_before"] == "setting"
    before = len(world.audit_actions())
    sync(world)
    assert len(world.audit_actions()) == before  # nothing changed, nothing is told


def test_however_often_the_tag_changes_a_key_is_rotated_once_a_day_at_most(
    world: World, acme: FakeKmsKey
) -> None:
    rotated = 0
    for hour in range(48):
        acme.rotation_tag = str(1 + hour % 2)
        sync(world)
        world.services.scheduling.dispatch_due()
        rotated += len(world.run_published())
        world.clock.advance(hours=1)
    assert rotated == 1  # a day after the first version; the next is due when two days are over
    world.services.scheduling.dispatch_due()
    assert len(world.run_published()) <= 1


def test_new_material_of_the_kms_key_is_followed_by_a_rotation_once(world: World, acme: FakeKmsKey) -> None:
    acme.material_id = "material-2"
    first = world.services.follower.sync("acme", actor="test")
    again = world.services.follower.sync("acme", actor="test")
    assert (len(first.rotated), len(again.rotated)) == (1, 0)
    assert first.rotated[0].rotation.reason is RotationReason.KMS_KEY_ROTATED
    world.run_published()
    assert [version.kms_key_material_id for version in world.versions()] == ["material-1", "material-2"]
    assert world.services.follower.sync("acme", actor="test").rotated == []


def away() -> None:
    raise KmsUnavailable("away")


def materials(world: World) -> list[str | None]:
    return [version.kms_key_material_id for version in world.versions()]


def synced_daily(world: World, days: int) -> list[int]:
    """How many rotations each day's two syncs ask for, when what they ask for is run."""
    asked = []
    for _ in range(days):
        world.clock.advance(days=1)
        asked.append(sum(len(world.services.follower.sync("acme", actor="beat").rotated) for _ in range(2)))
        world.run_published()
    return asked


def test_material_that_a_rotation_under_way_missed_is_followed_the_next_day(
    world: World, acme: FakeKmsKey
) -> None:
    """A version that waits for its validation was made of the old material; the request joins it."""
    open_rotation = world.services.vault.request_rotation("acme", "pii").rotation
    world.kms.hooks["Decrypt"] = away
    with pytest.raises(KmsUnavailable):
        world.services.rotations.run(open_rotation.id)
    world.kms.hooks.clear()
    world.queue.rotations = []
    acme.material_id = "material-2"
    assert world.services.follower.sync("acme", actor="beat").rotated == []
    world.clock.advance(hours=1)
    world.services.rotations.run(open_rotation.id)
    assert materials(world) == ["material-1", "material-1"]
    assert synced_daily(world, 3) == [1, 0, 0]
    assert materials(world) == ["material-1", "material-1", "material-2"]


def test_a_rotation_to_new_material_that_failed_is_asked_for_again_once_a_day(
    world: World, acme: FakeKmsKey
) -> None:
    acme.material_id = "material-2"
    for _ in range(2):
        world.clock.advance(days=1)
        (work,) = world.services.follower.sync("acme", actor="beat").rotated
        world.queue.rotations = []
        world.kms.fail_next(KmsRequestRejected("ValidationException"))
        with pytest.raises(KmsRequestRejected):
            world.services.rotations.run(work.rotation.id)
        assert world.rotation(work.rotation.id).state is RotationState.FAILED
        assert world.services.follower.sync("acme", actor="beat").rotated == []
    assert synced_daily(world, 3) == [1, 0, 0]
    assert materials(world)[-1] == "material-2"


def test_syncs_at_the_same_time_ask_once(world: World, acme: FakeKmsKey) -> None:
    acme.material_id = "material-2"
    together = threading.Barrier(4)

    def meet() -> None:
        together.wait(10)

    world.kms.hooks["GetKeyRotationStatus"] = meet
    before = len(world.audit_actions())
    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(world.another_process().follower.sync, "acme", actor="beat") for _ in range(4)]
    assert sorted(len(run.result().rotated) for run in runs) == [0, 0, 0, 1]
    assert world.audit_actions()[before:] == [
        "tenant.kms-key-rotation-changed",  # once
        "rotation.requested",  # and the others did not join, either
    ]


def test_an_outage_leaves_the_last_good_value(world: World, acme: FakeKmsKey) -> None:
    acme.rotation_tag = "7"
    sync(world)
    acme.rotation_tag = "90"
    world.kms.fail_next(KmsUnavailable("away"))
    with pytest.raises(KmsUnavailable):
        sync(world)
    assert period(world) == (7, RotationSource.TAG)
    assert world.tenant().kms_key_rotation.tag_days == 7


def test_beat_publishes_a_sync_for_each_active_tenant(world: World, acme: FakeKmsKey) -> None:
    world.services.onboarding.add_tenant("pending", actor="test")
    world.services.fan_out.publish_syncs()
    world.clock.advance(hours=12)  # whenever it was due: not later than this
    world.queue.syncs.clear()
    assert world.services.fan_out.publish_syncs() == 1
    assert world.queue.syncs == ["acme"]
    with pytest.raises(TenantNotActive):
        world.services.follower.sync("pending", actor="test")


@pytest.fixture
def real(stack: Stack, runtime: Runtime, simulator: SimulatorControl) -> Customer:
    customer = join(stack, runtime, "acme")
    add_key(runtime, "acme")
    return customer


def connection(customer: Customer) -> Connection:
    assert customer.tenant.connection is not None
    return customer.tenant.connection


def real_period(runtime: Runtime) -> tuple[int, RotationSource]:
    key = runtime.services.registry.show_key("acme", "pii").key
    return key.rotation_period.days, key.rotation_source


def test_over_the_real_adapter(real: Customer, runtime: Runtime) -> None:
    follower, kms = runtime.services.follower, real.account.kms
    real.account.enable_key_rotation(real.kms_key, 120)
    follower.sync("acme", actor="test")
    assert real_period(runtime) == (120, RotationSource.KMS_KEY)
    kms.tag_resource(
        KeyId=real.kms_key,
        Tags=[
            {"TagKey": "cost-centre", "TagValue": "7"},
            {"TagKey": "byok:rotation-days", "TagValue": "10"},
        ],
    )
    follower.sync("acme", actor="test")
    assert real_period(runtime) == (10, RotationSource.TAG)
    real.account.rotate_key_on_demand(real.kms_key)
    (work,) = follower.sync("acme", actor="test").rotated
    runtime.services.rotations.run(work.rotation.id)
    versions = runtime.services.registry.show_key("acme", "pii").versions
    assert len({version.kms_key_material_id for version in versions}) == 2


def test_the_tag_is_found_on_a_later_page(
    real: Customer, runtime: Runtime, simulator: SimulatorControl
) -> None:
    real.account.kms.tag_resource(
        KeyId=real.kms_key, Tags=[{"TagKey": "byok:rotation-days", "TagValue": "10"}]
    )
    first = {"Tags": [{"TagKey": "cost-centre", "TagValue": "7"}], "Truncated": True, "NextMarker": "next"}
    simulator.inject(operation="ListResourceTags", times=1, reply=first)
    simulator.forget_calls()
    runtime.services.follower.sync("acme", actor="test")
    assert real_period(runtime) == (10, RotationSource.TAG)
    assert len(simulator.calls(operation="ListResourceTags")) == 2


def test_trouble_with_our_own_identity_erases_nothing(
    real: Customer, runtime: Runtime, simulator: SimulatorControl
) -> None:
    real.account.kms.tag_resource(
        KeyId=real.kms_key, Tags=[{"TagKey": "byok:rotation-days", "TagValue": "10"}]
    )
    runtime.services.follower.sync("acme", actor="test")
    simulator.inject(operation="AssumeRole", code="InvalidClientTokenId", http_status=403)
    runtime.kms.forget()
    with pytest.raises(KmsRequestRejected):
        runtime.kms.read_rotation(connection(real))
    with pytest.raises(KmsRequestRejected):
        runtime.services.follower.sync("acme", actor="test")
    assert real_period(runtime) == (10, RotationSource.TAG)


def test_a_key_without_rotation_of_its_own_says_nothing_of_it(
    real: Customer, runtime: Runtime, simulator: SimulatorControl
) -> None:
    simulator.inject(operation="GetKeyRotationStatus", code="UnsupportedOperationException")
    assert runtime.services.follower.sync("acme", actor="test").kms_key_rotation.period_days is None


def test_what_we_may_not_read_counts_as_not_said(real: Customer, runtime: Runtime) -> None:
    from byok.core import policies

    real.account.enable_key_rotation(real.kms_key, 120)
    permissions = policies.role_permissions(real.kms_key, real.tenant.id)
    permissions["Statement"] = permissions["Statement"][:1]
    real.account.put_role_policy("byok", permissions)
    synced = runtime.services.follower.sync("acme", actor="test")
    assert synced.kms_key_rotation.period_days is None
    assert real_period(runtime) == (30, RotationSource.SETTING)
