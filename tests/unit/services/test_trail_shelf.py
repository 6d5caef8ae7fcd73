"""Calls on the shelf: strangers come by time, no more at once than was asked for."""

from datetime import UTC, datetime, timedelta

import pytest

from byok.core.cloudtrail import Concern, TrailCall
from byok.errors import ConfigurationError
from byok.services.trail_shelf import TrailShelf, open_shelf

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)


def put(shelf: TrailShelf, call_id: str, at: datetime) -> None:
    assert shelf.put(
        TrailCall(
            call_id, None, at, "Decrypt", "kms", "eu-central-1", None, "p", "ip", "ua", "", Concern.VENDOR
        )
    )


def test_strangers_come_in_pages_by_time_and_those_that_agree_meanwhile_do_not() -> None:
    with open_shelf() as shelf:
        hours = {"e": 0, "d": 1, "c": 2, "b": 30, "a": 31}
        for call_id, passed in hours.items():
            put(shelf, call_id, (NOON + timedelta(hours=passed)).astimezone())
        pages = []
        for page in shelf.stranger_pages(2, timedelta(hours=6)):
            pages.append("".join(one.call_id for one in page))
            shelf._agree("b")
        assert pages == ["ed", "c", "a"]
        assert [one.call_id for one in shelf.strangers(10)] == ["e", "d", "c", "a"]


def test_a_disk_without_room_is_told_in_one_line() -> None:
    def fill() -> None:
        with open_shelf() as shelf:
            shelf._database.execute("PRAGMA max_page_count = 8")
            for number in range(1000):
                put(shelf, f"{number}", NOON)

    with pytest.raises(ConfigurationError, match="can't be kept"):
        fill()
