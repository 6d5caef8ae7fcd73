"""The tree of errors: stable codes, exit codes, and messages that survive a process boundary."""

import pickle
import re

import pytest

from byok import errors
from byok.errors import ByokError, KmsAccessRevoked


def tree(kind: type[ByokError] = ByokError) -> list[type[ByokError]]:
    found = [kind]
    for child in kind.__subclasses__():
        if child.__module__ == "byok.errors":
            found += tree(child)
    return found


def test_codes_are_unique_slugs() -> None:
    codes = [kind.code for kind in tree()]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z0-9-]+", code) for code in codes)


def test_the_docstring_draws_the_whole_tree_with_its_exit_codes() -> None:
    drawn = errors.__doc__ or ""
    for kind in tree():
        assert re.search(rf"\b{kind.__name__}\b", drawn), kind
        if match := re.search(rf"── {kind.__name__} +exit (\d+)", drawn):
            assert all(one.exit_code == int(match[1]) for one in tree(kind))


@pytest.mark.parametrize("kind", tree())
def test_errors_pickle_by_message_and_remedy(kind: type[ByokError]) -> None:
    again = pickle.loads(pickle.dumps(kind("what", remedy="do")))
    assert type(again) is kind
    assert (again.message, again.remedy, str(again)) == ("what", "do", "what")


def test_the_evidence_of_a_revocation_survives_pickling() -> None:
    refusal = KmsAccessRevoked("no", aws_code="DisabledException", request_id="r-1")
    again = pickle.loads(pickle.dumps(refusal))
    assert (again.aws_code, again.request_id) == ("DisabledException", "r-1")


def test_retryable_is_said_of_outages_only() -> None:
    retryable = {kind.__name__ for kind in tree() if kind.retryable}
    assert retryable == {
        "Unavailable",
        "KmsUnavailable",
        "KmsBackingOff",
        "StoreUnavailable",
        "StoreBusy",
        "CacheUnavailable",
        "QueueUnavailable",
        "ApplicationUnavailable",
    }
