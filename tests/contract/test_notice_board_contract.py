"""Notices over a real Valkey: heard by all who listen, and what cuts them off is noticed."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
import redis

from byok.cache import notices
from byok.cache.notices import CHANNEL, RedisNoticeBoard
from byok.embedded.stack import Stack
from byok.errors import CacheUnavailable
from byok.ports import Notice, Subscription

NOTICE = Notice(uuid4(), uuid4())


@pytest.fixture
def board(stack: Stack) -> Iterator[RedisNoticeBoard]:
    board = RedisNoticeBoard(stack.environment["BYOK_CACHE_URL"])
    yield board
    board.close()


@pytest.fixture
def raw(stack: Stack) -> Iterator["redis.Redis"]:
    raw = redis.Redis.from_url(stack.environment["BYOK_CACHE_URL"])
    yield raw
    raw.acl_setuser("default", enabled=True, channels=["*"])
    raw.close()


def test_everybody_who_listens_hears_a_notice(board: RedisNoticeBoard) -> None:
    with board.listen() as one, board.listen() as other:
        for notice in (NOTICE, Notice(uuid4())):
            board.publish(notice)
            assert one.next(5.0) == notice
            assert other.next(5.0) == notice
        assert one.next(0.01) is None


def test_what_is_none_of_ours_is_no_notice(board: RedisNoticeBoard, raw: "redis.Redis") -> None:
    with board.listen() as subscription:
        for junk in (b"", b"x", b"\xff\xfe", f"{uuid4()} x".encode()):
            raw.publish(CHANNEL, junk)
            assert subscription.next(5.0) is None
        board.publish(NOTICE)
        assert subscription.next(5.0) == NOTICE


def test_a_listener_whose_right_is_taken_away_notices(board: RedisNoticeBoard, raw: "redis.Redis") -> None:
    with pytest.raises(CacheUnavailable), board.listen() as subscription:  # noqa: PT012  # both may raise
        raw.acl_setuser("default", enabled=True, reset_channels=True)
        _listen(subscription, times=50)
    with pytest.raises(CacheUnavailable):
        board.publish(NOTICE)


def test_a_connection_that_has_gone_silent_is_given_up(
    board: RedisNoticeBoard, raw: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "_PING_SECONDS", 0.05)
    monkeypatch.setattr(notices, "_SILENCE_SECONDS", 0.3)
    with board.listen() as subscription:
        _listen(subscription, times=10)  # answered pings keep it alive
        raw.client_pause(1000)  # from now on the server answers nobody
        with pytest.raises(CacheUnavailable):
            _listen(subscription, times=20)


def _listen(subscription: Subscription, times: int) -> None:
    for _ in range(times):
        subscription.next(0.1)


def test_a_server_that_is_not_there_is_a_cache_unavailable(unused_port: int) -> None:
    board = RedisNoticeBoard(f"redis://127.0.0.1:{unused_port}/0")
    with pytest.raises(CacheUnavailable):
        board.publish(NOTICE)
    with pytest.raises(CacheUnavailable), board.listen():
        pass
