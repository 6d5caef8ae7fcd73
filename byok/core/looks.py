"""From what one look at a tenant saw to sightings: which preflight finding speaks of which kind. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from byok.core.findings import Cause, Finding, Verdict
from byok.core.lookout import (
    NEVER_VERIFIED_AFTER,
    NOT_LOOKED_AT_PERIODS,
    FindingKind,
    Seen,
    Severity,
    Sighting,
    severity_by,
)
from byok.core.model import Tenant, TenantState

_MADE_BY_AWS = "AWS_KMS"  # of keys of another origin AWS rotates no material by itself
_LONGEST_DETAIL = 500


@dataclass(frozen=True, slots=True)
class KmsKeyFacts:
    """What DescribeKey says of a KMS key and no check tells: AWS's words, and the days that are set."""

    state: str
    origin: str
    deletion_at: datetime | None = None
    material_expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ConnectionLook:
    """What a preflight found, and what it read on the way; None where it could not be read."""

    findings: Sequence[Finding]
    kms_key: KmsKeyFacts | None = None
    rotates: bool | None = None

    @property
    def our_trouble(self) -> Finding | None:
        """What went wrong on the vendor's side: then the look says nothing of the customer's."""
        ours = (Cause.OUR_IDENTITY, Cause.OUR_POLICY)
        return next((finding for finding in self.findings if finding.cause in ours), None)


_ABOUT_THE_CONNECTION = frozenset(FindingKind) - {
    FindingKind.NEVER_VERIFIED,
    FindingKind.NOT_LOOKED_AT,
    FindingKind.AUDIT_CHAIN_BROKEN,
}
_BY_CAUSE: Mapping[Cause, FindingKind] = {
    Cause.EXTERNAL_ID_NOT_REQUIRED: FindingKind.EXTERNAL_ID_NOT_ENFORCED,
    Cause.EXTERNAL_ID_NOT_CHECKED: FindingKind.EXTERNAL_ID_NOT_ENFORCED,
    Cause.CONTEXT_NOT_ENFORCED: FindingKind.CONTEXT_NOT_ENFORCED,
    Cause.TOO_MANY_RIGHTS: FindingKind.EXCESS_RIGHTS,
}
# The checks that must have come to an end before it can be said that a kind is not there.
_CHECKS: Mapping[FindingKind, frozenset[str]] = {
    FindingKind.EXTERNAL_ID_NOT_ENFORCED: frozenset(
        {"role-refuses-missing-external-id", "role-refuses-wrong-external-id"}
    ),
    FindingKind.CONTEXT_NOT_ENFORCED: frozenset(
        {"foreign-tenant-context-is-refused", "missing-context-is-refused"}
    ),
    FindingKind.EXCESS_RIGHTS: frozenset({"no-unneeded-rights"}),
    FindingKind.ACCESS_BROKEN: frozenset({"round-trip"}),
}
# Told by the KMS key's state, with a deadline where there is one.
_OF_THE_KEY = (Cause.KEY_DISABLED, Cause.KEY_PENDING_DELETION, Cause.KEY_WITHOUT_MATERIAL)
_STATES: Mapping[str, FindingKind] = {
    "Disabled": FindingKind.KMS_KEY_DISABLED,
    "PendingDeletion": FindingKind.KMS_KEY_PENDING_DELETION,
    "PendingReplicaDeletion": FindingKind.KMS_KEY_PENDING_DELETION,
    "PendingImport": FindingKind.KEY_MATERIAL_MISSING,
}
_OF_A_STATE: Mapping[FindingKind, Severity] = {
    FindingKind.KMS_KEY_DISABLED: Severity.URGENT,
    FindingKind.KMS_KEY_PENDING_DELETION: Severity.URGENT,
    FindingKind.KEY_MATERIAL_MISSING: Severity.CRITICAL,
}


def nothing_known() -> Seen:
    """A look that got no answer: the customer's side is as it was."""
    return Seen([], _ABOUT_THE_CONNECTION)


def seen_in(look: ConnectionLook, tenant: Tenant, now: datetime) -> Seen:
    """What a look at an active or suspended tenant's connection saw."""
    sightings = [
        *_of_checks(look.findings),
        *_of_kms_key(look.kms_key, now),
        *_of_rotation(look, tenant),
    ]
    return Seen(sightings, _unknown(look, tenant))


def _of_checks(findings: Sequence[Finding]) -> Iterable[Sighting]:
    found: dict[FindingKind, Sighting] = {}
    for finding in findings:
        if finding.verdict not in (Verdict.FAILED, Verdict.WARNING) or finding.cause in _OF_THE_KEY:
            continue
        kind = None if finding.cause is None else _BY_CAUSE.get(finding.cause)
        if kind is None and finding.verdict is Verdict.FAILED:
            kind = FindingKind.ACCESS_BROKEN
        if kind is not None:
            found.setdefault(kind, _sighting(kind, finding))
    return found.values()


