"""Tells the metrics how requests to customers' KMS and STS end, and how long they take.

Counted is what was sent: one that the bulkhead held back is none, and what is repeated counts each time. What
makes no sense only when it is read counts as answered; `kms-integrity` and its alarm tell of that.
"""

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from byok.core.metric_list import KmsOutcome
from byok.core.model import Connection
from byok.errors import KmsIntegrityError
from byok.kms.classify import (
    AWS_ERRORS,
    KMS_ERROR_CLASSES,
    THROTTLES,
    ErrorClass,
    classify,
    error_code,
)
from byok.ports import RequestMetrics

_OUTCOMES = {
    ErrorClass.OUTAGE: KmsOutcome.OUTAGE,
    ErrorClass.REVOKED: KmsOutcome.DENIED,
    ErrorClass.DENIED: KmsOutcome.DENIED,
    ErrorClass.EXPIRED: KmsOutcome.REJECTED,
    ErrorClass.STATE: KmsOutcome.UNUSABLE,
    ErrorClass.INTEGRITY: KmsOutcome.INTEGRITY,
    ErrorClass.REJECTED: KmsOutcome.REJECTED,
}


class Meter:
    """Measures requests. Thread-safe."""

    def __init__(self, metrics: RequestMetrics) -> None:
        self._metrics = metrics

    @contextmanager
    def measured(
        self,
        connection: Connection,
        operation: str,
        table: Mapping[str, ErrorClass] = KMS_ERROR_CLASSES,
        answers: Collection[str] = (),
    ) -> Iterator[None]:
        """Count the one request that is made inside the block; whatever it raises goes through.

        ``answers``: AWS's codes that are as good an answer as any, since the caller asks just that.
        """
        began_seconds, outcome = time.perf_counter(), KmsOutcome.OK
        try:
            yield
        except AWS_ERRORS as error:
            if error_code(error) not in answers:
                outcome = _outcome(error, table)
            raise
        except KmsIntegrityError:  # the reply is none of AWS's
            outcome = KmsOutcome.INTEGRITY
            raise
        finally:
            took_seconds = time.perf_counter() - began_seconds
            self._metrics.kms_requested(operation, outcome, connection.tenant_name, took_seconds)


def _outcome(error: Exception, table: Mapping[str, ErrorClass]) -> KmsOutcome:
    if error_code(error) in THROTTLES:
        return KmsOutcome.THROTTLED
    return _OUTCOMES[classify(error, table)]
