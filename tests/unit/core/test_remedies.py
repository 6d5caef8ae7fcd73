"""Each way a rotation fails has something to do about it, under a code that exists."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from byok.core import remedies
from byok.core.model import OpenWork, Rotation, RotationReason, RotationState
from byok.errors import GaveUp, failure_text
from tests.unit.test_errors import tree

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WORK = OpenWork(
    "acme",
    "pii",
    Rotation(uuid4(), uuid4(), RotationReason.FORCED, RotationState.FAILED, "test", NOW, attempts=8),
)


def failed(failure: str | None, attempts: int = 8) -> OpenWork:
    return replace(WORK, rotation=replace(WORK.rotation, failure=failure, attempts=attempts))


def test_the_codes_are_those_of_errors() -> None:
    assert set(remedies._BY_CODE) <= {kind.code for kind in tree()}


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (failure_text(GaveUp("8 attempts came to no end")), "its workers died"),
        ("validation-failed: version 2", "byok key show acme pii --json"),
        ("unexpected: KeyError", "docs/runbook.md"),
    ],
)
def test_after_a_failure(failure: str, told: str) -> None:
    assert told in remedies.after_failure(failed(failure))


@pytest.mark.parametrize(
    ("failure", "attempts", "told"),
    [
        (None, 0, "no worker took it"),
        (None, 3, "died over it"),
        ("kms-unavailable: throttled", 3, "it is tried again by itself"),
    ],
)
def test_while_stuck(failure: str | None, attempts: int, told: str) -> None:
    assert told in remedies.while_stuck(failed(failure, attempts))
