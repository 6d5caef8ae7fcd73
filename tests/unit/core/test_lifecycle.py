"""Every state against every state, and every contradiction that versions can hold."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from byok.core import lifecycle
from byok.core.model import (
    KeyVersion,
    KmsKeyArn,
    RotationReason,
    RotationState,
    SealedBox,
    TenantState,
    VersionState,
)
from byok.errors import IllegalTransition, InvariantBroken
from tests.world import kms_key_arn

NOW = datetime(2026, 1, 1, tzinfo=UTC)
V, R, T = VersionState, RotationState, TenantState

LEGAL: dict[type, set[tuple[str, str]]] = {
    V: {
        ("pending", "active"),
        ("pending", "rejected"),
        ("active", "retired"),
        ("active", "compromised"),
        ("retired", "compromised"),
        ("retired", "destroyed"),
        ("compromised", "destroyed"),
    },
    R: {
        ("requested", "generated"),
        ("generated", "validated"),
        ("validated", "done"),
        ("requested", "failed"),
        ("generated", "failed"),
        ("validated", "failed"),
    },
    T: {
        ("pending", "active"),
        ("active", "suspended"),
        ("suspended", "active"),
        ("pending", "offboarded"),
        ("active", "offboarded"),
        ("suspended", "offboarded"),
    },
}


@pytest.mark.parametrize("states", [V, R, T])
def test_each_pair_of_states_is_legal_or_refused(
    states: type[VersionState | RotationState | TenantState],
) -> None:
    for before, after in itertools.product(states, repeat=2):
        if (before.value, after.value) in LEGAL[states]:
            lifecycle.check_transition(before, after)
        else:
            with pytest.raises(IllegalTransition):
                lifecycle.check_transition(before, after)


def version(number: int, state: VersionState) -> KeyVersion:
    was_active = state in (V.ACTIVE, V.RETIRED, V.COMPROMISED, V.DESTROYED)
    return KeyVersion(
        key_id=UUID(int=1),
        number=number,
        state=state,
        sealed_wrapped_key=SealedBox("mk", bytes(12), b"x"),
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
        retired_at=NOW if state in (V.RETIRED, V.COMPROMISED) else None,
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


BROKEN = {
    "gap": [version(1, V.RETIRED), version(3, V.ACTIVE)],
    "active at the same time": [version(1, V.ACTIVE), version(2, V.ACTIVE)],
    "pending at the same time": [version(1, V.PENDING), version(2, V.PENDING)],
    "not the newest": [version(1, V.PENDING), version(2, V.ACTIVE)],
    "without validation": [replace(version(1, V.ACTIVE), validated_at=None)],
    "before its validation": [replace(version(1, V.ACTIVE), validated_at=NOW + timedelta(seconds=1))],
    "never activated": [replace(version(1, V.ACTIVE), activated_at=None)],
    "time of retirement": [replace(version(1, V.RETIRED), retired_at=None)],
}


@pytest.mark.parametrize("what", BROKEN)
def test_each_contradiction_is_named(what: str) -> None:
    with pytest.raises(InvariantBroken, match=what):
        lifecycle.check_versions(BROKEN[what])


def test_the_next_rotation_counts_from_now_and_is_at_most_5_percent_early() -> None:
    period = timedelta(days=100)
    assert lifecycle.next_rotation_time(NOW, period, 0.0) == NOW + period
    assert lifecycle.next_rotation_time(NOW, period, 0.999) > NOW + 0.95 * period


def test_retries_wait_longer_each_time_and_never_over_five_minutes() -> None:
    longest = [lifecycle.retry_delay(attempts, 0.999) for attempts in range(1, 20)]
    assert longest == sorted(longest)
    assert longest[-1] <= timedelta(seconds=301)
    assert lifecycle.retry_delay(1, 0.0) == timedelta(seconds=1)
