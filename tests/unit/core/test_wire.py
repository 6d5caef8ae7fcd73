"""Tokens and associated data, byte by byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byok.core import wire
from byok.core.wire import MalformedToken, Token, associated_data, format_token, parse_token


@given(st.integers(1, wire.MAX_VERSION_NUMBER), st.binary(min_size=24, max_size=24), st.binary(min_size=16))
def test_what_is_formatted_parses_back(number: int, nonce: bytes, body: bytes) -> None:
    token = format_token(number, nonce, body)
    assert parse_token(token) == Token(number, nonce, body)
    assert len(token) == 5 + 24 + len(body)


@pytest.mark.parametrize(
    ("token", "why"),
    [
        (b"", "shorter"),
        (bytes(44), "shorter"),
        (b"\x00" + bytes(44), "prefix"),
        (b"\x02" + bytes(3) + b"\x01" + bytes(40), "prefix"),
        (b"\x01" + bytes(44), "version number 0"),
    ],
)
def test_malformed_tokens_are_rejected_in_order(token: bytes, why: str) -> None:
    with pytest.raises(MalformedToken, match=why):
        parse_token(token)


Parts = st.lists(st.text(max_size=5), max_size=4)


@given(st.text(max_size=5), Parts, st.text(max_size=5), Parts)
def test_different_parts_never_encode_alike(one: str, parts: list[str], two: str, others: list[str]) -> None:
    same = [one, *parts] == [two, *others]
    assert (associated_data(one, *parts) == associated_data(two, *others)) == same
