"""The customer's CloudTrail beside our log: what is planted is found, and nothing else."""

import gzip
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
import sqlalchemy as sa
from botocore.config import Config
from botocore.exceptions import ClientError
from typer.testing import CliRunner, Result

from byok.cli.main import app
from byok.cli.reconcile import Outcome
from byok.cli.trail_files import TrailFiles
from byok.core import policies
from byok.core.arns import RoleArn
from byok.core.cloudtrail import Concern
from byok.core.encryption_context import version_context
from byok.core.model import Connection
from byok.core.reconciliation import Reconciliation
from byok.core.request_log import LoggedRequest, user_agent
from byok.embedded.stack import Stack
from byok.errors import ByokError, ConfigurationError, InvalidInput, KmsBackingOff, KmsUnavailable
from byok.kms import signing
from byok.services.request_log import RequestMover
from byok.settings import child_environment
from byok.simulator import VENDOR_ACCESS_KEY_ID, VENDOR_ACCOUNT_ID, VENDOR_SECRET_ACCESS_KEY
from byok.simulator.cloudtrail import deliver
from byok.simulator.control import SimulatorControl
from byok.wiring import Runtime
from tests.customers import VENDOR, Customer, join, new_account

REGION = "eu-central-1"


def hour() -> tuple[str, ...]:
    """That the files are complete for the hour around now."""
    now, half = datetime.now(UTC), timedelta(minutes=30)
    return ("--since", (now - half).isoformat(), "--until", (now + half).isoformat())


CONFIG = Config(retries={"mode": "standard", "total_max_attempts": 1})


@dataclass
class Case:
    """A customer whose calls are all logged, and ways to plant what is not."""

    stack: Stack
    runtime: Runtime
    simulator: SimulatorControl
    customer: Customer
    folder: Path

    @property
    def connection(self) -> Connection:
        assert self.customer.tenant.connection is not None
        return self.customer.tenant.connection

    @property
    def context(self) -> dict[str, str]:
        return version_context(self.customer.tenant.id, self.customer.tenant.id, 1)

    def ask(self) -> bytes:
        """Some calls of ours; a wrapped key."""
        blob = self.runtime.kms.generate_data_key(self.connection, self.context).ciphertext
        self.runtime.kms.decrypt(self.connection, blob, self.context).secret.wipe()
        self.runtime.kms.describe_key(self.connection)
        self.runtime.kms.read_rotation(self.connection)
        return blob

    def trail(self, account: str | None = None) -> list[dict[str, Any]]:
        return self.simulator.cloudtrail(account or self.customer.account.account_id)

    def reconcile(self, *trails: list[dict[str, Any]], options: tuple[str, ...] = ()) -> Result:
        """Deliver trails, and compare, while the process that sent the requests goes on."""
        for trail in trails or (self.trail(),):
            deliver(trail, self.folder, records_a_file=7)
        self.folder.mkdir(exist_ok=True)
        (self.folder / "empty.json").write_text('{"Records": []}')
        command = ["audit", "reconcile", "acme", "--cloudtrail", str(self.folder), "--delivery-delay", "0s"]
        return CliRunner().invoke(app, [*command, *options], env={"COLUMNS": "80"})

    def found(self, *trails: list[dict[str, Any]], options: tuple[str, ...] = ()) -> dict[str, Any]:
        """What the comparison says to machines."""
        result = self.reconcile(*trails, options=("--json", *options))
        told: dict[str, Any] = json.loads(result.stdout)
        assert result.exit_code == Outcome[told["outcome"].upper()]
        return told

    def session(self) -> dict[str, str]:
        """The credentials of a live session of ours, as a thief has them."""
        credentials = next(iter(self.runtime.kms._sessions._sessions.values())).credentials
        return {
            "aws_access_key_id": str(credentials.access_key),
            "aws_secret_access_key": str(credentials.secret_key),
            "aws_session_token": str(credentials.token),
        }

    def client(self, service: str, **credentials: str) -> Any:
        """A client that is none of ours; without credentials it is the vendor's own principal."""
        found = {
            "aws_access_key_id": VENDOR_ACCESS_KEY_ID,
            "aws_secret_access_key": VENDOR_SECRET_ACCESS_KEY,
        } | credentials
        url = self.stack.simulator.url
        return boto3.client(service, region_name=REGION, endpoint_url=url, config=CONFIG, **found)  # type: ignore[call-overload]

    def logged(self) -> list[LoggedRequest]:
        """Our whole log of the tenant."""
        self.runtime.services.request_mover.move()
        begin, end = datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
        with self.runtime.store.transaction() as tx:
            return list(tx.request_log.page(self.customer.tenant.id, begin, end, None, 10_000))


