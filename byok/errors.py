"""Every error of byok, as one tree.

::

    ByokError
    ├── InvalidInput            exit 2   the caller's argument is wrong; nothing was changed
    │   ├── InvalidName · InvalidArn · OutOfBounds · EmptyContext · EmptyValue
    │   ├── NoTenant · NoRow · NotComparable
    ├── ConfigurationError      exit 78  a setting is missing or wrong
    │   └── InvalidMasterKey · UnknownMasterKey
    ├── NotFound                exit 3
    │   ├── UnknownTenant · UnknownKey · UnknownVersion · UnknownRotation · UnknownStop
    │   ├── UnknownTarget · UnknownCampaign
    ├── Conflict                exit 4   the state of things does not allow it
    │   ├── DuplicateTenant · DuplicateKey · KmsKeyTaken · RoleTaken · ConnectionFixed
    │   ├── IllegalTransition · LostRace · NotReady · NotSearchable · StillInUse
    │   ├── DuplicateTarget · TargetMismatch · CampaignOpen · MoveOpen
    ├── AccessStopped           exit 5   no plaintext for this tenant now
    │   ├── TenantNotActive · KmsAccessRevoked
    ├── Unavailable             exit 6   something cannot be reached; trying again can help
    │   ├── KmsUnavailable ─ KmsBackingOff
    │   ├── StoreUnavailable ─ StoreBusy
    │   ├── CacheUnavailable · QueueUnavailable · StackUnavailable
    │   ├── ApplicationUnavailable
    ├── IntegrityError          exit 7   bytes are not what they must be
    │   ├── CannotDecrypt · SealBroken · KmsIntegrityError · AuditChainBroken · InvariantBroken
    │   └── ReportNotAuthentic
    ├── ValidationFailed        exit 8   a version or a connection did not pass its gate
    ├── KmsRequestRejected      exit 9   AWS refuses our request for good: configuration, key type, quota
    └── GaveUp                  exit 10  a rotation was begun too often without an end
        └── CampaignFailed               it ended without having every value re-encrypted

``code`` is stable and meant for machines. ``retryable`` says whether the same call may succeed later
without anybody changing anything. The message names what is wrong; ``remedy`` says what to do.
"""

from typing import ClassVar


class ByokError(Exception):
    """Base of all errors of byok."""

    code: ClassVar[str] = "byok-error"
    retryable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by what is told alone, without the cause: an error may travel between processes."""
        return (_rebuild, (type(self), dict(vars(self))))


def _rebuild(kind: type[ByokError], told: dict[str, str | None]) -> ByokError:
    error = kind.__new__(kind, told["message"])
    vars(error).update(told)
    return error


class InvalidInput(ByokError):
    """The caller's argument is wrong; nothing was changed."""

    code = "invalid-input"
    exit_code = 2


class InvalidName(InvalidInput):
    """A tenant or key name is not a slug."""

    code = "invalid-name"


class InvalidArn(InvalidInput):
    """An ARN is malformed or is not of the needed kind."""

    code = "invalid-arn"


class OutOfBounds(InvalidInput):
    """A number lies outside its documented bounds."""

    code = "out-of-bounds"


class EmptyContext(InvalidInput):
    """The context of an encryption or decryption is empty."""

    code = "empty-context"


class EmptyValue(InvalidInput):
    """There is nothing to compute a blind index of."""

    code = "empty-value"


class NoTenant(InvalidInput):
    """An encrypted column was used while no tenant is set."""

    code = "no-tenant"


class NoRow(InvalidInput):
    """It is not known where a value lives: its column, or the primary key of its row."""

    code = "no-row"


class NotComparable(InvalidInput):
    """An encrypted column stands where SQL would have to understand its value."""

    code = "not-comparable"


class ConfigurationError(ByokError):
    """A setting is missing or wrong."""

    code = "configuration"
    exit_code = 78  # EX_CONFIG of sysexits.h


class InvalidMasterKey(ConfigurationError):
    """A master key is missing, malformed or of the wrong length."""

    code = "invalid-master-key"


class UnknownMasterKey(ConfigurationError):
    """A record is sealed under a master key that the key ring does not hold."""

    code = "unknown-master-key"


class NotFound(ByokError):
    """Something named does not exist."""

    code = "not-found"
    exit_code = 3


class UnknownTenant(NotFound):
    """No tenant has this name."""

    code = "unknown-tenant"


class UnknownKey(NotFound):
    """The tenant has no key of this name."""

    code = "unknown-key"


class UnknownVersion(NotFound):
    """The key has no version of this number."""

    code = "unknown-version"


class UnknownRotation(NotFound):
    """No rotation has this id."""

    code = "unknown-rotation"


class UnknownStop(NotFound):
    """No stop has this id."""

    code = "unknown-stop"


class UnknownTarget(NotFound):
    """No table with this id is registered for re-encryption."""

    code = "unknown-target"


class UnknownCampaign(NotFound):
    """No campaign has this id."""

    code = "unknown-campaign"


class Conflict(ByokError):
    """The state of things does not allow what was asked."""

    code = "conflict"
    exit_code = 4


class DuplicateTenant(Conflict):
    """A tenant of this name exists."""

    code = "duplicate-tenant"


class DuplicateKey(Conflict):
    """The tenant has a key of this name."""

    code = "duplicate-key"


class KmsKeyTaken(Conflict):
    """Another tenant registered this KMS key."""

    code = "kms-key-taken"


class RoleTaken(Conflict):
    """Another tenant registered this role."""

    code = "role-taken"


