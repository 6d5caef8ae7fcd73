"""What an AWS error means for us, by its code string.

The codes and their meaning are those of the AWS KMS and STS API references; the class decides what
happens next. Codes, not HTTP status and not exception types: many are not modelled by botocore, and
some faults arrive with status 400.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from enum import Enum

import botocore.exceptions as aws
from botocore.parsers import ResponseParserError

from byok.errors import ByokError, KmsAccessRevoked, KmsIntegrityError, KmsRequestRejected, KmsUnavailable


class ErrorClass(Enum):
    """What to do about an error."""

    OUTAGE = "retry with backoff; serve leases to their deadline"
    REVOKED = "stop at once"
    DENIED = "assume the role anew and repeat once; still denied is revoked"
    EXPIRED = "assume the role anew and repeat once"
    STATE = "ask DescribeKey which state the KMS key is in"
    INTEGRITY = "never retry, never suspend; quarantine and page"
    REJECTED = "our request or configuration; don't retry"


KMS_ERROR_CLASSES: dict[str, ErrorClass] = {
    "ThrottlingException": ErrorClass.OUTAGE,
    "Throttling": ErrorClass.OUTAGE,
    "TooManyRequestsException": ErrorClass.OUTAGE,
    "RequestLimitExceeded": ErrorClass.OUTAGE,
    "KMSInternalException": ErrorClass.OUTAGE,
    "InternalFailure": ErrorClass.OUTAGE,
    "InternalError": ErrorClass.OUTAGE,
    "ServiceUnavailable": ErrorClass.OUTAGE,
    "DependencyTimeoutException": ErrorClass.OUTAGE,
    "KeyUnavailableException": ErrorClass.OUTAGE,
    "DisabledException": ErrorClass.REVOKED,
    "AccessDeniedException": ErrorClass.DENIED,
    "NotFoundException": ErrorClass.REVOKED,
    "KMSInvalidStateException": ErrorClass.STATE,
    "InvalidCiphertextException": ErrorClass.INTEGRITY,
    "IncorrectKeyException": ErrorClass.INTEGRITY,
    "ExpiredTokenException": ErrorClass.EXPIRED,
    "ExpiredToken": ErrorClass.EXPIRED,
    "UnrecognizedClientException": ErrorClass.EXPIRED,
    "InvalidSignatureException": ErrorClass.EXPIRED,
    "IncompleteSignature": ErrorClass.EXPIRED,
    "InvalidKeyUsageException": ErrorClass.REJECTED,
    "UnsupportedOperationException": ErrorClass.REJECTED,
    "InvalidArnException": ErrorClass.REJECTED,
    "ValidationException": ErrorClass.REJECTED,
    "InvalidGrantTokenException": ErrorClass.REJECTED,
    "InvalidGrantIdException": ErrorClass.REJECTED,
    "LimitExceededException": ErrorClass.REJECTED,
    "ConflictException": ErrorClass.REJECTED,
}

STS_ERROR_CLASSES: dict[str, ErrorClass] = {
    "Throttling": ErrorClass.OUTAGE,
    "ThrottlingException": ErrorClass.OUTAGE,
    "RequestLimitExceeded": ErrorClass.OUTAGE,
    "InternalFailure": ErrorClass.OUTAGE,
    "ServiceUnavailable": ErrorClass.OUTAGE,
    "AccessDenied": ErrorClass.REVOKED,
    "RegionDisabledException": ErrorClass.REVOKED,
    "OptInRequired": ErrorClass.REVOKED,
    # Our own identity or request is at fault: this must never suspend a tenant.
    "ExpiredToken": ErrorClass.REJECTED,
    "ExpiredTokenException": ErrorClass.REJECTED,
    "InvalidClientTokenId": ErrorClass.REJECTED,
    "SignatureDoesNotMatch": ErrorClass.REJECTED,
    "IncompleteSignature": ErrorClass.REJECTED,
    "ValidationError": ErrorClass.REJECTED,
    "PackedPolicyTooLarge": ErrorClass.REJECTED,
    "MalformedPolicyDocument": ErrorClass.REJECTED,
}

# Among those that count as outages: KMS is there, and we ask too often.
THROTTLES = frozenset(
    {"ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded", "429"}
)

# KeyState of DescribeKey, where a crypto call said KMSInvalidStateException. An enabled key behind an
# external or CloudHSM key store says so when its proxy times out: that is an outage.
KEY_STATE_CLASSES: dict[str, ErrorClass] = {
    "Enabled": ErrorClass.OUTAGE,
    "Creating": ErrorClass.OUTAGE,
    "Updating": ErrorClass.OUTAGE,
    "Disabled": ErrorClass.REVOKED,
    "PendingDeletion": ErrorClass.REVOKED,
    "PendingReplicaDeletion": ErrorClass.REVOKED,
    "PendingImport": ErrorClass.REVOKED,
    "Unavailable": ErrorClass.REVOKED,
}

# All that a botocore call raises: a reply with an error, or no reply.
AWS_ERRORS = (aws.BotoCoreError, aws.ClientError)

_NETWORK_ERRORS = (
    aws.HTTPClientError,  # includes read and connect timeouts, closed connections, TLS and proxy trouble
    aws.ConnectionError,
)


def classify(error: Exception, table: Mapping[str, ErrorClass]) -> ErrorClass:
    """The class of what a botocore call raised. An unknown code is our problem, not the customer's will.

    A gateway's HTML page gives its HTTP status as code: those of 500 and above are outages.
    """
    if isinstance(error, _NETWORK_ERRORS):
        return ErrorClass.OUTAGE
    if isinstance(error, aws.ClientError):
        code = error_code(error)
        if code.isdigit():
            return ErrorClass.OUTAGE if int(code) >= 500 or code == "429" else ErrorClass.REJECTED
        known = table.get(code)
        if known is not None:
            return known
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return ErrorClass.OUTAGE if status >= 500 else ErrorClass.REJECTED
    return ErrorClass.REJECTED


def error_code(error: Exception) -> str:
    """AWS's error code, or the name of botocore's exception where there was no reply."""
    if isinstance(error, aws.ClientError):
        return str(error.response.get("Error", {}).get("Code", "")) or "unknown"
    return type(error).__name__


def request_id(error: Exception) -> str:
    """AWS's id of the refused request, or an empty string where there was no reply."""
    if isinstance(error, aws.ClientError):
        return str(error.response.get("ResponseMetadata", {}).get("RequestId", ""))
    return ""


