"""Campaigns over a real application database: every row goes over, no write of the application is lost."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import pytest
import sqlalchemy as sa

from byok.core.model import RotationReason, TenantState
from byok.core.reencryption import Campaign, CampaignState, PauseCause, Phase, TargetColumn
from byok.embedded.stack import Stack
from byok.errors import (
    ApplicationUnavailable,
    CampaignOpen,
    ConfigurationError,
    DuplicateTarget,
    IllegalTransition,
    KmsBackingOff,
    LostRace,
    NotReady,
    OutOfBounds,
    StillInUse,
    TargetMismatch,
    UnknownCampaign,
    UnknownTarget,
)
from byok.failpoints import FailPoint, arm, disarm
from byok.services import reencryption
from byok.services.fields import Cipher
from byok.services.targets import Registration
from byok.store.application import PostgresRows
from byok.store.postgres import PostgresStore
from tests.applications import Application, application, context
from tests.integration.acts import Killed, die, pass_time, request
from tests.world import RECHECK, TTL, World, flush

COLUMNS = (TargetColumn.parse("email=users.email:{id}"), TargetColumn.parse("note=users.note:{id}"))


@pytest.fixture(scope="module")
def application_database(stack: Stack) -> Iterator[Application]:
    with application(stack) as made:
        yield made


@dataclass
class Vendor:
    """A world with an application, and what its tests do over and over."""

    world: World
    application: Application

    @property
    def cipher(self) -> Cipher:
        return self.world.services.vault.cipher("acme", "pii")

    def register(self, **changes: object) -> Registration:
        arguments: dict[str, object] = {"table": "users", "primary_key": "id", "columns": COLUMNS}
        return self.world.services.targets.register("acme", "pii", actor="test", **(arguments | changes))  # type: ignore[arg-type]

    def rotate(self, reason: RotationReason = RotationReason.FORCED) -> None:
        request(self.world, reason=reason)
        self.world.run_published()

    def start(self, **options: object) -> Campaign:
        started = self.world.services.campaigns.start("acme", "pii", requested_by="test", **options)  # type: ignore[arg-type]
        return started[0].work.campaign

    def run_one(self) -> Campaign | None:
        """Run the oldest published batch, once its countdown is over."""
        campaign, delay = self.world.queue.campaigns.pop(0)
        self.world.clock.advance(seconds=delay.total_seconds())
        return self.world.services.reencryption.run(campaign.id, campaign.batch)

    def run_to_end(self) -> Campaign:
        for _ in range(200):
            ended = self.run_one()
            if ended is not None and not ended.is_open:
                return ended
        raise AssertionError("the campaign does not end")

    def campaign(self, campaign_id: UUID) -> Campaign:
        return self.world.services.campaigns.get(campaign_id).campaign


@pytest.fixture
def vendor(store: PostgresStore, application_database: Application) -> Vendor:
    """A key on its first version, 50 rows under it, registered."""
    application_database.create()
    world = World(store, rows=PostgresRows(application_database.engine))
    world.add_tenant()
    world.add_key()
    vendor = Vendor(world, application_database)
    application_database.insert(vendor.cipher, {row_id: f"user-{row_id}" for row_id in range(1, 51)})
    vendor.register()
    return vendor


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reencryption, "PAGE_ROWS", 10)
    monkeypatch.setattr(reencryption, "_COUNTED_ROWS", 7)


def test_every_row_goes_over_with_evidence(vendor: Vendor, small_pages: None) -> None:
    emails = vendor.application.values(vendor.cipher)
    notes = vendor.application.values(vendor.cipher, "note")
    vendor.rotate()
    vendor.start()
    ended = vendor.run_to_end()
    assert ended.state is CampaignState.DONE
    assert vendor.application.versions() == vendor.application.versions("note") == {2}
    assert vendor.application.values(vendor.cipher) == emails
    assert vendor.application.values(vendor.cipher, "note") == notes
    assert (dict(ended.before), dict(ended.after)) == ({1: 75}, {2: 75})
    assert (ended.rows, ended.pass_number, ended.tally.rewritten, ended.tally.conflicts) == (50, 1, 50, 0)
    event = vendor.world.services.registry.audit_log("acme")[-1]
    assert event.action == "campaign.finished"
    assert event.details == {
        "key": "pii", "campaign": str(ended.id), "table": "public.users", "to_version": 2,
        "before": "v1 75", "after": "v2 75", "rows": 50, "passes": 1, "rewritten": 50, "conflicts": 0,
        "unreadable": 0, "failure": None,
    }  # fmt: skip


def test_a_campaign_with_nothing_to_do_writes_nothing(vendor: Vendor) -> None:
    tokens = vendor.application.tokens()
    vendor.start()
    ended = vendor.run_to_end()
    assert (ended.state, ended.tally.rewritten) == (CampaignState.DONE, 0)
    assert vendor.application.tokens() == tokens


def test_no_count_is_the_last_before_every_process_has_heard_of_the_version(vendor: Vendor) -> None:
    vendor.rotate()
    vendor.start()
    rotated_at = vendor.world.clock.now()
    vendor.world.services.reencryption.run(vendor.world.queue.campaigns[-1][0].id)
    late = vendor.campaign(vendor.world.queue.campaigns[-1][0].id)
    assert (late.phase, late.is_open) == (Phase.COUNT_AFTER, True)
    assert vendor.world.queue.campaigns[-1][1] == 2 * RECHECK
    vendor.world.queue.campaigns.pop(0)
    vendor.run_to_end()
    assert vendor.world.clock.now() >= rotated_at + 2 * RECHECK


def test_a_row_written_under_the_old_version_meanwhile_is_caught_by_the_next_pass(vendor: Vendor) -> None:
    old_token = vendor.cipher.encrypt(b"late", context=context(3))
    vendor.rotate()
    vendor.start()
    campaign = vendor.run_one()
    assert campaign is not None
    assert campaign.phase is Phase.COUNT_AFTER
    vendor.application.write(3, old_token)
    ended = vendor.run_to_end()
    assert (ended.state, ended.pass_number) == (CampaignState.DONE, 2)
    assert vendor.application.versions() == {2}
    assert vendor.application.values(vendor.cipher)[3] == "late"


def meanwhile(vendor: Vendor, act: Callable[[], object]) -> None:
    """Have something happen between the first read of a page and the write of it."""
    rows = vendor.world.rows
    assert isinstance(rows, PostgresRows)
    replace = rows.replace

    def interrupted(*arguments: object) -> int:
        vars(rows).pop("replace", None)
        act()
        return replace(*arguments)  # type: ignore[arg-type]  # passed on

    vars(rows)["replace"] = interrupted


def test_a_concurrent_write_is_never_lost(vendor: Vendor) -> None:
    vendor.rotate()
    vendor.start()
    token = vendor.cipher.encrypt(b"new", context=context(7))
    meanwhile(vendor, lambda: vendor.application.write(7, token))
    ended = vendor.run_to_end()
    assert vendor.application.tokens()[7] == token
    assert ended.tally.conflicts == 1
    assert ended.state is CampaignState.DONE


def test_a_row_that_somebody_is_writing_is_not_waited_for(vendor: Vendor) -> None:
    vendor.rotate()
    vendor.start()
    writing = vendor.application.engine.connect()
    meanwhile(vendor, lambda: writing.execute(sa.text("UPDATE users SET plain = 'x' WHERE id = 7")))
    vendor.application.run("ALTER TABLE users ADD COLUMN plain text")
    try:
        first = vendor.run_one()
        assert first is not None
        assert (first.tally.rewritten, first.tally.conflicts) == (49, 1)
    finally:
        writing.rollback()
        writing.close()
    ended = vendor.run_to_end()
    assert (ended.state, ended.pass_number) == (CampaignState.DONE, 2)
    assert vendor.application.versions() == {2}


POINTS = [FailPoint.ROWS_REPLACED, FailPoint.CURSOR_MOVED, FailPoint.BATCH_ENDED, FailPoint.FINISHING]


@pytest.mark.parametrize("point", POINTS)
def test_a_worker_that_dies_is_followed_by_another(
    vendor: Vendor, small_pages: None, point: FailPoint
) -> None:
    values = vendor.application.values(vendor.cipher)
    vendor.rotate()
    vendor.start()
    arm(point, die)
    with pytest.raises(Killed):
        vendor.run_to_end()
    disarm()
    vendor.world.queue.campaigns.clear()  # its message is lost, too
    pass_time(vendor.world, sweeps=1)
    pass_time(vendor.world, sweeps=1.1)
    assert vendor.world.services.scheduling.sweep() == 1
    ended = vendor.run_to_end()
    assert ended.state is CampaignState.DONE
    assert vendor.application.values(vendor.cipher) == values
    assert vendor.application.versions() == {2}
    assert vendor.world.audit_actions().count("campaign.finished") == 1


def test_a_request_that_was_never_published_is_found(vendor: Vendor) -> None:
    arm(FailPoint.CAMPAIGN_RECORDED, die)
    with pytest.raises(Killed):
        vendor.start()
    disarm()
    assert vendor.world.services.scheduling.sweep() == 0
    pass_time(vendor.world, sweeps=1.1)
    assert vendor.world.services.scheduling.sweep() == 1
    assert vendor.run_to_end().state is CampaignState.DONE


def test_a_message_that_comes_twice_or_late_does_nothing(vendor: Vendor, small_pages: None) -> None:
    vendor.rotate()
    vendor.start(rows_per_second=10)
    first, _ = vendor.world.queue.campaigns[0]
    vendor.run_one()
    assert len(vendor.world.queue.campaigns) == 1
    assert vendor.world.services.reencryption.run(first.id, first.batch) is None
    assert len(vendor.world.queue.campaigns) == 1  # two chains would go twice as fast as allowed
    assert vendor.run_to_end().state is CampaignState.DONE


def test_a_worker_that_was_overtaken_moves_no_cursor(vendor: Vendor, small_pages: None) -> None:
    vendor.rotate()
    campaign = vendor.start()

    def overtake() -> None:
        pass_time(vendor.world, sweeps=2.1)
        other = vendor.world.another_process()
        assert other.reencryption.run(campaign.id) is not None

    meanwhile(vendor, overtake)
    ended = vendor.run_one()
    assert ended is not None
    assert (ended.state, ended.tally.seen) == (CampaignState.DONE, 50)
    assert vendor.application.versions() == {2}


def test_the_budget_is_honoured(vendor: Vendor) -> None:
    vendor.rotate()
    vendor.start(rows_per_second=10)
    began = vendor.world.clock.now()
    delays = []
    while vendor.campaign(vendor.world.queue.campaigns[0][0].id).tally.rewritten < 50:
        vendor.run_one()
        delays.append(vendor.world.queue.campaigns[-1][1])
    assert timedelta(seconds=3.9) <= vendor.world.clock.now() - began <= timedelta(seconds=6)
    assert max(delays[:-1]) <= timedelta(seconds=1)


def test_a_key_that_is_rotated_meanwhile_takes_the_campaign_along(vendor: Vendor) -> None:
    vendor.rotate()
    vendor.start()
    vendor.run_one()
    vendor.rotate()
    ended = vendor.run_to_end()
    assert (ended.state, ended.to_version) == (CampaignState.DONE, 3)
    assert vendor.application.versions() == {3}


def test_rows_of_other_tenants_are_left_alone(vendor: Vendor) -> None:
    vendor.world.add_tenant("globex")
    vendor.world.add_key("globex")
    theirs = vendor.world.services.vault.cipher("globex", "pii")
    vendor.application.insert(theirs, dict.fromkeys(range(101, 121), "x"), tenant="globex")
    target = vendor.world.services.targets.list("acme", "pii")[0]
    vendor.world.services.targets.unregister(target.id, actor="test")
    vendor.register(tenant=("tenant", "acme"))
    before = vendor.application.tokens()
    vendor.rotate()
    vendor.start()
    ended = vendor.run_to_end()
    assert (ended.state, ended.rows) == (CampaignState.DONE, 50)
    after = vendor.application.tokens()
    assert all(after[row_id] == before[row_id] for row_id in range(101, 121))
    assert all(after[row_id] != before[row_id] for row_id in range(1, 51))


@pytest.mark.parametrize(
    ("kind", "ids"),
    [
        ("uuid", [f"00000000-0000-4000-8000-{number:012x}" for number in range(1, 25)]),
        ("text", ["", "a'b", "Ä", "x y", "%s", "{id}", *[f"k{number}" for number in range(20)]]),
        ("smallint", [str(number) for number in range(-5, 20)]),
    ],
)
def test_primary_keys_of_each_kind_and_names_that_need_quotes(
    vendor: Vendor, small_pages: None, kind: str, ids: list[str]
) -> None:
    run = vendor.application.run
    run('CREATE SCHEMA crm; CREATE TABLE crm."odd ""name" ("the;id" ' + kind + ' PRIMARY KEY, "co-l" bytea)')
    table = sa.table('odd "name', sa.column("the;id"), sa.column("co-l"), schema="crm")
    with vendor.application.engine.begin() as connection:
        for row_id in ids:
            token = vendor.cipher.encrypt(row_id.encode(), context=f"odd/{row_id}".encode())
            connection.execute(
                table.insert().values(
                    {"the;id": int(row_id) if kind == "smallint" else row_id, "co-l": token}
                )
            )
    registration = vendor.register(
        table='crm.odd "name', primary_key="the;id", columns=[TargetColumn.parse("co-l=odd/{id}")]
    )
    assert registration.sampled == len(ids)
    vendor.rotate()
    vendor.start(target_id=registration.target.id)
    ended = vendor.run_to_end()
    assert (ended.state, dict(ended.after)) == (CampaignState.DONE, {2: len(ids)})
    with vendor.application.engine.connect() as connection:
        for row_id, token in connection.execute(sa.select(table)):
            assert vendor.cipher.decrypt(token, context=f"odd/{row_id}".encode()).decode() == str(row_id)


# --- rows that don't open -------------------------------------------------------------------------


def damage(vendor: Vendor) -> None:
    vendor.application.write(5, vendor.cipher.encrypt(b"x", context=b"elsewhere"))
    vendor.application.write(6, b"no token")
    vendor.application.write(7, b"\x01\x00\x00\x00\x63" + bytes(60))  # of a version that is not there


def test_rows_that_do_not_open_are_named_and_fail_the_campaign(vendor: Vendor) -> None:
    damage(vendor)
    vendor.rotate()
    vendor.start()
    ended = vendor.run_to_end()
    assert ended.state is CampaignState.FAILED
    assert ended.failure == "3 values don't open and stay under old versions"
    assert [(row.column, row.row_id) for row in ended.unreadable_rows] == [
        ("email", "5"), ("email", "6"), ("email", "7"),
    ]  # fmt: skip
    assert dict(ended.after) == {0: 2, 1: 1, 2: 72}
    assert vendor.world.audit_actions()[-1] == "campaign.failed"


def test_whoever_accepts_rows_that_do_not_open_gets_an_end(vendor: Vendor) -> None:
    damage(vendor)
    vendor.rotate()
    vendor.start(allow_unreadable=True)
    ended = vendor.run_to_end()
    assert (ended.state, ended.this_pass.unreadable, ended.pass_number) == (CampaignState.DONE, 3, 2)
    event = vendor.world.services.registry.audit_log("acme")[-1]
    assert (event.details["unreadable"], event.details["after"]) == (3, "v0 2, v1 1, v2 72")


def test_what_is_proven_is_what_every_table_was_counted_for(vendor: Vendor) -> None:
    proven = vendor.world.services.campaigns.proven_version
    with pytest.raises(NotReady, match=r"public\.users"):
        proven("acme", "pii")
    vendor.rotate()
    vendor.start()
    vendor.run_to_end()
    assert proven("acme", "pii") == 2
    vendor.application.run("CREATE SCHEMA crm; CREATE TABLE crm.empty (id uuid PRIMARY KEY, note bytea)")
    vendor.register(table="crm.empty", columns=COLUMNS[1:])
    with pytest.raises(NotReady, match=r"crm\.empty"):
        proven("acme", "pii")
    vendor.rotate()
    targets = vendor.world.services.targets.list("acme", "pii")
    vendor.start(target_id=targets[0].id)
    vendor.run_to_end()
    assert proven("acme", "pii") == 2  # of users only that is known


def test_accepting_what_does_not_open_proves_nothing(vendor: Vendor) -> None:
    damage(vendor)
    vendor.rotate()
    vendor.start(allow_unreadable=True)
    vendor.run_to_end()
    with pytest.raises(NotReady):
        vendor.world.services.campaigns.proven_version("acme", "pii")


def test_what_a_later_campaign_has_counted_refutes_an_earlier_proof(vendor: Vendor) -> None:
    stray = vendor.cipher.encrypt(b"late", context=b"of another column")
    vendor.rotate()
    vendor.start()
    vendor.run_to_end()
    vendor.application.write(7, stray)  # as by a restored backup
    vendor.start()
    assert vendor.run_to_end().state is CampaignState.FAILED
    proven = vendor.world.services.campaigns.proven_version
    with pytest.raises(NotReady):
        proven("acme", "pii")
    vendor.application.write(7, vendor.cipher.encrypt(b"mended", context=context(7)))
    vendor.start()
    vendor.run_to_end()
    assert proven("acme", "pii") == 2


# --- stops, outages, and being told ---------------------------------------------------------------


def test_a_stopped_tenant_pauses_its_campaign_until_it_goes_on(vendor: Vendor) -> None:
    arn = vendor.world.versions()[0].kms_key_arn
    vendor.rotate()
    campaign = vendor.start()
    vendor.world.kms.disable(arn)
    assert vendor.world.services.checkups.probe("acme") is TenantState.SUSPENDED
    paused = vendor.run_one()
    assert paused is not None
    assert (paused.state, paused.pause_cause) == (CampaignState.PAUSED, PauseCause.STOP)
    assert "DisabledException" in (paused.failure or "")
    pass_time(vendor.world, sweeps=5)
    assert vendor.world.services.scheduling.sweep() == 0
    vendor.world.kms.enable(arn)
    assert vendor.world.services.checkups.probe("acme") is TenantState.ACTIVE
    assert vendor.world.services.scheduling.sweep() == 1
    assert vendor.run_to_end().state is CampaignState.DONE
    assert vendor.campaign(campaign.id).failure is None


def test_what_somebody_paused_goes_on_when_somebody_says_so(vendor: Vendor, small_pages: None) -> None:
    vendor.rotate()
    campaign = vendor.start(rows_per_second=10)
    vendor.run_one()
    campaigns = vendor.world.services.campaigns
    campaigns.pause(campaign.id, actor="test")
    assert vendor.run_one() is None
    pass_time(vendor.world, sweeps=5)
    assert vendor.world.services.scheduling.sweep() == 0
    with pytest.raises(IllegalTransition):
        campaigns.pause(campaign.id, actor="test")
    campaigns.resume(campaign.id, actor="test")
    ended = vendor.run_to_end()
    assert (ended.state, ended.tally.seen) == (CampaignState.DONE, 50)
    actions = vendor.world.audit_actions()
    assert actions[-3:] == ["campaign.paused", "campaign.resumed", "campaign.finished"]


def test_a_pause_under_way_keeps_what_was_written(vendor: Vendor) -> None:
    vendor.rotate()
    campaign = vendor.start()
    meanwhile(vendor, lambda: vendor.world.services.campaigns.pause(campaign.id, actor="test"))
    paused = vendor.run_one()
    assert paused is not None
    assert (paused.state, paused.cursor) == (CampaignState.PAUSED, None)
    vendor.world.services.campaigns.resume(campaign.id, actor="test")
    assert vendor.run_to_end().state is CampaignState.DONE


def test_a_cancelled_campaign_stays_where_it_is(vendor: Vendor, small_pages: None) -> None:
    vendor.rotate()
    campaign = vendor.start(rows_per_second=10)
    vendor.run_one()
    vendor.world.services.campaigns.cancel(campaign.id, actor="test")
    assert vendor.run_one() is None
    assert vendor.application.versions() == {1, 2}
    with pytest.raises(IllegalTransition):
        vendor.world.services.campaigns.resume(campaign.id, actor="test")
    assert vendor.start().id != campaign.id  # another may begin


def test_a_kms_that_backs_off_puts_the_campaign_off(vendor: Vendor) -> None:
    vendor.rotate()
    campaign = vendor.start()
    vendor.world.cache.entries.clear()
    fresh = vendor.world.another_process()
    vendor.world.kms.fail_next(KmsBackingOff("away", retry_after_seconds=40.0))
    vendor.world.queue.campaigns.clear()
    with pytest.raises(KmsBackingOff):
        fresh.reencryption.run(campaign.id)
    assert (vendor.campaign(campaign.id).failure or "").startswith("kms-backing-off")
    vendor.world.kms.clear_faults()
    vendor.world.clock.advance(seconds=39)
    assert vendor.world.services.scheduling.sweep() == 0
    vendor.world.clock.advance(seconds=2)
    assert vendor.world.services.scheduling.sweep() == 1
    assert vendor.run_to_end().failure is None


def test_an_application_database_that_is_away_is_waited_for(vendor: Vendor, unused_port: int) -> None:
    from byok.store.postgres import create_engine

    campaign = vendor.start()
    away = create_engine(f"postgresql+psycopg://u:secret@127.0.0.1:{unused_port}/x", 1)
    elsewhere = vendor.world.another_process(rows=PostgresRows(away))
    for _ in range(12):
        with pytest.raises(ApplicationUnavailable) as raised:
            elsewhere.reencryption.run(campaign.id)
        assert "secret" not in str(raised.value)
    assert vendor.campaign(campaign.id).state is CampaignState.RUNNING
    assert vendor.campaign(campaign.id).failures == 12
    vendor.world.clock.advance(hours=1)
    vendor.world.services.scheduling.sweep()
    vendor.world.queue.campaigns.pop(0)  # of the start
    assert vendor.run_to_end().failures == 0
    away.dispose()


def test_a_table_that_changed_fails_the_campaign(vendor: Vendor) -> None:
    campaign = vendor.start()
    vendor.application.run("ALTER TABLE users RENAME COLUMN note TO remark")
    with pytest.raises(TargetMismatch, match="note"):
        vendor.run_one()
    assert vendor.campaign(campaign.id).state is CampaignState.FAILED
    assert vendor.world.audit_actions()[-1] == "campaign.failed"


def test_a_broker_that_is_down_delays_the_next_batch_to_the_sweep(vendor: Vendor) -> None:
    vendor.rotate()
    campaign = vendor.start()
    vendor.world.queue.campaigns.clear()
    vendor.world.queue.is_down = True
    vendor.world.services.reencryption.run(campaign.id)
    vendor.world.queue.is_down = False
    pass_time(vendor.world, sweeps=2.1)
    assert vendor.world.services.scheduling.sweep() == 1
    assert vendor.run_to_end().state is CampaignState.DONE


# --- starting -------------------------------------------------------------------------------------


def test_one_campaign_a_target_whoever_asks(vendor: Vendor) -> None:
    first = vendor.start()
    again = vendor.world.services.campaigns.start("acme", "pii", requested_by="other")
    assert (again[0].work.campaign.id, again[0].is_new) == (first.id, False)
    assert len(vendor.world.queue.campaigns) == 1
    assert vendor.world.audit_actions().count("campaign.started") == 1


def test_a_compromise_starts_a_campaign_by_itself(vendor: Vendor) -> None:
    vendor.rotate(RotationReason.COMPROMISE)
    assert vendor.world.states() == ["compromised", "active"]
    ended = vendor.run_to_end()
    assert (ended.state, ended.requested_by) == (CampaignState.DONE, "compromise")
    assert vendor.application.versions() == {2}
    assert vendor.world.services.scheduling.sweep() == 0  # nothing is owed any more


def test_a_compromise_whose_worker_died_is_made_up_for_by_the_sweeper(vendor: Vendor) -> None:
    arm(FailPoint.PROMOTED, die)
    with pytest.raises(Killed):
        vendor.rotate(RotationReason.COMPROMISE)
    disarm()
    assert vendor.world.services.scheduling.sweep() == 1
    assert vendor.world.services.scheduling.sweep() == 0
    assert vendor.run_to_end().state is CampaignState.DONE


def test_a_compromise_joins_the_campaign_that_is_open_and_is_served_by_it(vendor: Vendor) -> None:
    vendor.rotate()
    campaign = vendor.start()
    vendor.run_one()
    vendor.rotate(RotationReason.COMPROMISE)
    ended = vendor.run_to_end()
    assert (ended.id, ended.to_version) == (campaign.id, 3)
    assert vendor.application.versions() == {3}
    assert vendor.world.services.scheduling.sweep() == 0


def test_no_other_rotation_starts_one(vendor: Vendor) -> None:
    vendor.rotate()
    assert vendor.world.queue.campaigns == []
    assert vendor.world.services.scheduling.sweep() == 0


def test_what_can_not_be_started(vendor: Vendor) -> None:
    services = vendor.world.services
    with pytest.raises(OutOfBounds):
        vendor.start(rows_per_second=0)
    with pytest.raises(UnknownTarget):
        vendor.start(target_id=UUID(int=1))
    with pytest.raises(UnknownCampaign):
        services.campaigns.get(UUID(int=1))
    with pytest.raises(UnknownCampaign):
        services.campaigns.pause(UUID(int=1), actor="test")


# --- registering ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"table": "nobody"}, "no table nobody"),
        ({"table": "users; DROP TABLE users"}, "no table"),
        ({"primary_key": "uid"}, "no column 'uid'"),
        ({"columns": [TargetColumn("mail", "x:{id}")]}, "no column 'mail'"),
        ({"columns": [TargetColumn("tenant", "x:{id}")]}, "TEXT, not bytea"),
        ({"primary_key": "tenant"}, "not unique"),
        ({"primary_key": "email"}, "not unique"),
        ({"tenant": ("owner", "acme")}, "no column 'owner'"),
        ({"tenant": ("id", "acme")}, "can't be 'acme'"),
        ({"columns": [TargetColumn("email", "users.mail:{id}")]}, "50 of 50 values"),
        ({"columns": [TargetColumn("email", "users.mail:{id}")], "allow_unreadable": True}, "50 of 50"),
    ],
)
def test_what_does_not_fit_the_table_is_not_registered(
    vendor: Vendor, changes: dict[str, object], told: str
) -> None:
    with pytest.raises(TargetMismatch, match=told):
        vendor.register(**changes)
    assert len(vendor.application.tokens()) == 50
    assert len(vendor.world.services.targets.list("acme", "pii")) == 1


def test_rows_that_do_not_open_are_named_at_registration(vendor: Vendor) -> None:
    target = vendor.world.services.targets.list("acme", "pii")[0]
    vendor.world.services.targets.unregister(target.id, actor="test")
    damage(vendor)
    with pytest.raises(TargetMismatch, match=r"3 of 75 .*: email of 5, email of 6, email of 7$"):
        vendor.register()
    vendor.world.clock.advance(seconds=1)
    assert len(vendor.register(allow_unreadable=True).unreadable) == 3


def test_a_table_is_registered_once_and_can_be_forgotten(vendor: Vendor) -> None:
    with pytest.raises(DuplicateTarget):
        vendor.register()
    targets = vendor.world.services.targets
    target = targets.list("acme", "pii")[0]
    campaign = vendor.start()
    with pytest.raises(CampaignOpen):
        targets.unregister(target.id, actor="test")
    vendor.world.services.campaigns.cancel(campaign.id, actor="test")
    targets.unregister(target.id, actor="test")
    with pytest.raises(UnknownTarget):
        targets.unregister(target.id, actor="test")
    assert vendor.campaign(campaign.id).state is CampaignState.CANCELLED
    assert vendor.register().target.id != target.id


def test_no_right_to_update_shows_at_registration(vendor: Vendor) -> None:
    run = vendor.application.run
    run("DROP ROLE IF EXISTS reader; CREATE ROLE reader LOGIN; GRANT SELECT ON users TO reader")
    run("GRANT UPDATE (email) ON users TO reader")

    @sa.event.listens_for(vendor.application.engine, "begin")
    def become_reader(connection: sa.Connection) -> None:
        connection.execute(sa.text("SET LOCAL ROLE reader"))

    try:
        with pytest.raises(TargetMismatch, match="may not update column 'note'"):
            vendor.register(table="public.users")
    finally:
        sa.event.remove(vendor.application.engine, "begin", become_reader)
        run("DROP OWNED BY reader; DROP ROLE reader")


def test_without_an_application_database_the_setting_is_named(world: World, key: None) -> None:
    with pytest.raises(ConfigurationError, match="BYOK_APPLICATION_DATABASE_URL"):
        world.services.targets.register(
            "acme", "pii", table="users", primary_key="id", columns=COLUMNS, actor="test"
        )


def test_a_key_without_a_version_has_nothing_to_go_over_to(vendor: Vendor) -> None:
    services = vendor.world.services
    services.registry.create_key("acme", "new", rotation_period=None, lease_ttl=timedelta(0), actor="test")
    with pytest.raises(NotReady):
        services.targets.register("acme", "new", table="users", primary_key="id", columns=COLUMNS, actor="t")


def test_no_transaction_is_open_while_leases_are_acquired(vendor: Vendor) -> None:
    vendor.rotate()
    campaign = vendor.start()
    vendor.world.cache.entries.clear()
    seen: list[int] = []

    def look() -> None:
        with vendor.application.engine.connect() as connection:
            seen.append(
                connection.execute(
                    sa.text("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'")
                ).scalar_one()
            )

    vendor.world.kms.hooks["Decrypt"] = look
    vendor.world.another_process().reencryption.run(campaign.id)
    assert seen == [0, 0]


def test_a_campaign_of_another_batch_is_not_advanced(vendor: Vendor) -> None:
    campaign = vendor.start()
    with vendor.world.store.transaction() as tx:
        claimed = tx.campaigns.claim(campaign.id, None, vendor.world.clock.now(), timedelta(0))
        assert claimed is not None
    with pytest.raises(LostRace), vendor.world.store.transaction() as tx:
        tx.campaigns.advance(campaign, vendor.world.clock.now())


# --- destroying what campaigns have proven gone ---------------------------------------------------


def destroy_old(vendor: Vendor, *, flushes: bool = True) -> Sequence[int]:
    def wait(_: Sequence[str]) -> None:
        vendor.world.clock.advance(seconds=RECHECK.total_seconds() + 1)
        if flushes:
            flush(vendor.world.services)

    _, destroyed = vendor.world.services.old_versions.destroy(
        "acme", "pii", actor="test", patience=timedelta(seconds=30), seen=wait
    )
    return destroyed


def let_leases_end(vendor: Vendor) -> None:
    """What was leased before the floor was raised is over."""
    vendor.world.clock.advance(seconds=(RECHECK + TTL).total_seconds())
    flush(vendor.world.services)


def test_old_versions_are_destroyed_once_nobody_can_hold_a_lease_on_them(vendor: Vendor) -> None:
    vendor.rotate()
    vendor.start()
    vendor.run_to_end()
    with pytest.raises(StillInUse, match="may hold a lease from before until"):
        destroy_old(vendor)
    assert vendor.world.show().key.decryption_floor == 2
    assert vendor.world.states() == ["retired", "active"]
    let_leases_end(vendor)
    assert list(destroy_old(vendor)) == [1]
    assert vendor.world.states() == ["destroyed", "active"]
    assert vendor.application.versions() == {2}
    assert len(vendor.application.values(vendor.cipher)) == 50
    assert list(destroy_old(vendor)) == [], "called again it finds nothing left"


def test_what_a_cut_off_process_wrote_after_the_campaign_is_not_lost(vendor: Vendor) -> None:
    """It hears of nothing, and PostgreSQL takes it for dead; but its lease is good, its rows are there."""
    token = vendor.cipher.encrypt(b"late@example.com", context=b"users.email:1")
    vendor.rotate()
    vendor.start()
    vendor.run_to_end()
    with pytest.raises(StillInUse):
        destroy_old(vendor)
    with vendor.application.engine.begin() as connection:
        connection.execute(sa.text("UPDATE users SET email = :token WHERE id = 1"), {"token": token})
    let_leases_end(vendor)
    with pytest.raises(StillInUse, match=r"public\.users holds 1 values under versions below 2 after all"):
        destroy_old(vendor)
    assert vendor.world.states() == ["retired", "active"]
    vendor.world.services.destruction.set_floor("acme", "pii", 1, actor="test")
    assert vendor.cipher.decrypt(token, context=b"users.email:1") == b"late@example.com"


def test_only_what_campaigns_have_proven_gone_is_destroyed(vendor: Vendor) -> None:
    vendor.rotate()
    vendor.start()
    vendor.run_to_end()
    vendor.rotate()
    with pytest.raises(StillInUse):
        destroy_old(vendor)
    let_leases_end(vendor)
    assert list(destroy_old(vendor)) == [1]
    assert vendor.world.states() == ["destroyed", "retired", "active"]
    vendor.world.services.destruction.set_floor("acme", "pii", 3, actor="test")
    with pytest.raises(StillInUse, match=r"version 2 is pinned: no campaign has proven that public\.users"):
        vendor.world.services.destruction.destroy(
            "acme", "pii", 2, actor="test", unused_for=timedelta(0), force=True
        )


def test_nothing_is_destroyed_while_a_process_may_not_know_of_the_floor(vendor: Vendor) -> None:
    vendor.rotate()
    vendor.start()
    vendor.run_to_end()
    with pytest.raises(StillInUse, match="not heard of from"):
        destroy_old(vendor, flushes=False)
    assert vendor.world.states() == ["retired", "active"]