class ConnectionFixed(Conflict):
    """A verified tenant keeps its KMS key and role."""

    code = "connection-fixed"


class IllegalTransition(Conflict):
    """The transition table has no such step."""

    code = "illegal-transition"


class LostRace(Conflict):
    """Somebody else made the same step first; nothing was changed."""

    code = "lost-race"


class NotReady(Conflict):
    """The key has no active version yet."""

    code = "not-ready"


class NotSearchable(Conflict):
    """The key has no blind index."""

    code = "not-searchable"


class StillInUse(Conflict):
    """A version can't be destroyed yet, or a floor not be lowered: something needs it, or may have it."""

    code = "still-in-use"


class DuplicateTarget(Conflict):
    """The key has this table as a target already."""

    code = "duplicate-target"


class TargetMismatch(Conflict):
    """An application's table is not what its registration says, or its rows don't open."""

    code = "target-mismatch"


class CampaignOpen(Conflict):
    """A campaign over this target is under way."""

    code = "campaign-open"


class MoveOpen(Conflict):
    """The tenant is on its way to another KMS key already."""

    code = "move-open"


class AccessStopped(ByokError):
    """No plaintext for this tenant now, by its own or the vendor's will."""

    code = "access-stopped"
    exit_code = 5


class TenantNotActive(AccessStopped):
    """The tenant is pending, suspended or offboarded."""

    code = "tenant-not-active"


class KmsAccessRevoked(AccessStopped):
    """The customer took access to its KMS key or role away.

    ``reason`` in words, ``aws_code`` and ``request_id`` are the evidence that the suspension keeps.
    """

    code = "kms-access-revoked"

    def __init__(
        self,
        message: str,
        *,
        aws_code: str = "",
        request_id: str = "",
        reason: str = "access to the KMS key was revoked",
        remedy: str | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.aws_code = aws_code
        self.request_id = request_id
        self.reason = reason


class Unavailable(ByokError):
    """Something cannot be reached; trying again can help."""

    code = "unavailable"
    retryable = True
    exit_code = 6


class KmsUnavailable(Unavailable):
    """The customer's KMS cannot be reached, throttles, or failed on its side."""

    code = "kms-unavailable"


class KmsBackingOff(KmsUnavailable):
    """The customer's KMS was not asked at all: it failed too often of late, or enough calls wait for it.

    ``retry_after_seconds`` is when asking again makes sense.
    """

    code = "kms-backing-off"

    def __init__(self, message: str, *, retry_after_seconds: float = 5.0, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.retry_after_seconds = retry_after_seconds


class StoreUnavailable(Unavailable):
    """PostgreSQL cannot be reached."""

    code = "store-unavailable"


class StoreBusy(StoreUnavailable):
    """PostgreSQL answers, and gave up a statement: it waited too long for a lock, or for one that waited
    for it, or took too long."""

    code = "store-busy"


class CacheUnavailable(Unavailable):
    """The Redis cache cannot be reached."""

    code = "cache-unavailable"


class QueueUnavailable(Unavailable):
    """The broker cannot be reached."""

    code = "queue-unavailable"


class ApplicationUnavailable(Unavailable):
    """The application's database, whose rows are re-encrypted, cannot be reached."""

    code = "application-unavailable"


class StackUnavailable(Unavailable):
    """The embedded stack can't start, or one of its servers stopped."""

    code = "stack-unavailable"
    retryable = False


class IntegrityError(ByokError):
    """Bytes are not what they must be."""

    code = "integrity"
    exit_code = 7


class CannotDecrypt(IntegrityError):
    """The one answer to every ciphertext that does not open: it never says why."""

    code = "cannot-decrypt"


class SealBroken(IntegrityError):
    """A sealed record does not open: tampered with, or moved to another row."""

    code = "seal-broken"


class KmsIntegrityError(IntegrityError):
    """KMS refuses the ciphertext, answers with another key than the one asked for, or is not what answers."""

    code = "kms-integrity"


class AuditChainBroken(IntegrityError):
    """The audit chain was edited, cut or reordered."""

    code = "audit-chain-broken"

    def __init__(
        self, message: str, *, remedy: str = "keep the database as it is, and compare it with a restored copy"
    ) -> None:
        super().__init__(message, remedy=remedy)


class InvariantBroken(IntegrityError):
    """The stored versions of a key contradict each other."""

    code = "invariant-broken"


class ReportNotAuthentic(IntegrityError):
    """A signed report was changed, or somebody else signed it."""

    code = "report-not-authentic"


class ValidationFailed(ByokError):
    """A version or a connection did not pass its gate."""

    code = "validation-failed"
    exit_code = 8


class KmsRequestRejected(ByokError):
    """AWS refuses the request for good: wrong key type, bad parameter, a limit.

    ``aws_code`` is AWS's, or empty where AWS was not asked.
    """

    code = "kms-request-rejected"
    exit_code = 9

    def __init__(self, message: str, *, aws_code: str = "", remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.aws_code = aws_code


class GaveUp(ByokError):
    """A rotation was begun too often without an end: it may be what kills its workers."""

    code = "gave-up"
    exit_code = 10


class CampaignFailed(GaveUp):
    """A campaign ended without having every value re-encrypted."""

    code = "campaign-failed"


def failure_text(error: Exception) -> str:
    """What is kept of an error with the work that it ended: of a bug its kind alone, since its text may hold
    anything."""
    if isinstance(error, ByokError):
        return f"{error.code}: {error.message}"
    return f"unexpected: {type(error).__name__}"
