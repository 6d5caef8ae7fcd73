"""Shred certificates and access statements as pages for people, in Markdown, from what was signed."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any


def certificate_page(document: Mapping[str, Any]) -> str:
    """The readable page of a signed certificate, ending in a newline."""
    return "\n".join(_certificate(document["report"], document["signature"])) + "\n"


def access_page(document: Mapping[str, Any]) -> str:
    """The readable page of a signed access statement, ending in a newline."""
    report = document["report"]
    ended = "is shut out" if report["shut_out"] else "STILL HAS ACCESS"
    calls = [
        (
            call["operation"],
            call["kms_key_arn"],
            "refused" if call["refused"] else "allowed",
            call["aws_code"],
            call["request_id"],
        )
        for call in report["calls"]
    ]
    lines = [
        f"# Access to the KMS keys of {report['tenant']}",
        "",
        f"The vendor {ended}, tried {report['checked_at']} on every KMS key that it ever had.",
        "",
        *_table(("call", "KMS key", "what AWS said", "code", "request id"), calls),
        *_signed(document["signature"]),
    ]
    return "\n".join(lines) + "\n"


def _certificate(report: Mapping[str, Any], signature: Mapping[str, Any]) -> Iterator[str]:
    versions = [(key["key"], one) for key in report["keys"] for one in key["versions"]]
    yield f"# Shred certificate of {report['tenant']}"
    yield ""
    yield (
        "The wrapped key of every version below is destroyed. Without it nothing that was encrypted under the"
        " version can be decrypted."
        if versions
        else "The tenant never had a key: there was nothing to destroy."
    )
    yield ""
    told = ("tenant_id", "kms_key_arn", "role_arn", "reason", "requested_by", "requested_at", "shred_after")
    facts = [(name.replace("_", " "), report[name] or "–") for name in (*told, "shredding_at", "shredded_at")]
    facts += [("other KMS key", one["kms_key_arn"]) for one in report["other_connections"]]
    yield from _table(("what", "value"), [*facts, ("certificate issued at", report["issued_at"])])
    yield from _section("Proofs", ("check", "verdict", "what was seen"), _proofs(report))
    yield from _section(
        "Destroyed", ("key", "version", "made", "destroyed", "KMS request"), _versions(versions)
    )
    yield from _section("Processes at the stop", ("process", "dropped its leases", "leases"), _stop(report))
    yield from _section(
        "For the customer to remove now", ("what", "how"), _pairs(report, "customer_removes", "how")
    )
    yield from _section("What remains", ("what", "what to do"), _pairs(report, "remains", "remedy"))
    head = report["audit_chain"]
    yield "## Audit log"
    yield ""
    yield f"Its last event before this certificate is number {head['sequence']}, with hash {head['hash']}."
    yield ""
    yield from _signed(signature)


def _proofs(report: Mapping[str, Any]) -> list[Sequence[str]]:
    return [
        (proof["name"], "passed" if proof["passed"] else "FAILED", proof["detail"])
        for proof in report["proofs"]
    ]


def _versions(versions: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Sequence[str]]:
    return [
        (key, str(one["version"]), one["generated_at"], one["destroyed_at"], one["kms_request_id"])
        for key, one in versions
    ]


def _stop(report: Mapping[str, Any]) -> list[Sequence[str]]:
    if report["stop"] is None:
        return []
    return [
        (
            one["process"],
            one["dropped_at"] or "not answered: ended by deadline",
            "–" if one["leases"] is None else str(one["leases"]),
        )
        for one in report["stop"]["processes"]
    ]


def _pairs(report: Mapping[str, Any], member: str, how: str) -> list[Sequence[str]]:
    return [(one["what"], one[how]) for one in report[member]]


def _section(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    if rows:
        yield f"## {title}"
        yield ""
        yield from _table(columns, rows)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        # What people wrote, such as a reason, must not break the table.
        yield f"| {' | '.join(cell.replace('|', '/').replace(chr(10), ' ') for cell in row)} |"
    yield ""


def _signed(signature: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"This page is no evidence: the JSON is, signed by {signature['master_key_id']}. "
        "`byok report verify FILE --public-key KEY` checks it."
    )
