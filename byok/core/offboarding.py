"""How a tenant leaves: it waits, its wrapped keys are destroyed, that is certified. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from byok.core.lifecycle import StateMachine
from byok.errors import OutOfBounds

DEFAULT_RETENTION = timedelta(days=30)
MAX_RETENTION = timedelta(days=3650)
# A request to KMS that was under way when the tenant was stopped may still have brought a lease.
UNDER_WAY = timedelta(minutes=1)


class OffboardingState(StrEnum):
    """How far a tenant is on its way out."""

    WAITING = "waiting"  # stopped; its wrapped keys are kept until their day
    CANCELLED = "cancelled"  # it stays
    SHREDDING = "shredding"  # nobody can take it back any more
    SHREDDED = "shredded"  # no wrapped key is left
    CERTIFIED = "certified"  # that was proven and signed


class OffboardingEvent(StrEnum):
    """What happens on the way."""

    CANCEL = "cancel"
    BEGIN = "begin"
    END = "end"
    CERTIFY = "certify"


OFFBOARDING_LIFECYCLE = StateMachine(
    "leaving",
    {
        (OffboardingState.WAITING, OffboardingEvent.CANCEL): OffboardingState.CANCELLED,
        (OffboardingState.WAITING, OffboardingEvent.BEGIN): OffboardingState.SHREDDING,
        (OffboardingState.SHREDDING, OffboardingEvent.END): OffboardingState.SHREDDED,
        (OffboardingState.SHREDDED, OffboardingEvent.CERTIFY): OffboardingState.CERTIFIED,
    },
)

# A signed report as JSON.
Signed = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Offboarding:
    """A tenant's way out.

    Nothing is destroyed before ``shred_after``. ``stop_id`` is the stop that ended its use; None: it was
    never active. ``certificate`` is there from `OffboardingState.CERTIFIED` on, ``access_statement`` once
    somebody tried whether the customer has shut us out.
    """

    id: UUID
    tenant_id: UUID
    state: OffboardingState
    requested_by: str
    requested_at: datetime
    reason: str
    shred_after: datetime
    stop_id: UUID | None = None
    cancelled_at: datetime | None = None
    shredding_at: datetime | None = None
    shredded_at: datetime | None = None
    certificate: Signed | None = None
    access_statement: Signed | None = None


def check_retention(retention: timedelta) -> timedelta:
    """Let a retention within its bounds pass.

    Raises:
        OutOfBounds: it is not 0 to 3650 days.
    """
    if not timedelta(0) <= retention <= MAX_RETENTION:
        raise OutOfBounds(
            f"a retention of {retention.days} days is out of bounds",
            remedy=f"choose 0 to {MAX_RETENTION.days}",
        )
    return retention


def shred_time(stopped_at: datetime, retention: timedelta, longest_lease: timedelta) -> datetime:
    """From when on wrapped keys may be destroyed: after the retention, and after the last lease.

    A process that is cut off from everything answers no stop, and may even be taken for dead. It serves what
    it holds until that ends by its deadline: only then nobody can decrypt.
    """
    return stopped_at + max(retention, longest_lease + UNDER_WAY)
