"""Every AWS error code has the class that decides what happens next."""

import pytest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ParamValidationError,
    ReadTimeoutError,
)

from byok.errors import ByokError, KmsAccessRevoked, KmsIntegrityError, KmsRequestRejected, KmsUnavailable
from byok.kms.classify import (
    KMS_ERROR_CLASSES,
    STS_ERROR_CLASSES,
    ErrorClass,
    classify,
    error_code,
    to_byok_error,
)


def aws_error(code: str, status: int = 400) -> ClientError:
    metadata = {"RequestId": "request-1", "HTTPStatusCode": status, "HTTPHeaders": {}, "RetryAttempts": 0}
    return ClientError(
        {"Error": {"Code": code, "Message": "told"}, "ResponseMetadata": metadata},  # type: ignore[typeddict-item]
        "Decrypt",
    )


OUTCOMES: dict[str, type[ByokError]] = {
    "ThrottlingException": KmsUnavailable,
    "KMSInternalException": KmsUnavailable,
    "DependencyTimeoutException": KmsUnavailable,
    "KeyUnavailableException": KmsUnavailable,
    "DisabledException": KmsAccessRevoked,
    "AccessDeniedException": KmsAccessRevoked,
    "NotFoundException": KmsAccessRevoked,
    "InvalidCiphertextException": KmsIntegrityError,
    "IncorrectKeyException": KmsIntegrityError,
    "InvalidKeyUsageException": KmsRequestRejected,
    "UnsupportedOperationException": KmsRequestRejected,
    "ValidationException": KmsRequestRejected,
    "LimitExceededException": KmsRequestRejected,
    "ExpiredTokenException": KmsRequestRejected,  # a new session expired too: our clock is wrong
    "InvalidSignatureException": KmsRequestRejected,
    "SomethingNewException": KmsRequestRejected,
}


@pytest.mark.parametrize("code", OUTCOMES)
def test_kms_codes(code: str) -> None:
    error = aws_error(code)
    translated = to_byok_error(error, classify(error, KMS_ERROR_CLASSES), "Decrypt", "arn")
    assert type(translated) is OUTCOMES[code]
    assert code in translated.message
    assert "request-1" in translated.message


@pytest.mark.parametrize(
    "code", [code for code, one in STS_ERROR_CLASSES.items() if one is ErrorClass.REJECTED]
)
def test_trouble_with_our_own_identity_suspends_nobody(code: str) -> None:
    error = aws_error(code, 403)
    assert not isinstance(
        to_byok_error(error, classify(error, STS_ERROR_CLASSES), "AssumeRole", "arn"), KmsAccessRevoked
    )


@pytest.mark.parametrize(
    "error",
    [
        EndpointConnectionError(endpoint_url="x"),
        ConnectTimeoutError(endpoint_url="x"),
        ReadTimeoutError(endpoint_url="x"),
        ConnectionClosedError(endpoint_url="x"),
        aws_error("502", 502),
        aws_error("503", 503),
        aws_error("429", 429),
        aws_error("SomethingNewException", 500),
    ],
    ids=error_code,
)
def test_what_says_nothing_about_the_customer_is_an_outage(error: BotoCoreError | ClientError) -> None:
    assert classify(error, KMS_ERROR_CLASSES) is ErrorClass.OUTAGE


def test_what_never_left_this_process_is_our_mistake() -> None:
    assert classify(ParamValidationError(report="x"), KMS_ERROR_CLASSES) is ErrorClass.REJECTED
    assert classify(aws_error("403", 403), KMS_ERROR_CLASSES) is ErrorClass.REJECTED


def test_evidence_is_kept() -> None:
    error = aws_error("DisabledException")
    refusal = to_byok_error(error, ErrorClass.REVOKED, "Decrypt", "arn")
    assert isinstance(refusal, KmsAccessRevoked)
    assert (refusal.aws_code, refusal.request_id) == ("DisabledException", "request-1")
