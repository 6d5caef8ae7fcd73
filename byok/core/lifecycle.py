"""Which event leads from which state to which, and what must be true of what is stored. Pure.

The tables in the database refuse the same: `tests/integration/test_schema.py` tries every combination
against both.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Generic, TypeVar

from byok.core.model import (
    Key,
    KeyVersion,
    Rotation,
    RotationEvent,
    RotationState,
    TenantEvent,
    TenantState,
    VersionEvent,
    VersionState,
)
from byok.errors import IllegalTransition, InvariantBroken

_State = TypeVar("_State", bound=StrEnum)
_Event = TypeVar("_Event", bound=StrEnum)


class StateMachine(Generic[_State, _Event]):
    """A transition table: (state, event) → the state that follows."""

    def __init__(self, what: str, transitions: Mapping[tuple[_State, _Event], _State]) -> None:
        self.what = what
        self.transitions = transitions

    def after(self, state: _State, event: _Event) -> _State:
        """The state that follows ``state`` upon ``event``.

        Raises:
            IllegalTransition: the table has no such step.
        """
        following = self.transitions.get((state, event))
        if following is None:
            raise IllegalTransition(f"a {self.what} that is {state} has no step {event.value!r}")
        return following


TENANT_LIFECYCLE = StateMachine(
    "tenant",
    {
        (TenantState.PENDING, TenantEvent.VERIFY): TenantState.ACTIVE,
        (TenantState.ACTIVE, TenantEvent.SUSPEND): TenantState.SUSPENDED,
        (TenantState.SUSPENDED, TenantEvent.RESUME): TenantState.ACTIVE,
        (TenantState.PENDING, TenantEvent.OFFBOARD): TenantState.OFFBOARDED,
        (TenantState.SUSPENDED, TenantEvent.OFFBOARD): TenantState.OFFBOARDED,
    },
)

VERSION_LIFECYCLE = StateMachine(
    "version",
    {
        (VersionState.PENDING, VersionEvent.ACTIVATE): VersionState.ACTIVE,
        (VersionState.PENDING, VersionEvent.REJECT): VersionState.REJECTED,
        (VersionState.ACTIVE, VersionEvent.RETIRE): VersionState.RETIRED,
        (VersionState.ACTIVE, VersionEvent.COMPROMISE): VersionState.COMPROMISED,
        (VersionState.RETIRED, VersionEvent.COMPROMISE): VersionState.COMPROMISED,
        (VersionState.RETIRED, VersionEvent.DESTROY): VersionState.DESTROYED,
        (VersionState.COMPROMISED, VersionEvent.DESTROY): VersionState.DESTROYED,
        (VersionState.PENDING, VersionEvent.SHRED): VersionState.DESTROYED,
        (VersionState.ACTIVE, VersionEvent.SHRED): VersionState.DESTROYED,
        (VersionState.RETIRED, VersionEvent.SHRED): VersionState.DESTROYED,
        (VersionState.COMPROMISED, VersionEvent.SHRED): VersionState.DESTROYED,
        (VersionState.REJECTED, VersionEvent.SHRED): VersionState.DESTROYED,
    },
)

ROTATION_LIFECYCLE = StateMachine(
    "rotation",
    {
        (RotationState.REQUESTED, RotationEvent.GENERATE): RotationState.GENERATED,
        (RotationState.GENERATED, RotationEvent.VALIDATE): RotationState.VALIDATED,
        (RotationState.VALIDATED, RotationEvent.PROMOTE): RotationState.DONE,
        (RotationState.REQUESTED, RotationEvent.FAIL): RotationState.FAILED,
        (RotationState.GENERATED, RotationEvent.FAIL): RotationState.FAILED,
        (RotationState.VALIDATED, RotationEvent.FAIL): RotationState.FAILED,
    },
)

DECRYPTING_STATES = frozenset({VersionState.ACTIVE, VersionState.RETIRED, VersionState.COMPROMISED})

# The times that a version in each state has; the others it must not have, but for those that are free:
# a pending version gets ``validated_at`` on the way, a rejected one may have had it, and of a tenant that
# leaves a version is destroyed in whatever state it is.
_TIMES = ("validated_at", "activated_at", "retired_at", "ended_at")
_HAS: dict[VersionState, frozenset[str]] = {
    VersionState.PENDING: frozenset(),
    VersionState.ACTIVE: frozenset({"validated_at", "activated_at"}),
    VersionState.RETIRED: frozenset({"validated_at", "activated_at", "retired_at"}),
    VersionState.COMPROMISED: frozenset({"validated_at", "activated_at", "retired_at"}),
    VersionState.REJECTED: frozenset({"ended_at"}),
    VersionState.DESTROYED: frozenset({"ended_at"}),
}
_FREE: dict[VersionState, frozenset[str]] = {
    VersionState.PENDING: frozenset({"validated_at"}),
    VersionState.REJECTED: frozenset({"validated_at"}),
    VersionState.DESTROYED: frozenset({"validated_at", "activated_at", "retired_at"}),
}


def may_decrypt(key: Key, version: KeyVersion) -> bool:
    """Whether tokens of a version open: its state allows it, and it is not below its key's floor."""
    return version.state in DECRYPTING_STATES and version.number >= key.decryption_floor


