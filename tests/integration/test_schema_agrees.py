"""What the code refuses, the database refuses, and nothing else: both are tried on every combination.

The rows go in by raw SQL, around the code.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
import sqlalchemy as sa

from byok.core.arns import KmsKeyArn
from byok.core.lifecycle import check_rotation, check_versions
from byok.core.model import KeyVersion, Rotation, RotationReason, RotationState, SealedBox, VersionState
from byok.errors import InvariantBroken
from byok.store import schema
from byok.store.rows import from_version
from tests.conftest import empty
from tests.world import kms_key_arn

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TENANT, KEY = UUID(int=1), UUID(int=2)
WHOLE, NOTHING = SealedBox("mk", bytes(12), b"x"), SealedBox("", b"", b"")
TIMES = ("validated_at", "activated_at", "retired_at", "ended_at")


@pytest.fixture(scope="module")
def connection(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A transaction that is never committed, with a key and rotations for versions to belong to."""
    empty(engine)
    with engine.connect() as connection:
        connection.execute(
            schema.tenants.insert().values(
                id=TENANT, name="acme", state="pending", generation=0, external_id="x", created_at=NOW
            )
        )
        connection.execute(
            schema.keys.insert().values(
                id=KEY, tenant_id=TENANT, name="pii", rotation_period_seconds=3600, lease_ttl_seconds=0,
                rotation_source="default", created_at=NOW,
            )
        )  # fmt: skip
        for number in range(1, 5):
            connection.execute(
                schema.rotations.insert().values(
                    id=UUID(int=number), key_id=KEY, reason="forced", state="done", requested_by="test",
                    requested_at=NOW, version_number=number, finished_at=NOW,
                )
            )  # fmt: skip
        yield connection
        connection.rollback()


def version(number: int, state: VersionState, *, has: Sequence[str] | None = None) -> KeyVersion:
    """A version with the given times, or with those that its state implies."""
    implied = {
        VersionState.PENDING: (),
        VersionState.REJECTED: ("ended_at",),
        VersionState.ACTIVE: ("validated_at", "activated_at"),
        VersionState.RETIRED: ("validated_at", "activated_at", "retired_at"),
        VersionState.COMPROMISED: ("validated_at", "activated_at", "retired_at"),
        VersionState.DESTROYED: TIMES,
    }
    times = {
        name: NOW + timedelta(seconds=TIMES.index(name) + 1)
        for name in (implied[state] if has is None else has)
    }
    validated = "validated_at" in times
    made = KeyVersion(
        key_id=KEY,
        number=number,
        state=state,
        sealed_wrapped_key=NOTHING if state is VersionState.DESTROYED else WHOLE,
        kms_key_arn=KmsKeyArn.parse(kms_key_arn()),
        kms_request_id="r",
        rotation_id=UUID(int=number),
        reason=RotationReason.FORCED,
        requested_by="test",
        requested_at=NOW,
        generated_at=NOW,
        fingerprint=bytes([number]) * 32 if validated else None,
        canary=b"c" if validated else None,
    )
    return replace(made, **times)  # type: ignore[arg-type]  # the names are those of times


def database_takes(connection: sa.Connection, statements: Sequence[sa.Executable]) -> bool:
    savepoint = connection.begin_nested()
    try:
        for statement in statements:
            connection.execute(statement)
    except sa.exc.IntegrityError:
        return False
    finally:
        savepoint.rollback()
    return True


def code_takes_versions(versions: Sequence[KeyVersion]) -> bool:
    try:
        check_versions(versions)
    except InvariantBroken:
        return False
    return True


def disagreements(connection: sa.Connection, cases: Sequence[Sequence[KeyVersion]]) -> list[str]:
    found, taken = [], 0
    for versions in cases:
        rows = [schema.key_versions.insert().values(from_version(one)) for one in versions]
        code, database = code_takes_versions(versions), database_takes(connection, rows)
        taken += code
        if code != database:
            times = [{name: getattr(one, name) for name in ("state", "number", *TIMES)} for one in versions]
            found.append(f"code {code}, database {database}: {times}")
    assert 0 < taken < len(cases)
    return found


def test_on_every_state_with_every_set_of_times(connection: sa.Connection) -> None:
    subsets = [has for count in range(5) for has in itertools.combinations(TIMES, count)]
    cases = [[version(1, state, has=has)] for state in VersionState for has in subsets]
    assert len(cases) == 6 * 16
    assert disagreements(connection, cases) == []


def test_on_validations_with_half_of_their_results(connection: sa.Connection) -> None:
    whole = version(1, VersionState.ACTIVE)
    cases = [
        [whole],
        [replace(whole, fingerprint=None)],
        [replace(whole, canary=None)],
        [replace(version(1, VersionState.PENDING), fingerprint=bytes(32), canary=b"c")],
    ]
    assert disagreements(connection, cases) == []


def test_on_every_state_with_every_part_of_a_wrapped_key(connection: sa.Connection) -> None:
    boxes = itertools.product(("", "mk"), (b"", bytes(12)), (b"", b"x"))
    cases = [
        [replace(version(1, state), sealed_wrapped_key=SealedBox(*parts))]
        for parts in boxes
        for state in VersionState
    ]
    assert len(cases) == 8 * 6
    assert disagreements(connection, cases) == []


def test_on_times_that_run_backwards(connection: sa.Connection) -> None:
    whole = version(1, VersionState.DESTROYED)
    names = ("generated_at", *TIMES)
    times = [getattr(whole, name) for name in names]
    cases = [
        [replace(whole, **dict(zip(names, permutation, strict=True)))]
        for permutation in itertools.permutations(times)
    ]
    assert disagreements(connection, cases) == []


def test_on_every_row_of_up_to_three_versions_with_and_without_gaps(connection: sa.Connection) -> None:
    cases = [
        [version(number, state) for number, state in zip(numbers, states, strict=True)]
        for numbers in [(1,), (2,), (1, 2), (1, 3), (2, 3), (1, 2, 3), (1, 2, 4)]
        for states in itertools.product(VersionState, repeat=len(numbers))
    ]
    assert len(cases) == 2 * 6 + 3 * 36 + 2 * 216
    assert disagreements(connection, cases) == []


def test_on_every_rotation(connection: sa.Connection) -> None:
    found, taken = [], 0
    options = itertools.product(RotationState, (None, 1), (None, "why"), (None, NOW))
    for state, number, failure, finished_at in options:
        rotation = Rotation(
            UUID(int=9), KEY, RotationReason.FORCED, state, "test", NOW,
            version_number=number, failure=failure, finished_at=finished_at,
        )  # fmt: skip
        row = schema.rotations.insert().values(
            id=rotation.id, key_id=KEY, reason="forced", state=state, requested_by="test", requested_at=NOW,
            version_number=number, failure=failure, finished_at=finished_at,
            wake_at=NOW if rotation.is_open else None,
        )  # fmt: skip
        try:
            check_rotation(rotation)
            code = True
        except InvariantBroken:
            code = False
        taken += code
        if code != database_takes(connection, [row]):
            found.append(f"code {code}: {rotation}")
    assert found == []
    assert taken == 5 * 2
