"""What the services need of time, chance, the lease cache, the queue and the metrics."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID

from byok.core.metric_list import SweeperFinding
from byok.core.model import OpenWork, Rotation, SealedBox
from byok.core.moves import KmsKeyMove
from byok.core.reencryption import Campaign, CampaignState
from byok.core.resealing import Reseal
from byok.ports.kms import RequestMetrics


class Clock(Protocol):
    """The wall clock, in UTC, and a clock that nobody can set."""

    def now(self) -> datetime:
        """The time now, timezone-aware."""

    def ticks(self) -> float:
        """Seconds since some moment of this machine's; goes on while it sleeps, and never back."""

    def sleep(self, seconds: float) -> None:
        """Let the thread wait."""


class Random(Protocol):
    """A cryptographically secure source."""

    def bytes(self, count: int) -> bytes:
        """``count`` random bytes."""

    def fraction(self) -> float:
        """A number in [0, 1), for jitter."""

    def uuid(self) -> UUID:
        """A fresh id; later ids sort behind earlier ones."""


@dataclass(frozen=True, slots=True)
class LeaseId:
    """What a cached lease is filed under. An entry of an older tenant generation is never found."""

    tenant_id: UUID
    generation: int
    key_id: UUID
    version_number: int


@dataclass(frozen=True, slots=True)
class SealedLease:
    """A version secret sealed under the master key, with the time of the KMS Decrypt behind it."""

    box: SealedBox
    decrypted_at: datetime


class Failure(StrEnum):
    """How a process that asked KMS for a lease came away without."""

    OUTAGE = "outage"  # KMS could not be reached
    REFUSED = "refused"  # or the version may not be used: whoever comes next looks for itself
    UNKNOWN = "unknown"  # no version of this number decrypts
    BROKEN = "broken"  # record and KMS key don't belong together: the version is in quarantine


@dataclass(frozen=True, slots=True)
class Failing:
    """That the process which asked KMS last came away without: nobody is to ask again for ``pause``."""

    pause: timedelta
    failure: Failure


@dataclass(frozen=True, slots=True)
class CacheAnswer:
    """What the cache has for a lease. Nothing at all: another process asks KMS just now.

    ``remaining`` is when the cache forgets the lease, by its own clock. ``is_ours``: there is none, and
    the caller is the one to ask KMS and then to `LeaseCache.put` or `LeaseCache.fail`.
    """

    lease: SealedLease | None = None
    remaining: timedelta = timedelta(0)
    is_ours: bool = False
    failing: Failing | None = None


class LeaseCache(Protocol):
    """The shared cache of sealed leases. It may forget anything at any time.

    Every method raises CacheUnavailable.
    """

    def take(self, lease_id: LeaseId, claim: str, claim_for: timedelta, newer_than: datetime) -> CacheAnswer:
        """The lease, if the Decrypt behind it is later than ``newer_than``; else, in the same step, a claim
        on bringing one, void after ``claim_for``, or what hinders that. ``claim`` names the caller."""

    def put(self, lease_id: LeaseId, lease: SealedLease, ttl: timedelta, claim: str) -> None:
        """Keep a lease for ``ttl`` at most, unless there is a newer one; end the caller's claim."""

    def fail(self, lease_id: LeaseId, pause: timedelta, failure: Failure, claim: str) -> None:
        """End the caller's claim without a lease, and have everybody leave KMS alone for ``pause``. Does
        nothing where another has the claim by now: it may fare better."""

    def drop(self, lease_id: LeaseId) -> None:
        """Drop one lease."""

    def purge(self, tenant_id: UUID) -> int:
        """Drop all leases of a tenant; return how many there were."""

    def count(self, tenant_id: UUID) -> int:
        """How many entries of a tenant there are, of any generation. Reads the names of all entries there
        are: for an errand."""

    def ping(self) -> None:
        """Answer if the cache is there."""


class TaskQueue(Protocol):
    """Where work for the workers is published, after the commit that made it.

    Every method raises QueueUnavailable.
    """

    def rotate(self, works: Sequence[OpenWork]) -> None:
        """Publish rotations; each one's reason decides its queue. What nobody waits for goes several to a
        message. Where this raises, some may be published."""

    def backlog(self) -> int:
        """How many rotations wait to be taken by a worker, at most."""

    def checks_waiting(self) -> int:
        """How many validations, probes and looks over tenants' sides wait to be taken by a worker."""

    def syncs_waiting(self) -> int:
        """How many syncs, with the ticks beside them, wait to be taken by a worker."""

    def validate(self, tenant: str, key: str) -> None:
        """Publish a validation of a key's active version."""

    def probe(self, tenant: str) -> None:
        """Publish a liveness probe of a tenant's access."""

    def sync_rotation(self, tenant: str) -> None:
        """Publish a look at what the tenant's KMS key says of rotation."""

    def watch(self, tenant: str) -> None:
        """Publish a look over the tenant's side."""

    def reencrypt(self, campaign: Campaign, delay: timedelta) -> None:
        """Publish a campaign's next batch; no worker begins it before ``delay``, or half a minute."""

    def reseal(self, reseal: Reseal, delay: timedelta) -> None:
        """Publish a reseal's next batch; ``delay`` as of `reencrypt`."""

    def move(self, move: KmsKeyMove) -> None:
        """Publish the next batch of a tenant's move to another KMS key."""

    def ping(self) -> None:
        """Answer if the broker is there."""


class MetricsCollector(Protocol):
    """What counts hand over to be shown: a collector of prometheus_client's."""

    def collect(self) -> Iterable[Any]:
        """The metrics now."""


class Metrics(RequestMetrics, Protocol):
    """What is counted for operators. Never fails. `kms_requested` alone names tenants, a few of them."""

    def rotation_ended(self, rotation: Rotation) -> None:
        """A rotation is done, or failed for good."""

    def rotation_step_took(self, step: str, seconds: float) -> None:
        """``generate``, ``validate`` or ``promote`` of a batch took so long."""

    def rotation_tried_again(self, code: str) -> None:
        """An attempt failed with this error code, and another will follow."""

    def dispatch_held_back(self, reason: str) -> None:
        """Keys that are due were left for later: ``window-full``, ``time-up``, ``queue-deep``,
        ``broker-silent`` or ``database-slow``."""

    def sweeper_found(self, finding: SweeperFinding, count: int) -> None:
        """The sweeper had this to mend."""

    def integrity_alarm(self) -> None:
        """A version's record and the customer's KMS don't belong together: somebody must be paged."""

    def campaign_ended(self, state: CampaignState) -> None:
        """A campaign came to its end."""

    def rows_rewritten(self, count: int) -> None:
        """Rows of the application were re-encrypted."""

    def lease_taken(self, source: str) -> None:
        """This process got a lease from ``cache`` or ``kms``."""

    def leases_held(self, count: int) -> None:
        """This process holds so many leases."""

    def uses_recorded(self, count: int) -> None:
        """This process wrote so many uses to the usage ledger."""

    def stop_reached(self, latency: timedelta) -> None:
        """This process dropped a tenant's leases so long after the stop was noticed."""
