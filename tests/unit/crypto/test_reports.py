"""Signed reports: any change is noticed, and whoever has the public key can check them without us."""

import copy
import json
import os
from typing import Any

import pytest

from byok.crypto.hazmat import SecretBytes
from byok.crypto.keyring import MasterKeyRing
from byok.crypto.reports import PURPOSE, read_report, sign_report, verify_report
from byok.errors import ReportNotAuthentic

RING = MasterKeyRing([("new", SecretBytes(bytes(32))), ("old", SecretBytes(b"o" * 32))], os.urandom)
TRUSTED = list(RING.signing_keys(PURPOSE).values())
REPORT = {"tenant": "acme", "latency_ms": 41, "processes": [{"process": "service 1@a", "leases": 2}]}


def signed() -> dict[str, Any]:
    return sign_report(RING, "drill", REPORT)


def test_what_was_signed_is_what_is_read() -> None:
    assert verify_report(signed(), TRUSTED) == REPORT
    assert verify_report(json.loads(json.dumps(signed())), TRUSTED) == REPORT
    assert signed()["signature"]["master_key_id"] == "new"


def test_a_report_of_an_older_master_key_is_still_ours() -> None:
    old = MasterKeyRing([("old", SecretBytes(b"o" * 32))], os.urandom)
    assert verify_report(sign_report(old, "drill", REPORT), TRUSTED) == REPORT


def test_any_change_of_any_leaf_is_noticed() -> None:
    document = signed()
    paths = [path for path in leaves(document) if path != ("signature", "algorithm")]
    assert len(paths) >= 8
    for path in paths:
        if path == ("signature", "master_key_id"):
            continue  # says where the key came from; the key itself decides
        changed = copy.deepcopy(document)
        place: Any = changed
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = 7 if isinstance(place[path[-1]], str) else "x"
        with pytest.raises(ReportNotAuthentic):
            verify_report(changed, TRUSTED)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [leaf for name, one in value.items() for leaf in leaves(one, (*path, name))]
    if isinstance(value, list):
        return [leaf for place, one in enumerate(value) for leaf in leaves(one, (*path, place))]
    return [path]


def test_somebody_elses_signature_counts_for_nothing() -> None:
    other = MasterKeyRing([("new", SecretBytes(b"x" * 32))], os.urandom)
    with pytest.raises(ReportNotAuthentic, match="another key"):
        verify_report(sign_report(other, "drill", REPORT), TRUSTED)


@pytest.mark.parametrize("junk", [{}, {"signature": 1}, {"signature": {"public_key": "?"}}, [], "x", None])
def test_what_is_no_report_is_refused(junk: Any) -> None:
    with pytest.raises(ReportNotAuthentic):
        verify_report(junk, TRUSTED)


def test_numbers_that_are_not_whole_are_not_signed() -> None:
    """Plain JSON libraries write them in another way than RFC 8785: nobody could check without byok."""
    with pytest.raises(TypeError, match=r"report\.bound\.pushed is 306\.0"):
        sign_report(RING, "drill", {"bound": {"pushed": 306.0}})
    with pytest.raises(TypeError, match=r"report\.processes\[1\]\.ms is 0\.5"):
        sign_report(RING, "drill", {"processes": [{"ms": 1}, {"ms": 0.5}]})


def test_a_file_is_read_as_what_was_signed() -> None:
    assert read_report(json.dumps(signed(), indent=2).encode()) == signed()


@pytest.mark.parametrize(
    "text",
    [
        b"no JSON",
        b"\xff\xfe\xff",
        b"[]",
        b"1",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"report": {"passed": true}, "report": {"passed": false}}',
        b'{"report": {"passed": true, "passed": false}}',
        b'{"report": ' + b"9" * 10_000 + b"}",
    ],
    ids=lambda text: str(text[:20]),
)
def test_a_file_that_readers_could_understand_differently_is_no_report(text: bytes) -> None:
    with pytest.raises(ReportNotAuthentic):
        read_report(text)


def test_signing_keys_are_for_one_purpose_each() -> None:
    assert RING.signing_keys("byok/other/1") != RING.signing_keys(PURPOSE)
