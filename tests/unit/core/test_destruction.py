"""What speaks against destroying a version, each reason alone."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from byok.core.destruction import DEFAULT_UNUSED_FOR, Evidence, Objection, objections, revivable
from byok.core.model import Key, VersionState
from byok.core.usage import VersionUsage
from tests.unit.core.test_lifecycle import version

NOW = datetime(2026, 1, 10, tzinfo=UTC)
DAY, SECOND = timedelta(days=1), timedelta(seconds=1)
KEY = Key(UUID(int=1), UUID(int=2), "pii", DAY, DAY, NOW, decryption_floor=2, decryption_floor_set_at=NOW)
FREE = Evidence("acme", KEY, version(1, VersionState.RETIRED), None, (), (), NOW)


def used(ago: timedelta) -> Evidence:
    return replace(FREE, usage=VersionUsage(1, 17, NOW - 9 * DAY, NOW - ago))


def test_nothing_speaks_against_a_version_below_the_floor_that_nobody_used() -> None:
    assert objections(FREE, DEFAULT_UNUSED_FOR) == []
    assert FREE.unused_for is None


def test_by_default_a_version_is_unused_for_as_long_as_any_lease_lasts() -> None:
    assert objections(used(DAY), DEFAULT_UNUSED_FOR) == []
    (objection,) = objections(used(DAY - SECOND), DEFAULT_UNUSED_FOR)
    assert objection.may_be_forced
    assert "used 23 h ago (2026-01-09 00:00:01Z), 17 times" in objection.why


def test_the_wanted_rest_decides() -> None:
    assert objections(used(SECOND), timedelta(0)) == []
    (objection,) = objections(used(90 * SECOND), DAY)
    assert "used 90 s ago" in objection.why
    assert "unused for 1 d" in objection.why
    assert objections(used(8 * DAY), 30 * DAY)


@pytest.mark.parametrize(
    ("evidence", "word", "may_be_forced"),
    [
        (replace(FREE, key=replace(KEY, decryption_floor=1)), "floor is 1", False),
        (replace(FREE, pins=[Objection("the index emails", "rebuild it")]), "the index emails", False),
        (replace(FREE, unflushed=["worker 7@h"]), "worker 7@h", True),
    ],
)
def test_each_reason_names_itself(evidence: Evidence, word: str, may_be_forced: bool) -> None:
    (objection,) = objections(evidence, DEFAULT_UNUSED_FOR)
    assert word in objection.why
    assert objection.may_be_forced is may_be_forced


def test_what_pins_a_version_comes_before_the_floor_that_it_holds_down() -> None:
    pinned = replace(FREE, key=replace(KEY, decryption_floor=1), pins=[Objection("an index", "rebuild it")])
    assert objections(pinned, DEFAULT_UNUSED_FOR)[0].remedy == "rebuild it"


def test_a_floor_can_revive_what_was_destroyed_within_a_day() -> None:
    destroyed = replace(version(2, VersionState.DESTROYED), ended_at=NOW)
    versions = [version(1, VersionState.RETIRED), destroyed, version(3, VersionState.ACTIVE)]
    assert revivable(versions, 2, NOW + DAY - SECOND) is destroyed
    assert revivable(versions, 1, NOW) is destroyed
    assert revivable(versions, 3, NOW) is None
    assert revivable(versions, 1, NOW + DAY) is None
