"""One request to a customer's KMS, or to STS: logged for good, timed, judged, told to traces and metrics.

Each attempt is in the log of requests before it is sent, and carries its id there (`byok.ports.RequestLog`).
Told is what was sent: one that the bulkhead held back is none, and what is repeated counts each time. What
makes no sense only when it is read counts as answered; `kms-integrity` and its alarm tell of that.
"""

import time
from collections.abc import Callable, Collection
from typing import Any, TypeVar

from byok import tracing
from byok.core.metric_list import KmsOutcome
from byok.core.model import Connection
from byok.errors import KmsIntegrityError
from byok.kms.classify import (
    AWS_ERRORS,
    KMS_ERROR_CLASSES,
    STS_ERROR_CLASSES,
    THROTTLES,
    ErrorClass,
    classify,
    error_code,
    reading_reply,
    request_id,
)
from byok.kms.signing import marked_with
from byok.logs import get_logger, note_kms_request
from byok.ports import KmsRequest, RequestLog, RequestMetrics

log = get_logger(__name__)

_Reply = TypeVar("_Reply")

# The answer to a dry run that would have succeeded.
_DRY_RUN = "DryRunOperationException"
_OUTCOMES = {
    ErrorClass.OUTAGE: KmsOutcome.OUTAGE,
    ErrorClass.REVOKED: KmsOutcome.DENIED,
    ErrorClass.DENIED: KmsOutcome.DENIED,
    ErrorClass.STATE: KmsOutcome.UNUSABLE,
    ErrorClass.EXPIRED: KmsOutcome.REJECTED,
    ErrorClass.INTEGRITY: KmsOutcome.INTEGRITY,
    ErrorClass.REJECTED: KmsOutcome.REJECTED,
}


class Requests:
    """Sends requests and tells how each went. Thread-safe."""

    def __init__(self, metrics: RequestMetrics, request_log: RequestLog) -> None:
        self._metrics = metrics
        self._request_log = request_log

    def send(
        self,
        connection: Connection,
        operation: str,
        subject: str,
        request: Callable[[], _Reply],
        *,
        answers: Collection[str] = (),
        is_aside: bool = False,
    ) -> _Reply:
        """Send a request on ``subject``, an ARN; whatever it raises goes through.

        ``answers``: AWS's codes that are as good an answer as any, since the caller asks just that.
        ``is_aside``: see `KmsRequest`.

        Raises:
            KmsIntegrityError: what answered is not AWS.
            KmsBackingOff: it was not sent, since it could not be logged.
            AWS_ERRORS: as botocore raised it.
        """
        logged = self._request_log.begin(connection, operation, subject)
        began_seconds = time.perf_counter()

        def tell(outcome: KmsOutcome, code: str, request_id: str) -> None:
            took_seconds = time.perf_counter() - began_seconds
            self._request_log.end(logged, request_id, code)
            self._tell(KmsRequest(operation, connection, outcome, code, request_id, took_seconds, is_aside))

        try:
            with marked_with(logged.id), reading_reply(operation, subject):
                reply = request()
        except Exception as error:
            outcome, code = _judge(operation, error)
            tell(KmsOutcome.OK if code in answers else outcome, code, request_id(error))
            raise
        tell(KmsOutcome.OK, "", reply_id(reply))
        return reply

    def _tell(self, request: KmsRequest) -> None:
        _log(request)
        tracing.request_ended(request)
        if not request.is_aside:
            self._metrics.kms_requested(
                request.operation, request.outcome, request.connection.tenant_name, request.duration_seconds
            )


def _log(request: KmsRequest) -> None:
    if not request.is_aside:
        note_kms_request(request.request_id)
    is_news = request.outcome is not KmsOutcome.OK and not request.is_aside
    (log.warning if is_news else log.debug)(
        "kms_request",
        operation=request.operation,
        outcome=request.outcome,
        code=request.code or None,
        kms_request_id=request.request_id or None,
        duration_ms=round(request.duration_seconds * 1000, 1),
        tenant=request.connection.tenant_name,
        tenant_id=request.connection.tenant_id,
    )


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
    if code in THROTTLES:
        return KmsOutcome.THROTTLED, code
    table = STS_ERROR_CLASSES if operation in ("AssumeRole", "GetCallerIdentity") else KMS_ERROR_CLASSES
    return _OUTCOMES[classify(error, table)], code
