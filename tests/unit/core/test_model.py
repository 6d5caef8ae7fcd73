"""Names, ARNs and bounds."""

from datetime import timedelta
from uuid import UUID

import pytest

from byok.core import bounds
from byok.core.arns import KmsKeyArn, RoleArn
from byok.core.model import Connection
from byok.errors import InvalidArn, InvalidName, OutOfBounds

KEY_ARN = "arn:aws:kms:eu-central-1:222222222222:key/1234abcd-12ab-34cd-56ef-1234567890ab"
ROLE_ARN = "arn:aws:iam::222222222222:role/byok"


@pytest.mark.parametrize(
    "text",
    [
        KEY_ARN,
        "arn:aws-cn:kms:cn-north-1:222222222222:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "arn:aws-us-gov:kms:us-gov-west-1:222222222222:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "arn:aws:kms:us-east-1:222222222222:key/mrk-1234abcd12ab34cd56ef1234567890ab",
    ],
)
def test_key_arns_parse_and_print_back(text: str) -> None:
    assert str(KmsKeyArn.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pii",
        "arn:aws:kms:eu-central-1:222222222222:alias/pii",
        "arn:aws:kms::222222222222:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "arn:aws:kms:eu-central-1:22222222222:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "arn:aws:s3:eu-central-1:222222222222:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        KEY_ARN + "\n",
        KEY_ARN.upper(),
        KEY_ARN[:-1],
    ],
)
def test_what_is_not_a_key_arn_is_refused(text: str) -> None:
    with pytest.raises(InvalidArn):
        KmsKeyArn.parse(text)


@pytest.mark.parametrize(
    "text", ["", KEY_ARN, "arn:aws:iam::2222:role/x", "arn:aws:iam::222222222222:user/x"]
)
def test_what_is_not_a_role_arn_is_refused(text: str) -> None:
    with pytest.raises(InvalidArn):
        RoleArn.parse(text)


def test_a_role_of_another_account_is_refused() -> None:
    with pytest.raises(InvalidArn, match="account"):
        Connection(
            UUID(int=1),
            KmsKeyArn.parse(KEY_ARN),
            "x",
            RoleArn.parse("arn:aws:iam::333333333333:role/byok"),
            tenant_name="acme",
        )
    Connection(UUID(int=1), KmsKeyArn.parse(KEY_ARN), "x", RoleArn.parse(ROLE_ARN), tenant_name="acme")


@pytest.mark.parametrize("name", ["a", "acme", "acme-2", "0", "a" * 63])
def test_good_names(name: str) -> None:
    assert bounds.check_name("tenant", name) == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "Acme", "a_b", "a" * 64, "a\n", "é", "a b", "../a"])
def test_bad_names(name: str) -> None:
    with pytest.raises(InvalidName):
        bounds.check_name("tenant", name)


def test_bounds_hold_to_the_second() -> None:
    second = timedelta(seconds=1)
    for good in (timedelta(hours=1), timedelta(days=3650)):
        assert bounds.check_rotation_period(good) == good
    for bad in (timedelta(hours=1) - second, timedelta(days=3650) + second, timedelta(0), -timedelta(days=1)):
        with pytest.raises(OutOfBounds):
            bounds.check_rotation_period(bad)
    for good in (timedelta(0), timedelta(hours=24)):
        assert bounds.check_lease_ttl(good) == good
    for bad in (-second, timedelta(hours=24) + second):
        with pytest.raises(OutOfBounds):
            bounds.check_lease_ttl(bad)
