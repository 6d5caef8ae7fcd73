"""The words of the domain as types: tenants, keys, versions, rotations, and their states."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar
from uuid import UUID

from byok.core.arns import KmsKeyArn, RoleArn
from byok.errors import InvalidArn


class TenantState(StrEnum):
    """Whether byok may use a tenant's keys."""

    PENDING = "pending"  # registered, its connection not yet verified
    ACTIVE = "active"
    SUSPENDED = "suspended"  # access stopped: revoked by the customer, or locked by somebody
    OFFBOARDED = "offboarded"  # left for good


class SuspensionKind(StrEnum):
    """Who stopped a tenant; that decides how it comes back."""

    REVOKED = "revoked"  # AWS refuses us: ends by itself when access returns
    LOCKED = "locked"  # somebody said stop: ends when somebody says resume
    DRILL = "drill"  # an exercise: ends with it
    LEAVING = "leaving"  # the tenant goes for good: ends when somebody takes that back


class VersionState(StrEnum):
    """What a version may be used for."""

    PENDING = "pending"  # generated, not yet validated: nobody may use it
    ACTIVE = "active"  # encrypts and decrypts; at most one a key
    RETIRED = "retired"  # decrypts only
    COMPROMISED = "compromised"  # decrypts only, until all is re-encrypted
    REJECTED = "rejected"  # failed validation: never used
    DESTROYED = "destroyed"  # its wrapped key is gone


class RotationState(StrEnum):
    """How far a rotation has come. The first three are open: at most one open rotation a key."""

    REQUESTED = "requested"
    GENERATED = "generated"  # version n+1 is stored as pending
    VALIDATED = "validated"  # version n+1 passed its gate
    DONE = "done"  # version n+1 is active
    FAILED = "failed"


class RequestOutcome(StrEnum):
    """What became of a request for a rotation."""

    NEW = "new"  # it made a rotation
    JOINED = "joined"  # a rotation that was open already serves it, too
    REPEATED = "repeated"  # the same idempotency key asked before


class RotationSource(StrEnum):
    """Who decides how often a key is rotated; the first that says something wins."""

    TAG = "tag"  # the customer's tag on its KMS key
    KMS_KEY = "kms-key"  # the period of the KMS key's own automatic rotation
    SETTING = "setting"  # what the vendor set for the key
    DEFAULT = "default"


class Job(StrEnum):
    """What Beat sets off."""

    DISPATCH_DUE = "dispatch-due"
    SWEEP = "sweep"
    PROBE = "probe"
    VALIDATE = "validate"
    SYNC_ROTATION = "sync-rotation"
    WATCH = "watch"
    WEBHOOKS = "webhooks"


class TenantEvent(StrEnum):
    """What happens to a tenant."""

    VERIFY = "verify"  # its connection passed the preflight
    SUSPEND = "suspend"
    RESUME = "resume"
    OFFBOARD = "offboard"


class VersionEvent(StrEnum):
    """What happens to a version."""

    ACTIVATE = "activate"
    REJECT = "reject"
    RETIRE = "retire"
    COMPROMISE = "compromise"
    DESTROY = "destroy"
    SHRED = "shred"  # its tenant has left: whatever it was


class RotationEvent(StrEnum):
    """What happens to a rotation."""

    GENERATE = "generate"
    VALIDATE = "validate"
    PROMOTE = "promote"
    FAIL = "fail"