def next_rotation_time(now: datetime, period: timedelta, jitter: float) -> datetime:
    """When a key that was rotated at ``now`` is due again.

    Counted from now, so that a late rotation is not followed by a hurried one, and up to 5 % early,
    so that keys made together do not stay aligned. ``jitter`` is in [0, 1).
    """
    return now + period * (1 - 0.05 * jitter)


MAX_RETRY_DELAY = timedelta(seconds=301)


def latest_wake_time(now: datetime, sweep_period: timedelta) -> datetime:
    """No wake-up time is later than this, unless the clock was ahead when it was set."""
    return now + 2 * max(MAX_RETRY_DELAY, sweep_period)


def retry_delay(attempts: int, jitter: float) -> timedelta:
    """How long a rotation waits after its ``attempts``-th failure: 2 s doubling to 5 min, full jitter."""
    ceiling_seconds = min(300.0, 2.0 * 2 ** min(attempts, 10))
    return timedelta(seconds=1.0 + ceiling_seconds * jitter)


def check_versions(versions: Sequence[KeyVersion], first: int = 1) -> None:
    """Check what must always hold of one key's versions from number ``first`` on, in any order.

    Numbers run on without a gap; at most one is active and one pending; the pending one is
    the newest; every version that was ever usable was validated before; each has the times that its
    state implies, in order.

    Raises:
        InvariantBroken: naming the first contradiction.
    """
    ordered = sorted(versions, key=lambda version: version.number)
    for expected, version in enumerate(ordered, start=first):
        if version.number != expected:
            raise InvariantBroken(f"version numbers have a gap: {expected} is missing")
        _check_version(version)
    for state in (VersionState.ACTIVE, VersionState.PENDING):
        holders = [version.number for version in ordered if version.state is state]
        if len(holders) > 1:
            raise InvariantBroken(f"versions {holders} are {state} at the same time")
        if state is VersionState.PENDING and holders and holders[0] != ordered[-1].number:
            raise InvariantBroken(f"version {holders[0]} is pending but not the newest")


def _check_version(version: KeyVersion) -> None:
    what = f"version {version.number}"
    times = {name: getattr(version, name) for name in _TIMES}
    for name, time in times.items():
        if name in _HAS[version.state] and time is None:
            raise InvariantBroken(f"{what} is {version.state} without {name}")
        allowed = _HAS[version.state] | _FREE.get(version.state, frozenset())
        if name not in allowed and time is not None:
            raise InvariantBroken(f"{what} is {version.state} but has {name}")
    for earlier, later in (("validated_at", "activated_at"), ("activated_at", "retired_at")):
        if times[later] is not None and times[earlier] is None:
            raise InvariantBroken(f"{what} has {later} without {earlier}")
    box = version.sealed_wrapped_key
    destroyed = version.state is VersionState.DESTROYED
    if any(bool(part) is destroyed for part in (box.master_key_id, box.iv, box.body)):
        raise InvariantBroken(f"{what} is {version.state} {'with' if destroyed else 'without'} a wrapped key")
    validated = version.validated_at is not None
    if (version.fingerprint is not None) != validated or (version.canary is not None) != validated:
        raise InvariantBroken(f"{what} has a validation without its results, or results without it")
    known = [version.generated_at, *(time for time in times.values() if time is not None)]
    if known != sorted(known):
        raise InvariantBroken(f"the times of {what} run backwards")


def check_rotation(rotation: Rotation) -> None:
    """Check what must always hold of a rotation.

    Raises:
        InvariantBroken: naming the first contradiction.
    """
    what = f"rotation {rotation.id}"
    if rotation.is_open != (rotation.finished_at is None):
        raise InvariantBroken(f"{what} is {rotation.state} but finished at {rotation.finished_at}")
    if rotation.state is RotationState.FAILED and rotation.failure is None:
        raise InvariantBroken(f"{what} failed without a reason")
    if rotation.state is RotationState.REQUESTED and rotation.version_number is not None:
        raise InvariantBroken(f"{what} is requested but has version {rotation.version_number}")
    has_version = {RotationState.GENERATED, RotationState.VALIDATED, RotationState.DONE}
    if rotation.state in has_version and rotation.version_number is None:
        raise InvariantBroken(f"{what} is {rotation.state} without a version")
