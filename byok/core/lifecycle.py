"""Which state may follow which, and what must be true of a key's versions. Pure."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum

from byok.core.model import KeyVersion, RotationState, TenantState, VersionState
from byok.errors import IllegalTransition, InvariantBroken

VERSION_TRANSITIONS: frozenset[tuple[VersionState, VersionState]] = frozenset(
    {
        (VersionState.PENDING, VersionState.ACTIVE),
        (VersionState.PENDING, VersionState.REJECTED),
        (VersionState.ACTIVE, VersionState.RETIRED),
        (VersionState.ACTIVE, VersionState.COMPROMISED),
        (VersionState.RETIRED, VersionState.COMPROMISED),
        (VersionState.RETIRED, VersionState.DESTROYED),
        (VersionState.COMPROMISED, VersionState.DESTROYED),
    }
)

ROTATION_TRANSITIONS: frozenset[tuple[RotationState, RotationState]] = frozenset(
    {
        (RotationState.REQUESTED, RotationState.GENERATED),
        (RotationState.GENERATED, RotationState.VALIDATED),
        (RotationState.VALIDATED, RotationState.DONE),
        (RotationState.REQUESTED, RotationState.FAILED),
        (RotationState.GENERATED, RotationState.FAILED),
        (RotationState.VALIDATED, RotationState.FAILED),
    }
)

TENANT_TRANSITIONS: frozenset[tuple[TenantState, TenantState]] = frozenset(
    {
        (TenantState.PENDING, TenantState.ACTIVE),
        (TenantState.ACTIVE, TenantState.SUSPENDED),
        (TenantState.SUSPENDED, TenantState.ACTIVE),
        (TenantState.PENDING, TenantState.OFFBOARDED),
        (TenantState.ACTIVE, TenantState.OFFBOARDED),
        (TenantState.SUSPENDED, TenantState.OFFBOARDED),
    }
)

ENCRYPTING_STATES = frozenset({VersionState.ACTIVE})
DECRYPTING_STATES = frozenset({VersionState.ACTIVE, VersionState.RETIRED, VersionState.COMPROMISED})

_TABLES: dict[type[StrEnum], frozenset[tuple[StrEnum, StrEnum]]] = {
    VersionState: frozenset(VERSION_TRANSITIONS),
    RotationState: frozenset(ROTATION_TRANSITIONS),
    TenantState: frozenset(TENANT_TRANSITIONS),
}


def check_transition(before: StrEnum, after: StrEnum) -> None:
    """Let a step pass that its table names.

    Raises:
        IllegalTransition: the table has no such step.
    """
    if (before, after) not in _TABLES[type(before)]:
        raise IllegalTransition(f"{type(before).__name__} can't go from {before} to {after}")


def next_rotation_time(now: datetime, period: timedelta, jitter: float) -> datetime:
    """When a key that was rotated at ``now`` is due again.

    Counted from now, so that a late rotation is not followed by a hurried one, and up to 5 % early,
    so that keys made together do not stay aligned. ``jitter`` is in [0, 1).
    """
    return now + period * (1 - 0.05 * jitter)


def retry_delay(attempts: int, jitter: float) -> timedelta:
    """How long a rotation waits after its ``attempts``-th failure: 2 s doubling to 5 min, full jitter."""
    ceiling_seconds = min(300.0, 2.0 * 2 ** min(attempts, 10))
    return timedelta(seconds=1.0 + ceiling_seconds * jitter)


def check_versions(versions: Sequence[KeyVersion]) -> None:
    """Check what must always hold of one key's versions, in any order.

    Numbers run 1, 2, 3 … without a gap; at most one is active and one pending; the pending one is
    the newest; every version that was ever usable was validated before; times do not run backwards.

    Raises:
        InvariantBroken: naming the first contradiction.
    """
    ordered = sorted(versions, key=lambda version: version.number)
    for expected, version in enumerate(ordered, start=1):
        if version.number != expected:
            raise InvariantBroken(f"version numbers have a gap: {expected} is missing")
        _check_version(version)
    for state in (VersionState.ACTIVE, VersionState.PENDING):
        holders = [version.number for version in ordered if version.state is state]
        if len(holders) > 1:
            raise InvariantBroken(f"versions {holders} are {state} at the same time")
        if state is VersionState.PENDING and holders and holders[0] != len(ordered):
            raise InvariantBroken(f"version {holders[0]} is pending but not the newest")


def _check_version(version: KeyVersion) -> None:
    number = version.number
    if version.activated_at is not None:
        if version.validated_at is None or version.fingerprint is None:
            raise InvariantBroken(f"version {number} was activated without validation")
        if version.activated_at < version.validated_at:
            raise InvariantBroken(f"version {number} was activated before its validation")
    if version.state in DECRYPTING_STATES and version.activated_at is None:
        raise InvariantBroken(f"version {number} is {version.state} but was never activated")
    if (version.state is VersionState.RETIRED) and version.retired_at is None:
        raise InvariantBroken(f"version {number} is retired without a time of retirement")