@pytest.fixture
def case(stack: Stack, runtime: Runtime, simulator: SimulatorControl, tmp_path: Path) -> Case:
    return Case(stack, runtime, simulator, join(stack, runtime, "acme"), tmp_path / "trail")


def test_both_sides_agree_on_a_preflight_and_on_each_call_after_it(case: Case) -> None:
    case.ask()
    case.customer.account.kms.describe_key(KeyId=case.customer.kms_key)  # its own administration
    found = case.found()
    assert found["outcome"] == "agree"
    assert found["agreed"] >= 20, "the preflight's, too"
    assert found["unanswered"] == found["agreed_by_mark"] == 0
    assert found["administration"] >= 1
    assert case.reconcile().exit_code == 0
    assert "both sides agree" in case.reconcile().stdout


def test_both_trails_together_are_one(case: Case) -> None:
    """What stands in both accounts is one call; what was refused to us stands in our own."""
    case.ask()
    found = case.found(case.trail(), case.trail(VENDOR_ACCOUNT_ID))
    assert found["outcome"] == "agree"
    assert found["repeated"] >= 1
    assert {one["account"] for one in found["covered"]} == {
        case.customer.account.account_id,
        VENDOR_ACCOUNT_ID,
    }


def steal_session(case: Case, blob: bytes) -> None:
    thief = case.client("kms", **case.session())
    thief.decrypt(KeyId=case.customer.kms_key, CiphertextBlob=blob, EncryptionContext=case.context)


def assume_role(case: Case, blob: bytes) -> None:
    case.client("sts").assume_role(
        RoleArn=case.customer.role, RoleSessionName="mallory", ExternalId=case.customer.tenant.external_id
    )


def use_session_elsewhere(case: Case, blob: bytes) -> None:
    case.client("sts", **case.session()).get_caller_identity()


def be_refused(case: Case, blob: bytes) -> None:
    with pytest.raises(ClientError):
        case.client("kms", **case.session()).encrypt(KeyId=case.customer.kms_key, Plaintext=b"x")


def copy_an_answered_mark(case: Case, blob: bytes) -> None:
    answered = next(one for one in case.logged() if one.operation == "Decrypt" and one.request_id)
    thief = signing.let_mark(case.client("kms", **case.session()))
    with signing.marked_with(answered.id):
        thief.decrypt(KeyId=case.customer.kms_key, CiphertextBlob=blob, EncryptionContext=case.context)


def decrypt_as_the_customers_admin(case: Case, blob: bytes) -> None:
    case.customer.account.kms.decrypt(
        KeyId=case.customer.kms_key, CiphertextBlob=blob, EncryptionContext=case.context
    )


@pytest.mark.parametrize(
    ("steal", "concern", "operation"),
    [
        (steal_session, "session", "Decrypt"),
        (assume_role, "assumption", "AssumeRole"),
        (use_session_elsewhere, "session", "GetCallerIdentity"),
        (be_refused, "session", "Encrypt"),
        (copy_an_answered_mark, "session", "Decrypt"),
        (decrypt_as_the_customers_admin, "context", "Decrypt"),
    ],
)
def test_a_call_that_is_not_ours_is_found(
    case: Case, steal: Callable[[Case, bytes], None], concern: str, operation: str
) -> None:
    blob = case.ask()
    steal(case, blob)
    case.ask()
    found = case.found()
    assert found["outcome"] == "strangers"
    assert (found["strangers"], found["missing"]) == (1, 0)
    [stranger] = found["first_strangers"]
    assert (stranger["concern"], stranger["operation"]) == (concern, operation)
    shown = case.reconcile()
    assert shown.exit_code == 20
    assert "AWS saw, and we did not log: 1" in shown.stdout
    assert f"by       {stranger['principal']}\n" in shown.stdout
    assert f"request  {stranger['request_id']}\n" in shown.stdout


