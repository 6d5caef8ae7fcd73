"""What the nightly watch over a customer's side finds: kinds, severities, deadlines, remedies. Pure.

`byok.core.findings` has the findings of one preflight, check by check. Those here are what is left of many
looks: one for each tenant and kind, open until it is seen no more.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from byok.core.model import Tenant


class Severity(StrEnum):
    """How much it matters, least first."""

    NOTE = "note"  # worth knowing; nobody has to do anything
    WARNING = "warning"  # to be put right within days
    URGENT = "urgent"  # access or data will be lost, or stands open to others
    CRITICAL = "critical"  # today


# The most time that may be left for a severity. Below a deadline nothing can be undone.
SEVERITY_BY_TIME_LEFT: Sequence[tuple[timedelta, Severity]] = (
    (timedelta(days=1), Severity.CRITICAL),
    (timedelta(days=7), Severity.URGENT),
    (timedelta(days=30), Severity.WARNING),
)
# A tenant that was registered and not verified for so long.
NEVER_VERIFIED_AFTER: Sequence[tuple[timedelta, Severity]] = (
    (timedelta(days=30), Severity.WARNING),
    (timedelta(days=7), Severity.NOTE),
)
# Periods of the watch without a look that got an answer.
NOT_LOOKED_AT_PERIODS = 3


class Side(StrEnum):
    """Who is asked to do something."""

    CUSTOMER = "customer"
    VENDOR = "vendor"


class FindingKind(StrEnum):
    """What can be found, in a word that stays the same. A tenant has at most one open finding of a kind."""

    KMS_KEY_PENDING_DELETION = "kms-key-pending-deletion"
    KMS_KEY_DISABLED = "kms-key-disabled"
    KEY_MATERIAL_MISSING = "key-material-missing"
    KEY_MATERIAL_EXPIRING = "key-material-expiring"
    KMS_KEY_ROTATION_OFF = "kms-key-rotation-off"
    EXTERNAL_ID_NOT_ENFORCED = "external-id-not-enforced"
    CONTEXT_NOT_ENFORCED = "context-not-enforced"
    EXCESS_RIGHTS = "excess-rights"
    ACCESS_BROKEN = "access-broken"
    NEVER_VERIFIED = "never-verified"
    NOT_LOOKED_AT = "not-looked-at"
    AUDIT_CHAIN_BROKEN = "audit-chain-broken"


@dataclass(frozen=True, slots=True)
class KindText:
    """A kind for people; ``{names}`` of the remedy are filled in by `remedy_for`."""

    meaning: str
    severity: str
    remedy: str
    side: Side = Side.CUSTOMER


_BY_TIME_LEFT = "by the days left"
KINDS: Mapping[FindingKind, KindText] = {
    FindingKind.KMS_KEY_PENDING_DELETION: KindText(
        "AWS is to delete the KMS key; nothing under it can ever be read again then",
        f"{_BY_TIME_LEFT}; urgent while AWS names no day",
        "aws kms cancel-key-deletion --region {region} --key-id {key_id}, "
        "then aws kms enable-key --region {region} --key-id {key_id}",
    ),
    FindingKind.KMS_KEY_DISABLED: KindText(
        "the KMS key is disabled",
        "urgent",
        "aws kms enable-key --region {region} --key-id {key_id}",
    ),
    FindingKind.KEY_MATERIAL_MISSING: KindText(
        "the KMS key's imported material was deleted or has expired",
        "critical",
        "import the same key material again: "
        "aws kms import-key-material --region {region} --key-id {key_id} …",
    ),
    FindingKind.KEY_MATERIAL_EXPIRING: KindText(
        "the KMS key's imported material has a day on which it expires",
        _BY_TIME_LEFT,
        "import the same key material again before that, with a later day or none: "
        "aws kms import-key-material --region {region} --key-id {key_id} …",
    ),
    FindingKind.KMS_KEY_ROTATION_OFF: KindText(
        "the KMS key does not rotate its own material by itself",
        "warning where it once did, else a note",
        "aws kms enable-key-rotation --region {region} --key-id {key_id}",
    ),
    FindingKind.EXTERNAL_ID_NOT_ENFORCED: KindText(
        "the role's trust policy lets the vendor in without the external id, or with any",
        "urgent",
        "the trust policy needs StringEquals sts:ExternalId, without IfExists or a wildcard; "
        "the vendor prints it: byok tenant policy {tenant}",
    ),
    FindingKind.CONTEXT_NOT_ENFORCED: KindText(
        "the policy lets other encryption contexts pass than this tenant's",
        "warning; urgent in key-policy mode, where nothing else keeps tenants apart",
        "add the condition StringEquals kms:EncryptionContext:byok-tenant {tenant_id}",
    ),
    FindingKind.EXCESS_RIGHTS: KindText(
        "the role or key policy allows what byok never does",
        "warning",
        "leave it kms:GenerateDataKeyWithoutPlaintext, kms:Decrypt and the right to look; "
        "the vendor prints it: byok tenant policy {tenant}",
    ),
    FindingKind.ACCESS_BROKEN: KindText(
        "a check of the connection failed that passed when the tenant was verified",
        "urgent",
        "byok tenant verify {tenant} shows each check with its remedy",
    ),
    FindingKind.NEVER_VERIFIED: KindText(
        "the tenant was registered and its connection never passed",
        "note after 7 days, warning after 30",
        "help the customer provision it: byok tenant policy {tenant}, byok tenant verify {tenant}",
        Side.VENDOR,
    ),
    FindingKind.NOT_LOOKED_AT: KindText(
        "no look at the tenant's side got an answer for three periods of the watch",
        "warning",
        "byok tenant inspect {tenant} says what does not answer",
        Side.VENDOR,
    ),
    FindingKind.AUDIT_CHAIN_BROKEN: KindText(
        "the tenant's audit log was changed",
        "critical",
        "byok audit verify {tenant} names the event; keep the database as it is, and find out who wrote it",
        Side.VENDOR,
    ),
}


@dataclass(frozen=True, slots=True)
class Sighting:
    """What one look saw of a kind. ``detail`` is small, and holds nothing secret."""

    kind: FindingKind
    severity: Severity
    detail: Mapping[str, str] = field(default_factory=dict)
    deadline_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """All that one look saw. Of what is ``unknown`` it says neither that it is so nor that it is not."""

    sightings: Sequence[Sighting]
    unknown: frozenset[FindingKind]

    def with_more(self, *sightings: Sighting) -> "Seen":
        """The same, with what others saw."""
        return replace(self, sightings=[*self.sightings, *sightings])


@dataclass(frozen=True, slots=True)
class TenantFinding:
    """What was found with a tenant. ``last_seen_at`` is the last look that saw it."""

    id: UUID
    tenant_id: UUID
    kind: FindingKind
    severity: Severity
    detail: Mapping[str, str]
    first_seen_at: datetime
    last_seen_at: datetime
    deadline_at: datetime | None = None
    resolved_at: datetime | None = None


class ChangeEvent(StrEnum):
    """What became of a finding."""

    OPENED = "opened"
    SEVERITY_CHANGED = "severity-changed"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class Change:
    """A finding that is told of: as it is now, and its severity before, if it was open."""

    event: ChangeEvent
    finding: TenantFinding
    before: Severity | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a look changes. ``confirmed`` is still so: nothing is told of it."""

    changes: Sequence[Change]
    confirmed: Sequence[TenantFinding]


