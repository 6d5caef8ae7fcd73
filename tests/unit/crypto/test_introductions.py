"""A new signing key is introduced by the old ones: whoever trusts one of them can follow."""

import base64
import copy
import json
import os
from datetime import UTC, datetime

import pytest

from byok.crypto.hazmat import SecretBytes
from byok.crypto.introductions import KIND, introduce
from byok.crypto.keyring import MasterKeyRing
from byok.crypto.reports import PURPOSE, sign_report, verify_report
from byok.errors import ReportNotAuthentic

KEYS = {name: SecretBytes(name.encode().ljust(32, b".")) for name in ("new", "old", "oldest")}
RING = MasterKeyRing(KEYS.items(), os.urandom)
AT = datetime(2026, 11, 28, tzinfo=UTC)


def public_key_of(name: str) -> bytes:
    return MasterKeyRing([(name, KEYS[name])], os.urandom).signing_keys(PURPOSE)[name]


def test_each_older_key_signs_and_whoever_pinned_one_learns_the_new_one() -> None:
    documents = introduce(RING, "new", AT)
    assert [one["signature"]["master_key_id"] for one in documents] == ["old", "oldest"]
    for document, name in zip(documents, ("old", "oldest"), strict=True):
        report = verify_report(json.loads(json.dumps(document)), [public_key_of(name)])
        assert (document["kind"], report["master_key_id"], report["issued_at"]) == (
            KIND,
            "new",
            AT.isoformat(),
        )
        learned = base64.b64decode(report["public_key"])
        assert verify_report(sign_report(RING, "drill", {"passed": True}), [learned]) == {"passed": True}


def test_who_trusts_another_key_or_gets_a_changed_one_learns_nothing() -> None:
    document, _ = introduce(RING, "new", AT)
    with pytest.raises(ReportNotAuthentic):
        verify_report(document, [public_key_of("oldest"), public_key_of("new")])
    changed = copy.deepcopy(document)
    changed["report"]["public_key"] = base64.b64encode(bytes(32)).decode()
    with pytest.raises(ReportNotAuthentic):
        verify_report(changed, [public_key_of("old")])


def test_a_key_that_is_not_first_yet_can_be_introduced_ahead() -> None:
    (by_new, by_oldest) = introduce(RING, "old", AT)
    assert by_new["signature"]["master_key_id"] == "new"
    assert by_oldest["signature"]["master_key_id"] == "oldest"
    assert verify_report(by_new, [public_key_of("new")])["master_key_id"] == "old"