def test_strangers_of_one_second_are_listed_as_they_came(case: Case) -> None:
    """AWS's times are whole seconds, and who assumed the role comes before what was done with it."""
    planted = [
        case.trail()[-1] | {"requestID": f"{99 - number}", "eventID": f"{number}"} for number in range(9)
    ]
    found = case.found([*case.trail(), *planted])
    assert [one["request_id"] for one in found["first_strangers"]] == [one["requestID"] for one in planted]


def test_a_decrypt_replayed_by_the_vendors_principal_is_found(case: Case) -> None:
    """In key-policy mode there is no session: whoever is the vendor may call."""
    blob = case.ask()
    allow = {
        "Sid": "vendor",
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{VENDOR_ACCOUNT_ID}:root"},
        "Action": ["kms:Decrypt", "kms:DescribeKey"],
        "Resource": "*",
    }
    case.customer.account.put_key_policy(
        case.customer.kms_key, {"Version": "2012-10-17", "Statement": [allow]}
    )
    vendor = case.client("kms")
    vendor.decrypt(KeyId=case.customer.kms_key, CiphertextBlob=blob, EncryptionContext=case.context)
    vendor.describe_key(KeyId=case.customer.kms_key)
    found = case.found()
    assert sorted(one["concern"] for one in found["first_strangers"]) == ["context", "vendor"]


def test_key_policy_mode_agrees_and_whoever_is_the_vendor_is_found_out(
    case: Case, stack: Stack, runtime: Runtime
) -> None:
    account, tenant = new_account(stack), runtime.services.onboarding.add_tenant("globex", actor="test")
    everything = {"Sid": "own", "Effect": "Allow", "Action": "kms:*", "Resource": "*"}
    own = everything | {"Principal": {"AWS": f"arn:aws:iam::{account.account_id}:root"}}
    statements = [own, *policies.key_policy_statements(VENDOR, tenant.id)]
    key = account.create_key({"Version": "2012-10-17", "Statement": statements})
    verified = runtime.services.onboarding.verify_tenant("globex", actor="test", kms_key_arn=key)
    assert verified.passed
    runtime.services.request_mover.move()
    trails = [case.trail(account.account_id), case.trail(VENDOR_ACCOUNT_ID)]
    for trail in trails:
        deliver(trail, case.folder)

    def compare() -> Reconciliation:
        records = TrailFiles.find([case.folder]).records()
        return runtime.services.reconciler.compare(
            "globex", records, vendor_account=VENDOR_ACCOUNT_ID, delay=timedelta(0)
        )

    honest = compare()
    assert (honest.stranger_count, honest.missing_count) == (0, 0)
    assert honest.agreed >= 15
    case.client("kms").describe_key(KeyId=key)
    with pytest.raises(ClientError):
        case.client("kms").encrypt(KeyId=key, Plaintext=b"x")
    deliver(case.trail(VENDOR_ACCOUNT_ID), case.folder)
    found = compare()
    assert sorted(one.operation for one in found.strangers) == ["DescribeKey", "Encrypt"]
    assert {one.concern for one in found.strangers} == {Concern.VENDOR}
    with pytest.raises(ConfigurationError):
        runtime.services.reconciler.compare("globex", [], vendor_account=None)


def test_tenants_that_share_a_role_are_no_strangers_to_each_other(case: Case, runtime: Runtime) -> None:
    """Nor is a customer that comes back as another tenant; a thief in the same session is."""
    case.ask()
    neighbour = replace(case.connection, tenant_id=runtime.services.onboarding.add_tenant("b", actor="t").id)
    case.simulator.lose_reply(operation="DescribeKey", times=1)
    runtime.kms.describe_key(neighbour)
    case.simulator.clear_faults()
    runtime.kms.read_rotation(neighbour)
    found = case.found()
    assert (found["outcome"], found["strangers"]) == ("agree", 0)
    assert found["neighbours"] >= 3
    case.client("kms", **case.session()).describe_key(KeyId=case.customer.kms_key)
    elsewhere = replace(neighbour, role_arn=RoleArn.parse(f"{case.customer.role}-other"))
    with pytest.raises(ByokError):
        runtime.kms.describe_key(elsewhere)
    assert case.found()["strangers"] == 1


