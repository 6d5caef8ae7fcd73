"""One request to AWS: timed, judged, and told to whoever logs, traces and counts."""

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from uuid import UUID

from byok import tracing
from byok.errors import KmsIntegrityError
from byok.kms.classify import (
    AWS_ERRORS,
    KMS_ERROR_CLASSES,
    STS_ERROR_CLASSES,
    ErrorClass,
    classify,
    error_code,
    reading_reply,
    request_id,
)
from byok.logs import get_logger, note_kms_request
from byok.ports import KmsObserver, KmsOutcome, KmsRequest

log = get_logger(__name__)

_Reply = TypeVar("_Reply")

_THROTTLES = frozenset(
    {"ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded", "429"}
)
# The answer to a dry run that would have succeeded.
_DRY_RUN = "DryRunOperationException"
_OUTCOMES = {
    ErrorClass.OUTAGE: KmsOutcome.OUTAGE,
    ErrorClass.REVOKED: KmsOutcome.DENIED,
    ErrorClass.DENIED: KmsOutcome.DENIED,
    ErrorClass.STATE: KmsOutcome.DENIED,  # most states are of a key that its owner took away
    ErrorClass.EXPIRED: KmsOutcome.REJECTED,
    ErrorClass.INTEGRITY: KmsOutcome.INTEGRITY,
    ErrorClass.REJECTED: KmsOutcome.REJECTED,
}


class Requests:
    """Sends requests and tells how each went. Thread-safe."""

    def __init__(self, observers: Sequence[KmsObserver] = ()) -> None:
        self._observers = tuple(observers)

    def send(
        self,
        operation: str,
        tenant_id: UUID,
        subject: str,
        request: Callable[[], _Reply],
        *,
        is_aside: bool = False,
    ) -> _Reply:
        """Send a request on ``subject``, an ARN, for a tenant. See `KmsRequest` for ``is_aside``.

        Raises:
            KmsIntegrityError: what answered is not AWS.
            AWS_ERRORS: as botocore raised it.
        """
        began_seconds = time.perf_counter()

        def tell(outcome: KmsOutcome, code: str, request_id: str) -> None:
            duration_seconds = time.perf_counter() - began_seconds
            self._tell(
                KmsRequest(operation, tenant_id, outcome, code, request_id, duration_seconds, is_aside)
            )

        try:
            with reading_reply(operation, subject):
                reply = request()
        except Exception as error:
            tell(*_judge(operation, error), request_id(error))
            raise
        tell(KmsOutcome.OK, "", reply_id(reply))
        return reply

    def _tell(self, request: KmsRequest) -> None:
        if not request.is_aside:
            note_kms_request(request.request_id)
        told = {
            "operation": request.operation,
            "outcome": request.outcome.value,
            "code": request.code or None,
            "kms_request_id": request.request_id or None,
            "duration_ms": round(request.duration_seconds * 1000, 1),
            "tenant_id": request.tenant_id,
        }
        is_news = request.outcome is not KmsOutcome.OK and not request.is_aside
        (log.warning if is_news else log.debug)("kms_request", **told)
        tracing.request_ended(request)
        for observer in self._observers:
            observer(request)


def reply_id(reply: object) -> str:
    """AWS's id of the request that a reply answers; empty if it has none."""
    metadata: Any = reply.get("ResponseMetadata", {}) if isinstance(reply, dict) else {}
    return str(metadata.get("RequestId", ""))


def _judge(operation: str, error: Exception) -> tuple[KmsOutcome, str]:
    """How a request went that raised, and AWS's code for it."""
    if isinstance(error, KmsIntegrityError):
        return KmsOutcome.INTEGRITY, "not-aws"
    if not isinstance(error, AWS_ERRORS):
        return KmsOutcome.REJECTED, type(error).__name__  # a bug of ours: nothing was sent
    code = error_code(error)
    if code == _DRY_RUN:
        return KmsOutcome.OK, ""
    if code in _THROTTLES:
        return KmsOutcome.THROTTLED, code
    table = STS_ERROR_CLASSES if operation in ("AssumeRole", "GetCallerIdentity") else KMS_ERROR_CLASSES
    return _OUTCOMES[classify(error, table)], code