def _sighting(kind: FindingKind, finding: Finding) -> Sighting:
    detail = {"check": finding.check, "seen": finding.seen, "cause": str(finding.cause)}
    severity = Severity.WARNING if finding.verdict is Verdict.WARNING else Severity.URGENT
    if kind in (FindingKind.ACCESS_BROKEN, FindingKind.EXCESS_RIGHTS):
        detail["explanation"] = finding.explanation
    if kind is FindingKind.ACCESS_BROKEN:
        detail["remedy"] = finding.remedy
    return Sighting(kind, severity, {name: text[:_LONGEST_DETAIL] for name, text in detail.items() if text})


def _of_kms_key(key: KmsKeyFacts | None, now: datetime) -> Iterable[Sighting]:
    if key is None:
        return
    kind = _STATES.get(key.state)
    if kind is not None:
        at = key.deletion_at if kind is FindingKind.KMS_KEY_PENDING_DELETION else None
        severity = _OF_A_STATE[kind] if at is None else severity_by(at, now)
        yield Sighting(kind, severity, {"state": key.state}, at)
    expires_at = key.material_expires_at
    if expires_at is not None and kind is not FindingKind.KEY_MATERIAL_MISSING:
        yield Sighting(FindingKind.KEY_MATERIAL_EXPIRING, severity_by(expires_at, now), {}, expires_at)


def _of_rotation(look: ConnectionLook, tenant: Tenant) -> Iterable[Sighting]:
    if look.rotates is not False or _knows_no_rotation(look.kms_key):
        return
    was_on_at = tenant.kms_key_rotation_on_at
    if was_on_at is None:
        yield Sighting(FindingKind.KMS_KEY_ROTATION_OFF, Severity.NOTE)
    else:
        detail = {"last_seen_on": was_on_at.date().isoformat()}
        yield Sighting(FindingKind.KMS_KEY_ROTATION_OFF, Severity.WARNING, detail)


def _knows_no_rotation(key: KmsKeyFacts | None) -> bool:
    return key is not None and key.origin != _MADE_BY_AWS


def _unknown(look: ConnectionLook, tenant: Tenant) -> frozenset[FindingKind]:
    ended = {finding.check for finding in look.findings if _came_to_an_end(finding)}
    unknown = {kind for kind, checks in _CHECKS.items() if not checks <= ended}
    if tenant.connection is not None and tenant.connection.role_arn is None:
        unknown.discard(FindingKind.EXTERNAL_ID_NOT_ENFORCED)  # there is no role that could ask for one
    if look.kms_key is None:
        unknown |= {*_STATES.values(), FindingKind.KEY_MATERIAL_EXPIRING}
    if look.rotates is None and not _knows_no_rotation(look.kms_key):
        unknown.add(FindingKind.KMS_KEY_ROTATION_OFF)
    return frozenset(unknown)


def _came_to_an_end(finding: Finding) -> bool:
    """Whether a check found that something is so or is not; else it could not be tried."""
    return finding.verdict is Verdict.PASSED or (
        finding.cause is not None and finding.cause is not Cause.REFUSED_BY_AWS
    )


def of_registration(tenant: Tenant, now: datetime) -> Iterable[Sighting]:
    """A pending tenant that waits for its customer for long."""
    if tenant.state is not TenantState.PENDING:
        return
    waited = now - tenant.created_at
    severity = next((one for least, one in NEVER_VERIFIED_AFTER if waited >= least), None)
    if severity is not None:
        yield Sighting(
            FindingKind.NEVER_VERIFIED, severity, {"registered": tenant.created_at.date().isoformat()}
        )


def of_silence(tenant: Tenant, why: str, now: datetime, period: timedelta) -> Iterable[Sighting]:
    """A tenant at whose side no look got an answer for long; ``why`` is this one's reason."""
    looked_at = tenant.looked_at or tenant.created_at
    if now - looked_at > NOT_LOOKED_AT_PERIODS * period:
        detail = {"last_look": looked_at.date().isoformat(), "why": why[:_LONGEST_DETAIL]}
        yield Sighting(FindingKind.NOT_LOOKED_AT, Severity.WARNING, detail)


def of_audit_chain(broken: str | None) -> Iterable[Sighting]:
    """An audit chain that does not verify, and how it shows."""
    if broken is not None:
        yield Sighting(FindingKind.AUDIT_CHAIN_BROKEN, Severity.CRITICAL, {"seen": broken[:_LONGEST_DETAIL]})
