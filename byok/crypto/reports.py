"""Signed reports: what we tell a customer or an auditor, so that nobody can change it unnoticed.

A report is JSON; its signature is Ed25519 over the RFC 8785 canonical JSON of the document without the
member ``signature`` (``docs/spec/report.md``).
"""

import base64
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import rfc8785

from byok.crypto import hazmat
from byok.crypto.keyring import MasterKeyRing
from byok.errors import ReportNotAuthentic

PURPOSE = "byok/report/1"


def sign_report(
    ring: MasterKeyRing, kind: str, report: Mapping[str, Any], master_key_id: str | None = None
) -> dict[str, Any]:
    """A signed document of this kind: ``format``, ``kind``, ``report``, ``signature``; by the ring's first
    key, or by ``master_key_id``.

    Raises:
        TypeError: a number is not whole.
    """
    _refuse_floats(report, "report")
    document: dict[str, Any] = {"format": PURPOSE, "kind": kind, "report": dict(report)}
    signature = ring.sign(PURPOSE, rfc8785.dumps(document), master_key_id)
    return document | {
        "signature": {
            "algorithm": "Ed25519",
            "master_key_id": signature.master_key_id,
            "public_key": base64.b64encode(signature.public_key).decode(),
            "value": base64.b64encode(signature.value).decode(),
        }
    }


def _refuse_floats(value: object, path: str) -> None:
    # RFC 8785 writes 306.0 as 306, which no plain JSON library does: who checks without byok would fail.
    if isinstance(value, float):
        raise TypeError(f"{path} is {value!r}: numbers in signed reports are whole")
    if isinstance(value, Mapping):
        for name, one in value.items():
            _refuse_floats(one, f"{path}.{name}")
    elif isinstance(value, list | tuple):
        for place, one in enumerate(value):
            _refuse_floats(one, f"{path}[{place}]")


def read_report(text: bytes) -> Mapping[str, Any]:
    """The document in a file, for `verify_report`; nothing of it is to be believed yet.

    Raises:
        ReportNotAuthentic: it is no JSON object, or names a member twice.
    """
    try:
        document = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ReportNotAuthentic("this is not a signed report of byok") from error
    if not isinstance(document, Mapping):
        raise ReportNotAuthentic("this is not a signed report of byok")
    return document


def _unique(members: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose members are named once each: of two, readers would believe different ones."""
    document = dict(members)
    if len(document) < len(members):
        raise ReportNotAuthentic("a member is named twice in one object of the report")
    return document


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
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
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