class RotationReason(StrEnum):
    """Why a rotation was asked for."""

    INITIAL = "initial"  # the first version of a key
    SCHEDULED = "scheduled"  # the key's period has passed
    FORCED = "forced"  # somebody asked
    COMPROMISE = "compromise"  # the active version must not encrypt any more
    KMS_KEY_ROTATED = "kms-key-rotated"  # follows the customer's KMS key
    MIGRATION = "migration"  # to another KMS key


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach a tenant's KMS key: through a role of the customer's, or by a key policy alone.

    ``external_id`` is made by us, one for each registration, and sent with every AssumeRole.
    """

    tenant_id: UUID
    kms_key_arn: KmsKeyArn
    external_id: str
    role_arn: RoleArn | None = None
    tenant_name: str = field(kw_only=True, compare=False)  # for people

    def __post_init__(self) -> None:
        if self.role_arn is not None and self.role_arn.account != self.kms_key_arn.account:
            raise InvalidArn(
                f"role account {self.role_arn.account} is not the KMS key's: {self.kms_key_arn.account}",
                remedy="create the role in the account that owns the KMS key",
            )


@dataclass(frozen=True, slots=True)
class Suspension:
    """Why a tenant is suspended, with the evidence."""

    reason: str
    since: datetime
    kind: SuspensionKind
    aws_code: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class KmsKeyRotation:
    """What the customer's KMS key says of rotation; None where it says nothing, or may not be asked.

    ``tag_days`` is the customer's wish in a tag, ``period_days`` AWS's own rotation of the KMS key, and
    ``material_id`` the key material in use: it changes when the customer rotates its KMS key.
    """

    tag_days: int | None = None
    period_days: int | None = None
    material_id: str | None = None


@dataclass(frozen=True, slots=True)
class Tenant:
    """A customer of the vendor. ``connection`` is None until the customer has provisioned it.

    ``generation`` grows with every change of state: leases of an older generation are void.
    ``kms_key_rotation`` is what the customer's KMS said at ``synced_at``. ``outage_wait`` is how long a
    call waits for a KMS that can't be reached, once no lease is left, before it fails.
    ``kms_key_rotation_on_at``: when AWS's own rotation of the KMS key was last seen on. ``looked_at``: when
    the last look over the customer's side began that got an answer; at first its verification.
    """

    id: UUID
    name: str
    state: TenantState
    external_id: str
    created_at: datetime
    generation: int = 0
    connection: Connection | None = None
    verified_at: datetime | None = None
    suspension: Suspension | None = None
    kms_key_rotation: KmsKeyRotation = KmsKeyRotation()
    synced_at: datetime | None = None
    outage_wait: timedelta = timedelta(0)
    kms_key_rotation_on_at: datetime | None = None
    looked_at: datetime | None = None
    webhook_url: str | None = None


@dataclass(frozen=True, slots=True)
class IndexVersions:
    """The versions that a key's blind indexes rest on, whatever its active one is.

    New indexes are under ``current``. While a rebuild is under way, ``other`` is looked for as well: at first
    the newer version, so that every process knows it before any uses it; then the older one.
    """

    current: int
    other: int | None = None

    @property
    def live(self) -> tuple[int, ...]:
        """All that is to be looked for, the current one first."""
        return (self.current,) if self.other is None else (self.current, self.other)

    @property
    def is_announced(self) -> bool:
        """Whether a rebuild has begun and nothing is written under the newer version yet."""
        return self.other is not None and self.other > self.current


@dataclass(frozen=True, slots=True)
class Key:
    """A tenant's named data key and its settings.

    ``rotation_period`` is the one in force and ``rotation_source`` who decided it; ``rotation_setting``
    is what the vendor set for this key, if anything. ``index`` is None unless the key is searchable.
    Versions below ``decryption_floor`` decrypt no more.
    """

    id: UUID
    tenant_id: UUID
    name: str
    rotation_period: timedelta
    lease_ttl: timedelta
    created_at: datetime
    next_rotation_at: datetime | None = None
    rotation_setting: timedelta | None = None
    rotation_source: RotationSource = RotationSource.DEFAULT
    index: IndexVersions | None = None
    decryption_floor: int = 1
    decryption_floor_set_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class SealedBox:
    """Something encrypted locally under a master key, with AES-256-GCM: ``body`` ends in the tag."""

    master_key_id: str
    iv: bytes
    body: bytes


@dataclass(frozen=True, slots=True)
class Check:
    """One named check of a gate and its verdict."""

    name: str
    passed: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class KeyVersion:
    """One generation of a key: its record as stored, without any plaintext.

    ``sealed_wrapped_key`` is empty in all its parts once the version is destroyed. One that was destroyed
    because its tenant left has the times that it had by then.
    """

    key_id: UUID
    number: int
    state: VersionState
    sealed_wrapped_key: SealedBox
    kms_key_arn: KmsKeyArn
    kms_request_id: str
    rotation_id: UUID
    reason: RotationReason
    requested_by: str
    requested_at: datetime
    generated_at: datetime
    kms_key_material_id: str | None = None
    fingerprint: bytes | None = None
    canary: bytes | None = None
    checks: tuple[Check, ...] = ()
    validated_at: datetime | None = None
    activated_at: datetime | None = None
    retired_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def changed_at(self) -> datetime:
        """The latest of its times."""
        times = (self.generated_at, self.validated_at, self.activated_at, self.retired_at, self.ended_at)
        return max(time for time in times if time is not None)


@dataclass(frozen=True, slots=True)
class Rotation:
    """The job that makes version n+1 of a key active.

    ``attempts`` counts how often a worker claimed it, ``deferrals`` how many of those came to nothing
    because KMS was not asked at all.
    """

    OPEN_STATES: ClassVar[frozenset[RotationState]] = frozenset(
        {RotationState.REQUESTED, RotationState.GENERATED, RotationState.VALIDATED}
    )

    id: UUID
    key_id: UUID
    reason: RotationReason
    state: RotationState
    requested_by: str
    requested_at: datetime
    attempts: int = 0
    deferrals: int = 0
    version_number: int | None = None
    failure: str | None = None
    finished_at: datetime | None = None

    @property
    def tries(self) -> int:
        """How many attempts were more than a deferral."""
        return self.attempts - self.deferrals

    @property
    def is_open(self) -> bool:
        """Whether there is work left to do."""
        return self.state in self.OPEN_STATES


@dataclass(frozen=True, slots=True)
class OpenWork:
    """A rotation with the names that its task is published under."""

    tenant: str
    key: str
    rotation: Rotation


@dataclass(frozen=True, slots=True)
class Tick:
    """When a job last began, and when that run ended: None while it runs, or if its worker died."""

    job: Job
    began_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One act of the control plane, as it stands in a tenant's hash chain."""

    tenant_id: UUID
    sequence: int
    at: datetime
    actor: str
    action: str
    details: dict[str, str | int | None]
    previous_hash: bytes
    hash: bytes
