"""What the services need of PostgreSQL."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from byok.core.dispatch import DueKey, DueWork, Place
from byok.core.model import (
    Check,
    Connection,
    IndexVersions,
    Job,
    Key,
    KeyVersion,
    KmsKeyRotation,
    Suspension,
    Tenant,
    TenantEvent,
    Tick,
    VersionEvent,
)
from byok.core.resealing import RecordKind
from byok.ports.audit import AuditLog, SignedCheckpoints
from byok.ports.campaigns import Campaigns, Targets
from byok.ports.counts import Counts
from byok.ports.due_times import DueTimes
from byok.ports.fleet import Members, Stops
from byok.ports.lookout import AuditCheckpoints, Findings
from byok.ports.moves import Moves
from byok.ports.offboarding import Offboardings, Remains
from byok.ports.request_log import RequestLogTable
from byok.ports.resealing import Reseals, SealedRecords
from byok.ports.rotations import Rotations
from byok.ports.usage import Usage
from byok.ports.webhooks import Outbox


class Tenants(Protocol):
    """The tenants table."""

    def add(self, tenant: Tenant) -> None:
        """Raises DuplicateTenant."""

    def get(self, name: str) -> Tenant:
        """Raises UnknownTenant."""

    def get_by_id(self, tenant_id: UUID) -> Tenant:
        """Raises UnknownTenant."""

    def get_all(self, tenant_ids: Collection[UUID]) -> Mapping[UUID, Tenant]:
        """Tenants by id."""

    def list(self) -> Sequence[Tenant]:
        """All tenants, by name."""

    def list_suspended(self, limit: int) -> Sequence[Tenant]:
        """Suspended tenants, the latest first, but for those that leave: nobody has to mend that."""

    def set_connection(self, tenant: Tenant, connection: Connection, *, shared: bool) -> None:
        """Connect a pending tenant.

        Raises:
            KmsKeyTaken, RoleTaken: unless ``shared`` says that other tenants may have them, too.
            LostRace: the tenant is not pending any more.
        """

    def lock(self, tenant_id: UUID) -> Tenant:
        """A tenant's row, locked until the transaction ends. Raises UnknownTenant."""

    def hold_all(self, tenant_ids: Collection[UUID]) -> Mapping[UUID, Tenant]:
        """Tenants by id, which nobody moves to another connection until the transaction ends."""

    def move(self, tenant: Tenant, connection: Connection, at: datetime, *, shared: bool) -> Tenant:
        """Give an active tenant another connection, verified ``at``, in its next generation. It is probed,
        synced and looked over anew at once.

        Raises:
            KmsKeyTaken, RoleTaken: unless ``shared``; LostRace: it is not what ``tenant`` says any more.
        """

    def set_kms_key_rotation(self, tenant: Tenant, rotation: KmsKeyRotation, at: datetime) -> None:
        """Keep what the customer's KMS says of rotation, and when its own was last seen on."""

    def set_looked_at(self, tenant_id: UUID, at: datetime) -> None:
        """Note when the last look over the tenant's side began that got an answer."""

    def least_recently_looked_at(self) -> datetime | None:
        """When that was for the active or suspended tenant that waits longest; None: there is none."""

    def set_outage_wait(self, tenant: Tenant, wait: timedelta) -> None:
        """Write how long calls wait for the tenant's KMS in an outage."""

    def set_webhook_url(self, tenant: Tenant, url: str | None) -> None:
        """Write where the customer is told of findings; None: nowhere."""

    def lock_due_probes(self, now: datetime, limit: int) -> Sequence[tuple[Tenant, timedelta | None]]:
        """Lock active and suspended tenants whose probe is due, each with its shortest lease TTL above
        zero; skip what others locked."""

    def set_next_probes(self, times: Mapping[UUID, datetime]) -> None:
        """Write when tenants are to be probed next."""

    def probe_by(self, tenant_id: UUID, at: datetime) -> None:
        """See that a tenant is probed no later than then."""

    def replace_suspension(self, tenant: Tenant, suspension: Suspension) -> Tenant:
        """Suspended for another reason, in its next generation. Raises LostRace."""

    def transition(
        self, tenant: Tenant, event: TenantEvent, at: datetime, suspension: Suspension | None = None
    ) -> Tenant:
        """Move to the state that follows and to the next generation; ``active`` notes the verification.

        Raises:
            IllegalTransition: the table has no such step.
            LostRace: the tenant's state is not what ``tenant`` says any more; for a verification, its
                connection is not, either.
        """


class Keys(Protocol):
    """The keys table."""

    def add(self, key: Key) -> None:
        """Raises DuplicateKey."""

    def get(self, tenant: Tenant, name: str) -> Key:
        """Raises UnknownKey."""

    def get_by_id(self, key_id: UUID) -> Key:
        """Raises UnknownKey."""

    def list(self, tenant_id: UUID) -> Sequence[Key]:
        """A tenant's keys, by name."""

    def update(self, key: Key) -> None:
        """Write a key's settings and its next due time, not its blind index or decryption floor."""

    def set_index(self, key: Key, index: IndexVersions) -> None:
        """Compare and swap what a key's blind indexes rest on.

        Raises:
            LostRace: it is not what ``key`` says any more, or a version of it does not decrypt.
        """

    def set_decryption_floor(self, key: Key, floor: int, at: datetime) -> Key:
        """Write the floor below which versions decrypt no more; the key as it is afterwards."""

    def longest_lease_ttl(self) -> timedelta:
        """The longest of all keys; reads the whole table. Zero where there is no key."""

    def lock(self, key_id: UUID) -> Key:
        """The key's row, locked until the transaction ends: the lock that orders changes of its versions."""

    def get_all(self, key_ids: Collection[UUID]) -> Mapping[UUID, Key]:
        """Keys by id."""

    def lock_all(self, key_ids: Collection[UUID]) -> Mapping[UUID, Key]:
        """As `lock`, for many at once."""

    def set_next_rotations(self, times: Mapping[UUID, datetime]) -> None:
        """Write when keys are due next."""

    def list_due(self, now: datetime, after: Place | None, limit: int) -> Sequence[DueKey]:
        """Keys that are due, in the order of their places, from behind ``after``."""

    def lock_due(self, key_ids: Sequence[UUID], now: datetime) -> Sequence[DueWork]:
        """Lock those of the keys that are still due, of active tenants and without an open rotation; skip
        what others locked."""