@contextmanager
def reading_reply(operation: str, subject: str) -> Iterator[None]:
    """Send a request and read its reply inside the block: a page of a proxy, say, comes with HTTP 200 too.

    Raises:
        KmsIntegrityError: what answered is not AWS.
    """
    try:
        yield
    except (KeyError, ResponseParserError) as error:
        raise KmsIntegrityError(
            f"{operation} on {subject}: the reply is none of AWS's ({type(error).__name__}: {error})",
            remedy="find out what answers in AWS's place, such as a proxy",
        ) from error


# What a refusal says of the customer's key or role, for the suspension that follows.
_REASONS: dict[str, str] = {
    "DisabledException": "the KMS key is disabled",
    "NotFoundException": "the KMS key is gone",
    "AccessDeniedException": "the key policy or the role no longer lets us use the KMS key",
    "AccessDenied": "the role no longer lets us assume it",
    "RegionDisabledException": "the KMS key's region is switched off in the customer's account",
    "OptInRequired": "the KMS key's region is switched off in the customer's account",
}
# More exactly, by the KeyState of DescribeKey.
_REASONS_BY_STATE: dict[str, str] = {
    "PendingDeletion": "the KMS key is about to be deleted",
    "PendingReplicaDeletion": "the KMS key is about to be deleted",
    "PendingImport": "the KMS key's imported material is missing or has expired",
    "Unavailable": "the KMS key's key store is disconnected",
}


def to_byok_error(
    error: Exception,
    error_class: ErrorClass,
    operation: str,
    subject: str,
    *,
    key_state: str = "",
    deletion_date: datetime | None = None,
) -> ByokError:
    """byok's error for a classified one: ``operation`` on ``subject`` failed.

    ``key_state`` and ``deletion_date`` are what DescribeKey says, where it was asked.
    """
    code, request = error_code(error), request_id(error)
    message = f"{operation} on {subject}: {code}" + (f" (request {request})" if request else "")
    match error_class:
        case ErrorClass.OUTAGE:
            return KmsUnavailable(message, remedy="byok tries again by itself")
        case ErrorClass.REVOKED | ErrorClass.DENIED:
            return KmsAccessRevoked(
                message,
                aws_code=code,
                request_id=request,
                reason=_reason(code, key_state, deletion_date),
                remedy="once the customer restores access to its KMS key and role, byok resumes by itself",
            )
        case ErrorClass.INTEGRITY:
            return KmsIntegrityError(
                message, remedy="the stored record and the KMS key don't belong together; see the runbook"
            )
        case _:
            # EXPIRED ends here too: a new session was rejected too, so our identity or clock is wrong.
            return KmsRequestRejected(
                message,
                aws_code=code,
                remedy="check the KMS key's type and the workers' AWS identity and clock",
            )


def _reason(code: str, key_state: str, deletion_date: datetime | None) -> str:
    reason = _REASONS_BY_STATE.get(key_state) or _REASONS.get(code, "access to the KMS key was revoked")
    return reason if deletion_date is None else f"{reason}, on {deletion_date:%Y-%m-%d}"
