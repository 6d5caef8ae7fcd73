"""What follows at the end of a pass, and when a master key may go."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from byok.core.resealing import (
    KINDS,
    RecordPlace,
    Reseal,
    ResealState,
    Tally,
    Verdict,
    add_counts,
    judge,
    next_kind,
    next_pass,
)
from byok.core.rings import (
    find_reason_to_keep,
    list_lacking,
    list_sealing,
    list_sealing_elsewhere,
    list_unsaid,
)
from byok.core.stops import Member

NOW = datetime(2026, 11, 28, tzinfo=UTC)
ONE = Reseal(UUID(int=1), "new", ResealState.RUNNING, "a", NOW, kind=None)


@pytest.mark.parametrize(
    ("pass_", "waits_for", "remaining", "elsewhere", "verdict"),
    [
        (Tally(), None, 0, [], Verdict.FINISH),
        (Tally(resealed=5), None, 0, [], Verdict.FINISH),
        (Tally(resealed=5), None, 0, ["worker 1@a"], Verdict.WAIT),
        (Tally(unreadable=2), None, 2, [], Verdict.UNREADABLE),
        (Tally(unreadable=2), None, 2, ["worker 1@a"], Verdict.WAIT),
        (Tally(resealed=5, conflicts=1), None, 1, [], Verdict.AGAIN),
        (Tally(resealed=5, unreadable=2), None, 3, [], Verdict.AGAIN),
        (Tally(conflicts=1), None, 1, [], Verdict.WAIT),  # nothing was done: not at once
        (Tally(conflicts=1), "held", 1, [], Verdict.AGAIN),  # it has waited
    ],
)
def test_the_verdict(
    pass_: Tally, waits_for: str | None, remaining: int, elsewhere: list[str], verdict: Verdict
) -> None:
    assert judge(replace(ONE, this_pass=pass_, waits_for=waits_for), remaining, elsewhere) is verdict


def test_another_pass_begins_at_the_first_record_and_keeps_what_was_done() -> None:
    place = RecordPlace(UUID(int=7), 3)
    walked = replace(ONE, cursor=place, tally=Tally(5, 1, 2), this_pass=Tally(5, 1, 2), waits_for="held")
    again = next_pass(walked)
    assert (again.kind, again.cursor, again.pass_number, again.waits_for) == (KINDS[0], None, 2, None)
    assert (again.tally, again.this_pass) == (Tally(5, 1, 2), Tally())
    assert RecordPlace.parse(str(place)) == place


def test_the_kinds_follow_one_another() -> None:
    walked = [KINDS[0]]
    while (kind := next_kind(walked[-1])) is not None:
        walked.append(kind)
    assert tuple(walked) == KINDS


def test_counts_of_all_kinds_are_added() -> None:
    assert add_counts([{"b": 1, "a": 2}, {"b": 3}]) == {"a": 2, "b": 4}


def test_who_says_nothing_of_its_ring_counts_as_lacking_every_key() -> None:
    members = [
        Member(UUID(int=1), "service", "a", 1, ("new", "old")),
        Member(UUID(int=2), "worker", "a", 2, ("old", "new")),
        Member(UUID(int=3), "worker", "a", 3, ("old",)),
        Member(UUID(int=4), "worker", "a", 4),
    ]
    assert list_lacking(members, "new") == ["worker 3@a", "worker 4@a"]
    assert list_sealing_elsewhere(members, "new") == ["worker 2@a", "worker 3@a", "worker 4@a"]
    assert list_sealing(members, "old") == ["worker 2@a", "worker 3@a"]
    assert list_unsaid(members) == ["worker 4@a"]


@pytest.mark.parametrize(
    ("key", "records", "sealing", "unsaid", "free_at", "reason"),
    [
        ("old", 0, [], [], NOW, None),
        ("old", 0, [], [], NOW + timedelta(hours=1), "leases under it may live until 2026-11-28 01:00:00Z"),
        ("old", 0, [], [], None, "no rotation of the master key has ended: byok master-key rotate"),
        ("old", 0, ["worker 2@a"], [], NOW, "worker 2@a seals under it: restart it with new first"),
        (
            "old",
            0,
            [],
            ["worker 4@a"],
            NOW,
            "worker 4@a is of an older release, and may seal under it: restart it with new first",
        ),
        ("old", 4, [], [], NOW, "records under it: 4; byok master-key rotate"),
        ("new", 0, [], [], NOW, "it is the first: it seals"),
    ],
)
def test_why_a_key_is_to_be_kept(
    key: str,
    records: int,
    sealing: list[str],
    unsaid: list[str],
    free_at: datetime | None,
    reason: str | None,
) -> None:
    found = find_reason_to_keep(
        key,
        first="new",
        records=records,
        sealing=sealing,
        unsaid=unsaid,
        free_of_leases_at=free_at,
        now=NOW,
    )
    assert found == reason