def test_a_call_that_the_trail_lacks_is_found(case: Case) -> None:
    case.ask()
    trail = case.trail()
    [gone] = [one for one in trail if one["eventName"] == "Decrypt" and "errorCode" not in one][-1:]
    trail.remove(gone)
    found = case.found(trail, options=hour())
    assert found["outcome"] == "missing"
    assert [one["request_id"] for one in found["first_missing"]] == [gone["requestID"]]
    assert case.reconcile(trail, options=hour()).exit_code == 21


def test_a_stranger_and_a_gap_are_both_told(case: Case) -> None:
    assume_role(case, case.ask())
    case.ask()
    trail = [one for one in case.trail() if one["eventName"] != "GetKeyRotationStatus"]
    found = case.found(trail, options=hour())
    assert found["outcome"] == "both"
    assert found["missing"] >= 2


def test_a_lost_reply_is_no_stranger_and_an_unsent_request_not_missing(case: Case) -> None:
    case.ask()
    case.simulator.lose_reply(operation="DescribeKey", times=1)
    case.runtime.kms.describe_key(case.connection)  # the second attempt is answered
    case.simulator.clear_faults()
    case.simulator.reset(operation="DescribeKey", times=1)
    case.runtime.kms.describe_key(case.connection)
    case.simulator.clear_faults()
    case.runtime.kms.forget()
    case.simulator.lose_reply(operation="AssumeRole", times=1)
    case.runtime.kms.describe_key(case.connection)
    found = case.found()
    assert found["outcome"] == "agree"
    assert (found["agreed_by_mark"], found["unanswered"]) == (2, 1)


DIES = """
import os, signal
from byok.settings import load_settings
from byok.wiring import build
runtime = build(load_settings())
with runtime.store.transaction() as tx:
    connection = tx.tenants.get("acme").connection
end = runtime.spool.end
def die(request, request_id, code):
    if request.operation == "DescribeKey" and request_id:
        os.kill(os.getpid(), signal.SIGKILL)
    end(request, request_id, code)
runtime.spool.end = die
runtime.kms.describe_key(connection)
"""


def test_a_process_killed_between_awss_answer_and_our_note_of_it_leaves_no_stranger(case: Case) -> None:
    case.ask()
    environment = child_environment(case.stack.environment)
    died = subprocess.run([sys.executable, "-c", DIES], env=environment, check=False)
    assert died.returncode == -signal.SIGKILL
    found = case.found()
    assert (found["outcome"], found["agreed_by_mark"], found["unanswered"]) == ("agree", 1, 0)
    [killed] = [one for one in case.logged() if one.ended_at is None]
    assert killed.operation == "DescribeKey"


def test_the_mark_of_a_lost_reply_excuses_one_call_only(case: Case) -> None:
    blob = case.ask()
    case.simulator.lose_reply(operation="Decrypt", times=3)
    with pytest.raises(KmsUnavailable):
        case.runtime.kms.decrypt(case.connection, blob, case.context)
    lost = [one for one in case.logged() if not one.request_id]
    assert len(lost) == 3
    thief = signing.let_mark(case.client("kms", **case.session()))
    with signing.marked_with(lost[0].id):
        thief.decrypt(KeyId=case.customer.kms_key, CiphertextBlob=blob, EncryptionContext=case.context)
    found = case.found()
    assert (found["agreed_by_mark"], found["strangers"]) == (3, 1)


def test_the_mark_of_an_unsent_request_excuses_no_other_operation_and_no_other_time(case: Case) -> None:
    case.ask()
    case.simulator.reset(operation="DescribeKey", times=1)
    case.runtime.kms.describe_key(case.connection)
    [unsent] = [one for one in case.logged() if not one.request_id]
    thief = signing.let_mark(case.client("kms", **case.session()))
    with signing.marked_with(unsent.id):
        thief.get_key_rotation_status(KeyId=case.customer.kms_key)
        case.simulator.advance_clock(600)
        thief.describe_key(KeyId=case.customer.kms_key)
    case.simulator.set_clock_right()
    assert case.found()["strangers"] == 2


def test_throttles_and_failures_need_not_be_in_the_trail(case: Case) -> None:
    case.simulator.throttle(operation="DescribeKey", times=1)
    case.runtime.kms.describe_key(case.connection)
    case.simulator.internal_error(operation="DescribeKey", times=1)
    case.runtime.kms.describe_key(case.connection)
    trail = [
        one
        for one in case.trail()
        if one.get("errorCode") not in ("ThrottlingException", "KMSInternalException")
    ]
    assert len(trail) == len(case.trail()) - 2
    found = case.found(trail)
    refused_to_the_vendor = 2  # by the preflight's AssumeRole without and with a wrong external id
    assert (found["outcome"], found["not_expected"]) == ("agree", 2 + refused_to_the_vendor)


