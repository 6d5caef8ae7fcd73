"""Our own AWS identity, and AWS's clock."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from byok.core.arns import RoleArn
from byok.doctor import clocks
from byok.doctor.result import Result, failed, note, passed, warning
from byok.kms.identity import CallerIdentity, ask_identity
from byok.wiring import Runtime

_AWS = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")


def check_aws(runtime: Runtime) -> Iterator[Result]:
    """Ask STS who we are; raises KmsUnavailable, KmsRequestRejected."""
    settings = runtime.settings
    before = clocks.wall_clock()
    identity = ask_identity(settings.kms_endpoint_url)
    middle = before + (clocks.wall_clock() - before) / 2
    vendor_role = settings.vendor_role_arn
    yield judge_identity(identity, None if vendor_role is None else RoleArn.parse(vendor_role))
    if settings.env == "production":
        yield judge_endpoint(identity.endpoint)
    yield clocks.judge("clock-aws", "AWS", middle - identity.answered_at)


def judge_identity(identity: CallerIdentity, vendor_role: RoleArn | None) -> Result:
    """Customers' policies let one role in."""
    if vendor_role is None:
        return note(
            "aws-identity",
            f"{identity.arn}: compared with nothing",
            "BYOK_VENDOR_ROLE_ARN: the role that customers let in",
        )
    if is_session_of(vendor_role, identity.arn):
        return passed("aws-identity", identity.arn)
    return warning(
        "aws-identity",
        f"this process is {identity.arn}, customers let {vendor_role} in",
        "fine where no worker runs under it; else give the workers that role, or mend BYOK_VENDOR_ROLE_ARN",
    )


def is_session_of(role: RoleArn, arn: str) -> bool:
    """Whether a caller is the role, or a session of it, whose ARN has the role's name without its path."""
    name = role.name.rpartition("/")[2]
    session = f"arn:{role.partition}:sts::{role.account}:assumed-role/{name}/"
    return arn.startswith(session) or arn == str(role)


def judge_endpoint(url: str) -> Result:
    """In production nothing may stand in AWS's place: a variable of boto3's can put it there."""
    host = urlsplit(url).hostname or ""
    if host.endswith(_AWS):
        return passed("aws-endpoint", host)
    return failed(
        "aws-endpoint",
        f"AWS is asked at {host}, which is not AWS",
        "unset AWS_ENDPOINT_URL and AWS_ENDPOINT_URL_*",
    )
