"""Every state against every event, and every contradiction that versions can hold."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

import pytest

from byok.core import lifecycle
from byok.core.arns import KmsKeyArn
from byok.core.lifecycle import StateMachine
from byok.core.model import (
    KeyVersion,
    Rotation,
    RotationEvent,
    RotationReason,
    RotationState,
    SealedBox,
    TenantEvent,
    TenantState,
    VersionEvent,
    VersionState,
)
from byok.errors import IllegalTransition, InvariantBroken
from tests.world import kms_key_arn

NOW = datetime(2026, 1, 1, tzinfo=UTC)
V = VersionState

# Written out again, by name: a change of the tables must be meant.
STEPS: dict[str, tuple[StateMachine[Any, Any], type[StrEnum], type[StrEnum], dict[tuple[str, str], str]]] = {
    "tenant": (
        lifecycle.TENANT_LIFECYCLE,
        TenantState,
        TenantEvent,
        {
            ("pending", "verify"): "active",
            ("pending", "offboard"): "offboarded",
            ("active", "suspend"): "suspended",
            ("suspended", "resume"): "active",
            ("suspended", "offboard"): "offboarded",
        },
    ),
    "version": (
        lifecycle.VERSION_LIFECYCLE,
        VersionState,
        VersionEvent,
        {
            ("pending", "activate"): "active",
            ("pending", "reject"): "rejected",
            ("active", "retire"): "retired",
            ("active", "compromise"): "compromised",
            ("retired", "compromise"): "compromised",
            ("retired", "destroy"): "destroyed",
            ("compromised", "destroy"): "destroyed",
            **{
                (state, "shred"): "destroyed"
                for state in ("pending", "active", "retired", "compromised", "rejected")
            },
        },
    ),
    "rotation": (
        lifecycle.ROTATION_LIFECYCLE,
        RotationState,
        RotationEvent,
        {
            ("requested", "generate"): "generated",
            ("requested", "fail"): "failed",
            ("generated", "validate"): "validated",
            ("generated", "fail"): "failed",
            ("validated", "promote"): "done",
            ("validated", "fail"): "failed",
        },
    ),
}
EVERY_PAIR = [
    (what, state, event)
    for what, (_, states, events, _) in STEPS.items()
    for state, event in itertools.product(states, events)
]


@pytest.mark.parametrize(("what", "state", "event"), EVERY_PAIR)
def test_each_event_in_each_state_leads_on_or_is_refused(what: str, state: StrEnum, event: StrEnum) -> None:
    machine, _, _, steps = STEPS[what]
    if (following := steps.get((state.value, event.value))) is not None:
        assert machine.after(state, event).value == following
    else:
        with pytest.raises(IllegalTransition, match=f"a {what} that is {state} has no step '{event}'"):
            machine.after(state, event)


@pytest.mark.parametrize("what", STEPS)
def test_every_state_but_the_first_is_reached_and_final_states_stay(what: str) -> None:
    machine, states, _, _ = STEPS[what]
    reached = set(machine.transitions.values())
    assert {state for state in states if state not in reached} == {next(iter(states))}
    left = {state for state, _ in machine.transitions}
    assert {str(state) for state in states if state not in left} <= {
        "offboarded", "rejected", "destroyed", "done", "failed",
    }  # fmt: skip


NOTHING = SealedBox("", b"", b"")


def version(number: int, state: VersionState) -> KeyVersion:
    was_active = state in (V.ACTIVE, V.RETIRED, V.COMPROMISED, V.DESTROYED)
    return KeyVersion(
        key_id=UUID(int=1),
        number=number,
        state=state,
        sealed_wrapped_key=NOTHING if state is V.DESTROYED else SealedBox("mk", bytes(12), b"x"),
        kms_key_arn=KmsKeyArn.parse(kms_key_arn()),
        kms_request_id="r",
        rotation_id=UUID(int=number),
        reason=RotationReason.FORCED,
        requested_by="test",
        requested_at=NOW,
        generated_at=NOW,
        fingerprint=bytes([number]) * 32 if was_active else None,
        canary=b"c" if was_active else None,
        validated_at=NOW if was_active else None,
        activated_at=NOW if was_active else None,
        retired_at=NOW if state in (V.RETIRED, V.COMPROMISED, V.DESTROYED) else None,
        ended_at=NOW if state in (V.REJECTED, V.DESTROYED) else None,
    )


@pytest.mark.parametrize(
    "states",
    [
        [],
        [V.PENDING],
        [V.ACTIVE],
        [V.REJECTED],
        [V.RETIRED, V.ACTIVE, V.PENDING],
        [V.DESTROYED, V.COMPROMISED, V.REJECTED, V.ACTIVE],
    ],
)
def test_sound_versions_pass_in_any_order(states: list[VersionState]) -> None:
    versions = [version(number, state) for number, state in enumerate(states, start=1)]
    lifecycle.check_versions(list(reversed(versions)))


@pytest.mark.parametrize(
    "missing",
    [(), ("retired_at",), ("retired_at", "activated_at"), ("retired_at", "activated_at", "validated_at")],
)
def test_a_version_is_destroyed_from_whatever_state_its_tenant_leaves_it_in(missing: tuple[str, ...]) -> None:
    without: dict[str, Any] = dict.fromkeys(missing)
    if "validated_at" in missing:
        without |= {"fingerprint": None, "canary": None}
    lifecycle.check_versions([replace(version(1, V.DESTROYED), **without)])


BROKEN = {
    "gap": [version(1, V.RETIRED), version(3, V.ACTIVE)],
    "active at the same time": [version(1, V.ACTIVE), version(2, V.ACTIVE)],
    "pending at the same time": [version(1, V.PENDING), version(2, V.PENDING)],
    "not the newest": [version(1, V.PENDING), version(2, V.ACTIVE)],
    "active without validated_at": [replace(version(1, V.ACTIVE), validated_at=None)],
    "run backwards": [replace(version(1, V.ACTIVE), validated_at=NOW + timedelta(seconds=1))],
    "active without activated_at": [replace(version(1, V.ACTIVE), activated_at=None)],
    "retired without retired_at": [replace(version(1, V.RETIRED), retired_at=None)],
    "active but has retired_at": [replace(version(1, V.ACTIVE), retired_at=NOW)],
    "rejected but has activated_at": [replace(version(1, V.REJECTED), activated_at=NOW)],
    "destroyed without ended_at": [replace(version(1, V.DESTROYED), ended_at=None)],
    "destroyed with a wrapped key": [
        replace(version(1, V.DESTROYED), sealed_wrapped_key=SealedBox("mk", bytes(12), b"x"))
    ],
    "has activated_at without validated_at": [
        replace(version(1, V.DESTROYED), validated_at=None, fingerprint=None, canary=None)
    ],
    "has retired_at without activated_at": [replace(version(1, V.DESTROYED), activated_at=None)],
    "without its results": [replace(version(1, V.ACTIVE), fingerprint=None)],
}


@pytest.mark.parametrize("what", BROKEN)
def test_each_contradiction_is_named(what: str) -> None:
    with pytest.raises(InvariantBroken, match=what):
        lifecycle.check_versions(BROKEN[what])


ROTATION = Rotation(UUID(int=1), UUID(int=2), RotationReason.FORCED, RotationState.REQUESTED, "test", NOW)
BROKEN_ROTATIONS = {
    "is done but finished at None": replace(ROTATION, state=RotationState.DONE, version_number=1),
    "is requested but finished": replace(ROTATION, finished_at=NOW),
    "without a reason": replace(ROTATION, state=RotationState.FAILED, finished_at=NOW),
    "is requested but has version 1": replace(ROTATION, version_number=1),
    "generated without a version": replace(ROTATION, state=RotationState.GENERATED),
}


@pytest.mark.parametrize("what", BROKEN_ROTATIONS)
def test_each_contradiction_of_a_rotation_is_named(what: str) -> None:
    lifecycle.check_rotation(ROTATION)
    with pytest.raises(InvariantBroken, match=what):
        lifecycle.check_rotation(BROKEN_ROTATIONS[what])


def test_the_next_rotation_counts_from_now_and_is_at_most_5_percent_early() -> None:
    period = timedelta(days=100)
    assert lifecycle.next_rotation_time(NOW, period, 0.0) == NOW + period
    assert lifecycle.next_rotation_time(NOW, period, 0.999) > NOW + 0.95 * period


def test_retries_wait_longer_each_time_and_never_over_five_minutes() -> None:
    longest = [lifecycle.retry_delay(attempts, 0.999) for attempts in range(1, 20)]
    assert longest == sorted(longest)
    assert longest[-1] <= timedelta(seconds=301)
    assert lifecycle.retry_delay(1, 0.0) == timedelta(seconds=1)