def test_what_was_logged_outside_of_what_the_files_cover_is_not_missing(case: Case) -> None:
    case.ask()
    trail = case.trail()
    found = case.found(trail, options=("--delivery-delay", "15m"))
    assert found["outcome"] == "incomplete"
    assert found["covered"][0]["complete_since"] is None, "seconds are too short a span to lack anything"
    late = case.found(trail[:-3], options=("--delivery-delay", "15m"))
    assert (late["outcome"], late["missing"]) == ("incomplete", 0)


def test_the_vendors_trail_alone_says_nothing_of_what_was_done_in_a_session(case: Case) -> None:
    """Both sides agree only where what the customer's account saw was there to be compared."""
    steal_session(case, case.ask())
    found = case.found(case.trail(VENDOR_ACCOUNT_ID))
    assert (found["outcome"], found["strangers"]) == ("incomplete", 0)


def test_a_span_that_ends_before_it_begins_is_refused(case: Case) -> None:
    case.ask()
    backwards = ("--since", "2026-11-02", "--until", "2026-11-01")
    assert isinstance(case.reconcile(options=backwards).exception, InvalidInput)


@pytest.mark.parametrize("written", ["[/red] x", "[bold green]both sides agree[/]", "a\x1b[2J\x07b\ud800"])
def test_what_a_thief_writes_into_a_record_is_shown_as_it_is(case: Case, written: str) -> None:
    """The User-Agent is whatever the caller says: no markup, and nothing that clears a screen."""
    case.ask()
    trail = case.trail()
    stolen = trail[-1] | {"userAgent": written, "requestID": str(uuid4()), "eventID": str(uuid4())}
    shown = case.reconcile([*trail, stolen])
    assert shown.exit_code == 20
    assert "".join(one if one.isprintable() else "\ufffd" for one in written) in shown.stdout


def test_a_span_that_is_told_is_taken_at_its_word(case: Case) -> None:
    case.ask()
    found = case.found(case.trail()[:-3], options=hour())
    assert (found["outcome"], found["missing"]) == ("missing", 3)


def test_an_empty_trail_of_a_span_that_is_told_lacks_all(case: Case) -> None:
    case.ask()
    assert case.found([], options=hour())["missing"] >= 20
    assert isinstance(case.reconcile([]).exception, InvalidInput)


def test_another_region_is_not_looked_for(case: Case) -> None:
    """Of the key's region there must be something to compare with."""
    case.ask()
    elsewhere = [one | {"awsRegion": "us-east-1"} for one in case.trail()]
    result = case.reconcile(elsewhere)
    assert isinstance(result.exception, InvalidInput)
    assert "eu-central-1" in str(result.exception)


def test_records_that_come_twice_and_those_of_other_services_change_nothing(case: Case) -> None:
    case.ask()
    trail = case.trail()
    other = trail[0] | {"eventSource": "s3.amazonaws.com", "eventName": "GetObject", "userIdentity": {}}
    other |= {"requestID": "ABCDEFGH12345678", "requestParameters": None, "eventID": str(uuid4())}
    found = case.found([*trail, *trail[:5], other])
    assert found["outcome"] == "agree"
    assert found["repeated"] >= 3


def test_a_refusal_without_parameters_is_known_by_its_message(case: Case) -> None:
    """AWS leaves requestParameters out of many refused calls."""
    case.ask()
    trail = case.trail()
    refused = {
        "eventTime": trail[-1]["eventTime"],
        "eventSource": "sts.amazonaws.com",
        "eventName": "AssumeRole",
        "awsRegion": REGION,
        "recipientAccountId": VENDOR_ACCOUNT_ID,
        "userIdentity": {"type": "IAMUser", "arn": f"arn:aws:iam::{VENDOR_ACCOUNT_ID}:user/mallory"},
        "errorCode": "AccessDenied",
        "errorMessage": f"not authorized to perform: sts:AssumeRole on resource: {case.customer.role}",
        "requestParameters": None,
        "requestID": str(uuid4()),
        "eventID": str(uuid4()),
    }
    found = case.found([*trail, refused])
    assert [one["concern"] for one in found["first_strangers"]] == ["assumption"]


