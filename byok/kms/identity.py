"""Who we are to AWS, and what time it is there."""

from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

import boto3

from byok.errors import KmsRequestRejected
from byok.kms.classify import AWS_ERRORS, STS_ERROR_CLASSES, classify, to_byok_error
from byok.kms.signing import CLIENT_CONFIG

_ELSEWHERE = "us-east-1"  # STS answers there for every region of the partition


@dataclass(frozen=True, slots=True)
class CallerIdentity:
    """The identity that signs our own requests, who said so, and when by AWS's clock, to the second."""

    arn: str
    endpoint: str
    answered_at: datetime


def ask_identity(endpoint_url: str | None) -> CallerIdentity:
    """Ask STS, which needs no right for it.

    Raises:
        KmsUnavailable, KmsRequestRejected: there are no credentials, or AWS does not know them.
    """
    try:
        session = boto3.session.Session()
        region = session.region_name or _ELSEWHERE
        if session.get_credentials() is None:
            raise KmsRequestRejected(
                "this process has no AWS credentials", remedy="give it an IAM role, or AWS_* variables"
            )
        client = session.client("sts", region_name=region, endpoint_url=endpoint_url, config=CLIENT_CONFIG)
        reply = client.get_caller_identity()
    except AWS_ERRORS as error:
        error_class = classify(error, STS_ERROR_CLASSES)
        raise to_byok_error(error, error_class, "GetCallerIdentity", "our own identity") from error
    headers = reply["ResponseMetadata"]["HTTPHeaders"]
    return CallerIdentity(reply["Arn"], client.meta.endpoint_url, parsedate_to_datetime(headers["date"]))
