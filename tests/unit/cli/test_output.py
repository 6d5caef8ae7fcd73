"""Durations as people write them."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byok.cli.output import parse_duration, show_duration
from byok.errors import InvalidInput


@given(st.integers(0, 315_360_000))
def test_what_is_shown_parses_back(seconds: int) -> None:
    duration = timedelta(seconds=seconds)
    assert parse_duration(show_duration(duration)) == duration


@pytest.mark.parametrize(
    ("text", "seconds"), [("90d", 7_776_000), ("1h", 3600), ("30m", 1800), ("45s", 45), ("0", 0), ("7", 7)]
)
def test_units(text: str, seconds: int) -> None:
    assert parse_duration(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "h", "1w", "-1h", "1.5h", "1h30m", "9" * 13, "99999999999d", "１h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_duration(text)
