"""Which records of CloudTrail concern a tenant, and what its files cover."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from byok.core.arns import KmsKeyArn, RoleArn
from byok.core.cloudtrail import (
    Concern,
    Former,
    Seen,
    Subject,
    call_of,
    concern_of,
    is_about_kms_key,
    seen_in,
)
from byok.core.reconciliation import Coverage, Span, is_of_neighbour
from byok.core.request_log import LoggedRequest

TENANT, ACCOUNT, VENDOR = UUID(int=7), "222222222222", "111111111111"
KEY = f"arn:aws:kms:eu-central-1:{ACCOUNT}:key/mrk-{'0' * 32}"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/byok"
SUBJECT = Subject(TENANT, KmsKeyArn.parse(KEY), RoleArn.parse(ROLE), VENDOR)
NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)


def record(**fields: Any) -> dict[str, Any]:
    base = {
        "eventTime": "2026-11-28T12:00:00Z",
        "eventSource": "kms.amazonaws.com",
        "eventName": "Decrypt",
        "awsRegion": "eu-central-1",
        "recipientAccountId": ACCOUNT,
        "userIdentity": {"type": "AWSAccount", "accountId": "333333333333"},
        "requestID": "r-1",
    }
    return base | fields


def session(role: str, name: str = "x") -> dict[str, Any]:
    arn = f"arn:aws:sts::{ACCOUNT}:assumed-role/{role.rpartition('/')[2]}/{name}"
    return {"type": "AssumedRole", "arn": arn, "sessionContext": {"sessionIssuer": {"arn": role}}}


ON_KEY = {"requestParameters": {"keyId": KEY}}
BYOK = {"byok-app": "byok"}


@pytest.mark.parametrize(
    ("fields", "concern"),
    [
        ({"userIdentity": session(ROLE), "eventSource": "s3.amazonaws.com"}, Concern.SESSION),
        ({"userIdentity": session(f"{ROLE}2")}, None),
        ({"userIdentity": session(f"{ROLE}-old", f"byok.{TENANT}.host")}, Concern.SESSION),
        ({"userIdentity": session(f"{ROLE}-old", f"byok.{UUID(int=8)}.host")}, None),
        ({"eventName": "AssumeRole", "requestParameters": {"roleArn": ROLE}}, Concern.ASSUMPTION),
        ({"eventName": "AssumeRoleWithSAML", "requestParameters": {"roleArn": ROLE}}, Concern.ASSUMPTION),
        ({"eventName": "AssumeRole", "requestParameters": {"roleArn": f"{ROLE}2"}}, None),
        (
            {"eventName": "AssumeRole", "errorMessage": f"not authorized on resource: {ROLE}."},
            Concern.ASSUMPTION,
        ),
        ({"eventName": "AssumeRole", "errorMessage": f"not authorized on resource: {ROLE}2"}, None),
        (ON_KEY, None),
        (ON_KEY | {"userIdentity": {"accountId": VENDOR}}, Concern.VENDOR),
        ({"userIdentity": {"accountId": VENDOR}, "errorMessage": f"on resource: {KEY}"}, Concern.VENDOR),
        ({"userIdentity": {"accountId": VENDOR}}, None),
        ({"requestParameters": {"keyId": KEY, "encryptionContext": BYOK}}, Concern.CONTEXT),
        ({"requestParameters": {"encryptionContext": BYOK}}, None),
        (
            {"requestParameters": {"sourceKeyId": KEY, "sourceEncryptionContext": BYOK}},
            Concern.CONTEXT,
        ),
        ({"requestParameters": {"encryptionContext": {"byok-tenant": str(TENANT)}}}, Concern.CONTEXT),
        ({"requestParameters": None, "userIdentity": None, "resources": None}, None),
    ],
)
def test_a_record_concerns_us_or_does_not(fields: dict[str, Any], concern: Concern | None) -> None:
    assert concern_of(record(**fields), SUBJECT) == concern


@pytest.mark.parametrize(
    "fields",
    [
        {"resources": [{"ARN": KEY}]},
        {"requestParameters": {"keyId": KEY.rpartition("/")[2]}},
        {"requestParameters": {"destinationKeyId": KEY}},
        {"resources": [{"ARN": KEY.replace("eu-central-1", "us-east-1")}]},
    ],
)
def test_a_kms_key_is_known_by_arn_and_id_and_in_every_region(fields: dict[str, Any]) -> None:
    assert is_about_kms_key(record(**fields), SUBJECT)
    assert not is_about_kms_key(record(), SUBJECT)


def test_a_call_is_told_by_its_request_id_and_without_one_by_its_events() -> None:
    assert call_of(record(eventID="e-1"), Concern.SESSION).call_id == "r-1"
    without = record(eventID="e-1", requestID=None)
    assert call_of(without, Concern.SESSION).call_id == "e-1"


@pytest.mark.parametrize(
    "fields",
    [
        {"eventTime": "noon"},
        {"eventTime": None},
        {"eventTime": "2026-11-28T12:00:00"},
        {"eventTime": "0001-01-01T00:00:00Z"},
        {"eventTime": "9999-12-31T23:59:59Z"},
        {"requestID": ""},
        {"requestID": "\ud800"},
        {"awsRegion": 1},
    ],
)
def test_what_is_no_record_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        seen_in(record(**fields))


JUNK: tuple[object, ...] = (
    None,
    True,
    7,
    1.5,
    "",
    "\ud800",
    [],
    ["x"],
    [None],
    {},
    {"ARN": 1},
    {"keyId": [], "roleArn": {}},
    {"arn": 1},
)
FIELDS = (
    "eventTime", "eventSource", "eventName", "awsRegion", "recipientAccountId", "userIdentity", "requestID",
    "eventID", "requestParameters", "resources", "errorMessage", "errorCode", "userAgent", "sourceIPAddress",
)  # fmt: skip


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", JUNK)
def test_a_record_with_whatever_in_a_field_is_refused_or_read(field: str, value: object) -> None:
    """Nothing but the ValueError by which its file is told to be broken."""
    for made in (record(**{field: value}), record(**{"userIdentity": session(ROLE), field: value})):
        try:
            seen_in(made)
        except ValueError:
            continue
        is_about_kms_key(made, SUBJECT)
        concern_of(made, SUBJECT)
        call_of(made, Concern.SESSION)


OLD_KEY, OLD_ROLE = KEY.replace(ACCOUNT, "3" * 12), ROLE.replace(ACCOUNT, "3" * 12)


@pytest.mark.parametrize(
    ("fields", "concern"),
    [
        ({"userIdentity": session(OLD_ROLE, "mallory")}, Concern.SESSION),
        ({"eventName": "AssumeRole", "requestParameters": {"roleArn": OLD_ROLE}}, Concern.ASSUMPTION),
        (
            {"userIdentity": {"accountId": VENDOR}, "requestParameters": {"keyId": OLD_KEY}},
            Concern.VENDOR,
        ),
    ],
)
def test_what_a_tenant_moved_from_is_its_own_until_it_left(fields: dict[str, Any], concern: Concern) -> None:
    """A theft is found after a move, too; what the customer does with the old role later is its own."""
    former = Former(KmsKeyArn.parse(OLD_KEY), RoleArn.parse(OLD_ROLE), NOON)
    moved = replace(SUBJECT, formers=[former])
    assert concern_of(record(**fields), moved) == concern
    assert concern_of(record(**fields), replace(SUBJECT, formers=[replace(former, until=None)])) == concern
    assert concern_of(record(**fields), SUBJECT) is None
    assert concern_of(record(**fields, eventTime="2026-11-28T12:00:01Z"), moved) is None


def logged(tenant: int, subject: str, role: str | None) -> LoggedRequest:
    return LoggedRequest(UUID(int=1), UUID(int=tenant), "Decrypt", subject, role, "eu-central-1", NOON)


@pytest.mark.parametrize(
    ("request_", "is_neighbour"),
    [
        (logged(8, KEY, None), True),
        (logged(8, ROLE, None), True),
        (logged(8, "eu-central-1", ROLE), True),
        (logged(8, f"{KEY}1", f"{ROLE}2"), False),
        (logged(8, "eu-central-1", None), False),
        (logged(7, KEY, ROLE), False),
    ],
)
def test_a_neighbour_has_the_same_role_or_kms_key(request_: LoggedRequest, is_neighbour: bool) -> None:
    """What goes out in one tenant's session, and is logged for an unrelated one, is nobody's neighbour's."""
    assert is_of_neighbour(request_, SUBJECT) is is_neighbour


