"""Signed reports: what we tell a customer or an auditor, so that nobody can change it unnoticed.

A report is JSON; its signature is Ed25519 over the RFC 8785 canonical JSON of the document without the
member ``signature`` (``docs/spec/report.md``).
"""

import base64
from collections.abc import Collection, Mapping
from typing import Any

import rfc8785

from byok.crypto import hazmat
from byok.crypto.keyring import MasterKeyRing
from byok.errors import ReportNotAuthentic

PURPOSE = "byok/report/1"


def sign_report(ring: MasterKeyRing, kind: str, report: Mapping[str, Any]) -> dict[str, Any]:
    """A signed document of this kind: ``format``, ``kind``, ``report``, ``signature``."""
    document: dict[str, Any] = {"format": PURPOSE, "kind": kind, "report": dict(report)}
    signature = ring.sign(PURPOSE, rfc8785.dumps(document))
    return document | {
        "signature": {
            "algorithm": "Ed25519",
            "master_key_id": signature.master_key_id,
            "public_key": base64.b64encode(signature.public_key).decode(),
            "value": base64.b64encode(signature.value).decode(),
        }
    }


def verify_report(document: Mapping[str, Any], trusted: Collection[bytes]) -> Mapping[str, Any]:
    """The report inside, if one of the ``trusted`` public keys signed it.

    Raises:
        ReportNotAuthentic: changed, signed by somebody else, or no signed report at all.
    """
    try:
        signature = document["signature"]
        public_key = base64.b64decode(signature["public_key"], validate=True)
        value = base64.b64decode(signature["value"], validate=True)
        signed = rfc8785.dumps({name: one for name, one in document.items() if name != "signature"})
        report: Mapping[str, Any] = document["report"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ReportNotAuthentic("this is not a signed report of byok") from error
    if public_key not in trusted:
        raise ReportNotAuthentic(
            "another key than the ones you trust signed this report",
            remedy="byok report public-key prints ours; ask whoever sent the report where it comes from",
        )
    try:
        hazmat.verify(public_key, value, signed)
    except hazmat.NotAuthentic:
        raise ReportNotAuthentic(
            "the report was changed after it was signed", remedy="ask for it again"
        ) from None
    return report