def test_broken_files_are_named_and_make_the_comparison_incomplete(case: Case) -> None:
    case.ask()
    case.folder.mkdir()
    (case.folder / "cut.json.gz").write_bytes(gzip.compress(b'{"Records": []}' * 100)[:40])
    (case.folder / "other.json").write_text("[1, 2]")
    (case.folder / "record.json").write_text('{"Records": [{"eventTime": "today"}]}')
    digest = case.folder / "AWSLogs/1/CloudTrail-Digest/x.json.gz"
    digest.parent.mkdir(parents=True)
    digest.write_bytes(b"no trail")
    found = case.found()
    assert found["outcome"] == "incomplete"
    assert sorted(Path(one["file"]).name for one in found["broken_files"]) == [
        "cut.json.gz",
        "other.json",
        "record.json",
    ]
    shown = case.reconcile()
    assert shown.exit_code == 23
    assert f"{case.folder}/cut.json.gz: " in shown.stdout


def test_files_may_be_named_one_by_one_and_unpacked(case: Case) -> None:
    case.ask()
    files = deliver(case.trail(), case.folder, records_a_file=7)
    plain = case.folder / "plain.json"
    plain.write_bytes(gzip.decompress(files[0].read_bytes()))
    named = [str(plain), *map(str, files[1:])]
    command = ["audit", "reconcile", "acme", "--delivery-delay", "0s", "--cloudtrail", *named]
    assert CliRunner().invoke(app, command).exit_code == 0


def test_calls_from_before_our_log_are_not_compared(case: Case) -> None:
    case.ask()
    trail = case.trail()
    old = trail[-1] | {
        "eventTime": "2020-01-01T00:00:00Z",
        "requestID": str(uuid4()),
        "eventID": str(uuid4()),
    }
    found = case.found([old, *trail])
    assert (found["outcome"], found["too_old"], found["strangers"]) == ("incomplete", 1, 0)


def test_before_anything_was_logged_nothing_is_a_stranger(case: Case) -> None:
    """As after the upgrade to the first release that has a log."""
    case.ask()
    hour_ago = (datetime.now(UTC) - timedelta(hours=1)).isoformat(timespec="seconds")
    trail = [one | {"eventTime": hour_ago} for one in case.trail()]
    case.logged()
    with case.runtime.engine.begin() as connection:
        connection.execute(sa.text("TRUNCATE kms_requests"))
    found = case.found(trail)
    assert (found["outcome"], found["strangers"]) == ("incomplete", 0)
    assert found["too_old"] > 20


def test_a_request_that_cant_be_logged_is_not_sent(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    case.ask()
    before = len(case.trail())
    case.runtime.spool.seal()
    monkeypatch.setattr(case.runtime.spool, "_folder", Path("/proc/nowhere"))
    with pytest.raises(KmsBackingOff, match="could not be logged"):
        case.runtime.kms.describe_key(case.connection)
    assert len(case.trail()) == before


def test_the_log_waits_for_postgresql_and_forgets_what_is_old(case: Case) -> None:
    case.ask()
    assert case.runtime.spool.backlog_bytes() > 0
    logged = case.logged()
    assert case.runtime.spool.backlog_bytes() == 0
    soon = RequestMover(case.runtime.store, case.runtime.spool, case.runtime.store, timedelta(0))
    assert soon.remove_old() == len(logged)
    assert case.logged() == []


def test_what_is_asked_leaves_nothing_but_ids_in_the_log(case: Case) -> None:
    with pytest.raises(ByokError):
        case.runtime.kms.decrypt(case.connection, b"x" * 100, case.context)
    files = sorted(Path(case.stack.environment["BYOK_REQUEST_LOG_FOLDER"]).glob("*.requests"))
    text = files[-1].read_text()
    assert case.customer.kms_key in text
    assert case.customer.tenant.external_id not in text
    assert files[-1].stat().st_mode & 0o077 == 0


def test_a_user_agent_carries_the_id_and_keeps_botocores(case: Case) -> None:
    case.ask()
    asked = case.trail()[-1]
    [logged] = [one for one in case.logged() if one.request_id == asked["requestID"]]
    assert asked["userAgent"].startswith(user_agent(logged.id, "Boto3/"))