def coverage(**told: datetime) -> Coverage:
    return Coverage((ACCOUNT, "eu-central-1"), timedelta(minutes=15), NOON + timedelta(days=1), **told)


def test_what_was_seen_is_complete_but_for_the_delay_at_both_ends() -> None:
    made = coverage()
    for hours in (2, 0, 1):
        made.add(Seen(ACCOUNT, "eu-central-1", NOON + timedelta(hours=hours)))
    quarter = timedelta(minutes=15)
    assert made.complete(ACCOUNT, "eu-central-1") == Span(NOON + quarter, NOON + timedelta(hours=2) - quarter)
    assert made.complete(ACCOUNT, "us-east-1") is None
    assert made.complete(VENDOR, "eu-central-1") is None


def test_what_is_told_goes_before_what_was_seen_and_not_beyond_what_can_be_there() -> None:
    made = coverage(since=NOON, until=NOON + timedelta(days=9))
    newest = NOON + timedelta(days=1) - timedelta(minutes=15)
    assert made.complete(ACCOUNT, "eu-central-1") == Span(NOON, newest), "although nothing was seen"
    assert made.complete(VENDOR, "eu-central-1") is None


def test_seconds_are_too_short_to_be_complete() -> None:
    made = coverage()
    made.add(Seen(ACCOUNT, "eu-central-1", NOON))
    assert made.complete(ACCOUNT, "eu-central-1") is None