class Versions(Protocol):
    """The key_versions table."""

    def add(self, versions: Sequence[KeyVersion]) -> None:
        """Insert one or many. Raises LostRace: one of this number, or another pending one, exists."""

    def get(self, key_id: UUID, number: int) -> KeyVersion:
        """Raises UnknownVersion."""

    def list(self, key_id: UUID) -> Sequence[KeyVersion]:
        """All versions of a key, by number."""

    def list_since_active(self, key_ids: Sequence[UUID]) -> Mapping[UUID, Sequence[KeyVersion]]:
        """Of each key, by number, its active version and those after it; all, where none is active.
        Without their reports."""

    def find_active(self, key_id: UUID) -> KeyVersion | None:
        """The version that encrypts, if there is one."""

    def set_validated(self, versions: Sequence[KeyVersion], at: datetime) -> None:
        """Note that pending versions passed their gates, with the checks, fingerprints and canaries that
        they carry.

        Raises:
            LostRace: one is not pending any more.
            ValidationFailed: the fingerprint of one is that of an earlier version of its key.
        """

    def set_checks(self, version: KeyVersion, checks: Sequence[Check]) -> None:
        """Replace the report that is stored with a version."""

    def list_orphans(self, limit: int) -> Sequence[KeyVersion]:
        """Lock pending versions whose rotation has ended without them."""

    def transition(self, versions: Sequence[KeyVersion], event: VersionEvent, at: datetime) -> None:
        """Compare and swap, all of them. Raises IllegalTransition; LostRace: one is not what it was."""


class Ticks(Protocol):
    """The ticks table."""

    def begin(self, job: Job, now: datetime, period: timedelta) -> bool:
        """Whether the job is due, and nobody else has it; it counts as begun then."""

    def end(self, job: Job, began_at: datetime, now: datetime) -> None:
        """Note that the run which began then has ended."""

    def read_cursor(self, job: Job) -> str | None:
        """Where the last run left off."""

    def set_cursor(self, job: Job, cursor: str | None, *, more: bool) -> None:
        """Note where the next run goes on. With ``more`` to do the job is due again at once."""

    def list(self) -> Sequence[Tick]:
        """The last run of each job."""


class Transaction(Protocol):
    """One database transaction; its parts share it."""

    @property
    def tenants(self) -> Tenants:
        """The tenants."""

    @property
    def keys(self) -> Keys:
        """The keys."""

    @property
    def versions(self) -> Versions:
        """The versions."""

    @property
    def rotations(self) -> Rotations:
        """The rotations."""

    @property
    def ticks(self) -> Ticks:
        """The ticks."""

    @property
    def members(self) -> Members:
        """The members of the fleet."""

    @property
    def stops(self) -> Stops:
        """The stops."""

    @property
    def usage(self) -> Usage:
        """The usage ledger."""

    @property
    def targets(self) -> Targets:
        """The targets of re-encryption."""

    @property
    def campaigns(self) -> Campaigns:
        """The campaigns."""

    @property
    def moves(self) -> Moves:
        """The moves between KMS keys."""

    @property
    def counts(self) -> Counts:
        """Numbers for a glance."""

    @property
    def validations(self) -> DueTimes:
        """When keys are to be validated."""

    @property
    def syncs(self) -> DueTimes:
        """When tenants are to be synced."""

    @property
    def watches(self) -> DueTimes:
        """When tenants' sides are to be looked over."""

    @property
    def findings(self) -> Findings:
        """What the watch found."""

    @property
    def audit_checkpoints(self) -> AuditCheckpoints:
        """How far audit chains are verified."""

    @property
    def outbox(self) -> Outbox:
        """The messages to customers' endpoints."""

    @property
    def offboardings(self) -> Offboardings:
        """The ways out of tenants."""

    @property
    def remains(self) -> Remains:
        """What is left of tenants that leave."""

    @property
    def request_log(self) -> RequestLogTable:
        """The log of requests to KMS and STS."""

    @property
    def audit(self) -> AuditLog:
        """The audit log."""

    @property
    def reseals(self) -> Reseals:
        """The reseals."""

    @property
    def sealed(self) -> Mapping[RecordKind, SealedRecords]:
        """The sealed records of each kind."""

    @property
    def signed_checkpoints(self) -> SignedCheckpoints:
        """What was signed of the audit log."""


class Store(Protocol):
    """PostgreSQL. Everything raises StoreUnavailable when it can't be reached."""

    def transaction(self) -> AbstractContextManager[Transaction]:
        """A transaction that commits when the block ends well and rolls back when it raises."""

    def ping(self) -> None:
        """Answer if the database is there and migrated."""
