"""What a campaign does next, without any database."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byok.core.reencryption import (
    CAMPAIGN_LIFECYCLE,
    LISTED_ROWS,
    MAX_PASSES,
    OPEN_STATES,
    Campaign,
    CampaignEvent,
    CampaignState,
    Tally,
    TargetColumn,
    UnreadableRow,
    Verdict,
    add_counts,
    count_below,
    judge,
    known_counts,
    list_unreadable,
)
from byok.errors import IllegalTransition, InvalidInput

CAMPAIGN = Campaign(
    UUID(int=1),
    UUID(int=2),
    CampaignState.RUNNING,
    3,
    "test",
    datetime(2026, 1, 1, tzinfo=UTC),
    pass_number=1,
)
COUNTS = st.dictionaries(st.integers(0, 2**32 - 1), st.integers(0, 1000), max_size=6)


def test_what_has_ended_stays_ended() -> None:
    for state, event in itertools.product(set(CampaignState) - OPEN_STATES, CampaignEvent):
        with pytest.raises(IllegalTransition):
            CAMPAIGN_LIFECYCLE.after(state, event)


@pytest.mark.parametrize(
    ("after", "this_pass", "verdict"),
    [
        ({3: 9}, Tally(), Verdict.FINISH),
        ({3: 9, 4: 1}, Tally(), Verdict.FINISH),
        ({}, Tally(), Verdict.FINISH),
        ({2: 1, 3: 9}, Tally(), Verdict.AGAIN),
        ({2: 1}, Tally(unreadable=1), Verdict.UNREADABLE),
        ({0: 1}, Tally(unreadable=1), Verdict.UNREADABLE),
        ({2: 2}, Tally(unreadable=1), Verdict.AGAIN),
        ({2: 1}, Tally(unreadable=1, conflicts=1), Verdict.AGAIN),
        ({2: 1}, Tally(unreadable=1, rewritten=1), Verdict.AGAIN),
    ],
)
def test_what_follows_from_the_last_count(after: dict[int, int], this_pass: Tally, verdict: Verdict) -> None:
    campaign = replace(CAMPAIGN, after=after, this_pass=this_pass)
    assert judge(campaign, 3) is verdict
    assert judge(campaign, 4) is Verdict.AGAIN  # the key was rotated meanwhile
    tired = judge(replace(campaign, pass_number=MAX_PASSES), 3)
    assert tired is (Verdict.GIVE_UP if verdict is Verdict.AGAIN else verdict)
    accepted = judge(replace(campaign, allow_unreadable=True), 3)
    assert accepted is (Verdict.FINISH if verdict is Verdict.UNREADABLE else verdict)


@given(COUNTS, COUNTS, st.integers(1, 9))
def test_no_value_is_lost_in_counting(left: dict[int, int], right: dict[int, int], newest: int) -> None:
    total = sum(left.values()) + sum(right.values())
    together = known_counts(add_counts(left, right), newest)
    assert sum(together.values()) == total
    assert max(together, default=0) <= newest
    assert count_below(together, newest + 1) == total


@given(st.text(), st.text(max_size=5).filter(lambda text: "{" not in text and "}" not in text))
def test_a_template_is_filled_in_once(row_id: str, around: str) -> None:
    column = TargetColumn("email", f"{around}{{id}}{around}")
    try:
        expected = f"{around}{row_id}{around}".encode()
    except UnicodeEncodeError:
        return
    assert column.context(row_id) == expected


@pytest.mark.parametrize("text", ["", "email", "=x", "email=", "email=users:{pk}", "email={}"])
def test_what_is_no_column_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        TargetColumn.parse(text)


def test_a_column_is_parsed_with_all_that_its_template_holds() -> None:
    assert TargetColumn.parse("email=a=b:{id}") == TargetColumn("email", "a=b:{id}")


def test_rows_are_listed_once_and_not_without_end() -> None:
    rows = [UnreadableRow("email", str(number)) for number in range(LISTED_ROWS + 5)]
    assert list_unreadable(rows[:3], rows[:5]) == tuple(rows[:5])
    assert len(list_unreadable([], rows)) == LISTED_ROWS