def severity_by(deadline_at: datetime, now: datetime) -> Severity:
    """How much a deadline matters at this distance."""
    left = deadline_at - now
    return next((severity for most, severity in SEVERITY_BY_TIME_LEFT if left <= most), Severity.NOTE)


def compare(
    standing: Sequence[TenantFinding], seen: Seen, tenant_id: UUID, now: datetime, new_id: Callable[[], UUID]
) -> Comparison:
    """What follows from a look for a tenant whose open findings are ``standing``.

    What the look could not see stays as it is, but for its severity: a deadline comes nearer all the same.
    """
    sightings = {sighting.kind: sighting for sighting in seen.sightings}
    changes: list[Change] = []
    confirmed: list[TenantFinding] = []
    for finding in standing:
        sighting = sightings.pop(finding.kind, None)
        if sighting is None and finding.kind not in seen.unknown:
            changes.append(Change(ChangeEvent.RESOLVED, replace(finding, resolved_at=now), finding.severity))
            continue
        now_so = _grown_old(finding, now) if sighting is None else _seen_again(finding, sighting, now)
        if now_so.severity is not finding.severity:
            changes.append(Change(ChangeEvent.SEVERITY_CHANGED, now_so, finding.severity))
        elif sighting is not None:
            confirmed.append(now_so)
    for one in sightings.values():
        opened = TenantFinding(
            new_id(), tenant_id, one.kind, one.severity, one.detail, now, now, one.deadline_at
        )
        changes.append(Change(ChangeEvent.OPENED, opened))
    return Comparison(changes, confirmed)


def _grown_old(finding: TenantFinding, now: datetime) -> TenantFinding:
    if finding.deadline_at is None:
        return finding
    return replace(finding, severity=severity_by(finding.deadline_at, now))


def _seen_again(finding: TenantFinding, sighting: Sighting, now: datetime) -> TenantFinding:
    return replace(
        finding,
        severity=sighting.severity,
        detail=sighting.detail,
        deadline_at=sighting.deadline_at,
        last_seen_at=now,
    )


def remedy_for(finding: TenantFinding, tenant: Tenant) -> str:
    """What is to be done about a finding, with the tenant's own names in it."""
    if told := finding.detail.get("remedy"):
        return told
    key = None if tenant.connection is None else tenant.connection.kms_key_arn
    return KINDS[finding.kind].remedy.format(
        tenant=tenant.name,
        tenant_id=tenant.id,
        region="REGION" if key is None else key.region,
        key_id="KEY" if key is None else key.key_id,
    )
