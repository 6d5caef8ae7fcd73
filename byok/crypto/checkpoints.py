"""Checkpoints of audit chains as signed reports of the kind ``audit-checkpoint``."""

import base64
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from byok.core.audit import ChainPlace
from byok.core.checkpoints import Checkpoint, SignedCheckpoint
from byok.crypto.keyring import MasterKeyRing
from byok.crypto.reports import PURPOSE, sign_report, verify_report
from byok.errors import ReportNotAuthentic

KIND = "audit-checkpoint"


def sign_checkpoint(ring: MasterKeyRing, checkpoint: Checkpoint) -> SignedCheckpoint:
    """Sign with the first master key."""
    key_id = ring.primary_id
    signature = sign_report(ring, KIND, _report(checkpoint, key_id))["signature"]
    public_key, value = (base64.b64decode(signature[name]) for name in ("public_key", "value"))
    return SignedCheckpoint(checkpoint, key_id, public_key, value)


def document_of(signed: SignedCheckpoint) -> dict[str, Any]:
    """The signed report, as it is given to the customer."""
    return {
        "format": PURPOSE,
        "kind": KIND,
        "report": _report(signed.checkpoint, signed.master_key_id),
        "signature": {
            "algorithm": "Ed25519",
            "master_key_id": signed.master_key_id,
            "public_key": base64.b64encode(signed.public_key).decode(),
            "value": base64.b64encode(signed.signature).decode(),
        },
    }


def _report(checkpoint: Checkpoint, master_key_id: str) -> dict[str, str | int]:
    return {
        "at": checkpoint.at.astimezone(UTC).isoformat(timespec="microseconds"),
        "checkpoint": checkpoint.number,
        "hash": checkpoint.place.hash.hex(),
        "master_key_id": master_key_id,  # what stands beside the signature is not signed
        "sequence": checkpoint.place.sequence,
        "tenant_id": str(checkpoint.tenant_id),
    }


def read_checkpoint(document: Mapping[str, Any], trusted: Collection[bytes]) -> Checkpoint:
    """The checkpoint in a signed report, if one of the ``trusted`` public keys signed it.

    Raises:
        ReportNotAuthentic: changed, signed by somebody else, or no checkpoint.
    """
    report = verify_report(document, trusted)
    try:
        if document["kind"] != KIND:
            raise ValueError(document["kind"])
        return Checkpoint(
            UUID(report["tenant_id"]),
            int(report["checkpoint"]),
            ChainPlace(int(report["sequence"]), bytes.fromhex(report["hash"])),
            datetime.fromisoformat(report["at"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ReportNotAuthentic(
            "this signed report is no checkpoint", remedy="byok audit checkpoint TENANT makes one"
        ) from error


def is_signed(signed: SignedCheckpoint) -> bool:
    """Whether the key that is named signed this; not whether that key is to be trusted."""
    try:
        verify_report(document_of(signed), [signed.public_key])
    except ReportNotAuthentic:
        return False
    return True
