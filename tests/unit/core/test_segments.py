"""The layout of a stream: what a parser rejects first, and which nonce stands where."""

import itertools

import pytest

from byok.core import segments
from byok.core.segments import MalformedStream, StreamHeader, check_segment, format_header, parse_header

HEADER = StreamHeader(7, bytes(range(32)), b"prefix7")


def test_a_header_is_read_as_it_was_written() -> None:
    raw = format_header(HEADER)
    assert raw == b"\x02\x00\x00\x00\x07\x28" + bytes(range(32)) + b"prefix7"
    assert parse_header(raw) == HEADER


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "shorter"),
        (b"\x09" + bytes(43), "shorter"),
        (b"\x01" + bytes(44), "prefix"),
        (b"\x02" + bytes(44), "version number 0"),
        (b"\x02\x00\x00\x00\x01\x27" + bytes(39), "header length"),
        (b"\x02\xff\xff\xff\xff\x29" + bytes(39), "header length"),
    ],
)
def test_the_first_thing_that_is_wrong_is_named(raw: bytes, reason: str) -> None:
    with pytest.raises(MalformedStream, match=reason):
        parse_header(raw)


def test_the_first_segment_leaves_room_for_tinks_header() -> None:
    assert segments.full_segment_bytes(0) + segments.STREAM_HEADER_BYTES - 5 == segments.SEGMENT_BYTES
    assert [segments.full_plaintext_bytes(number) for number in (0, 1, 2)] == [1048520, 1048560, 1048560]


@pytest.mark.parametrize(("number", "shortest"), [(0, 16), (1, 17), (2**32 - 2, 17)])
def test_only_the_segment_of_an_empty_stream_is_empty(number: int, shortest: int) -> None:
    check_segment(number, shortest)
    with pytest.raises(MalformedStream, match="shorter"):
        check_segment(number, shortest - 1)


def test_a_stream_has_fewer_segments_than_its_counter_counts() -> None:
    with pytest.raises(MalformedStream, match="too many"):
        check_segment(2**32 - 1, 17)


def test_no_two_places_share_a_nonce() -> None:
    places = list(itertools.product((0, 1, 2, 255, 256, 2**32 - 1), (False, True)))
    nonces = {segments.segment_nonce(HEADER, number, is_last=is_last) for number, is_last in places}
    assert len(nonces) == len(places)
    assert segments.segment_nonce(HEADER, 258, is_last=True) == b"prefix7\x00\x00\x01\x02\x01"
