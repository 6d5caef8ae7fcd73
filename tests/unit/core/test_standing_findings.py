"""Findings: what a look opens, changes, leaves and resolves."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from byok.core.arns import KmsKeyArn
from byok.core.lookout import (
    KINDS,
    ChangeEvent,
    FindingKind,
    Seen,
    Severity,
    Sighting,
    TenantFinding,
    compare,
    remedy_for,
    severity_by,
)
from byok.core.model import Connection, Tenant, TenantState

NOW = datetime(2026, 5, 1, tzinfo=UTC)
DAY = timedelta(days=1)
TENANT_ID = UUID(int=1)
DELETION = FindingKind.KMS_KEY_PENDING_DELETION
EXCESS = Sighting(FindingKind.EXCESS_RIGHTS, Severity.WARNING, {"seen": "kms:Encrypt"})
NOTHING_UNKNOWN: frozenset[FindingKind] = frozenset()


def deletion(at: datetime, now: datetime = NOW) -> Sighting:
    return Sighting(DELETION, severity_by(at, now), {"state": "PendingDeletion"}, at)


def look(
    standing: Sequence[TenantFinding],
    *sightings: Sighting,
    unknown: frozenset[FindingKind] = NOTHING_UNKNOWN,
    now: datetime = NOW,
) -> tuple[Mapping[FindingKind, ChangeEvent], Sequence[TenantFinding]]:
    """What is told of each kind, and what is open afterwards."""
    comparison = compare(standing, Seen(sightings, unknown), TENANT_ID, now, uuid4)
    told = {change.finding.kind: change.event for change in comparison.changes}
    written = [*(change.finding for change in comparison.changes), *comparison.confirmed]
    untouched = [one for one in standing if one.id not in {finding.id for finding in written}]
    return told, [one for one in [*written, *untouched] if one.resolved_at is None]


@pytest.mark.parametrize(
    ("left", "severity"),
    [
        (30 * DAY + timedelta(seconds=1), Severity.NOTE),
        (30 * DAY, Severity.WARNING),
        (7 * DAY + timedelta(seconds=1), Severity.WARNING),
        (7 * DAY, Severity.URGENT),
        (DAY + timedelta(seconds=1), Severity.URGENT),
        (DAY, Severity.CRITICAL),
        (-DAY, Severity.CRITICAL),
    ],
)
def test_the_less_time_is_left_the_graver(left: timedelta, severity: Severity) -> None:
    assert severity_by(NOW + left, NOW) is severity


def test_what_is_seen_first_opens_and_what_is_seen_again_changes_nothing() -> None:
    told, standing = look([], EXCESS)
    assert told == {FindingKind.EXCESS_RIGHTS: ChangeEvent.OPENED}
    told, again = look(standing, EXCESS, now=NOW + DAY)
    assert told == {}
    assert (again[0].id, again[0].first_seen_at, again[0].last_seen_at) == (standing[0].id, NOW, NOW + DAY)


def test_what_is_seen_no_more_is_resolved_and_opens_anew_with_another_id() -> None:
    _, standing = look([], EXCESS)
    told, left = look(standing)
    assert (told, left) == ({FindingKind.EXCESS_RIGHTS: ChangeEvent.RESOLVED}, [])
    _, anew = look([], EXCESS)
    assert anew[0].id != standing[0].id


def test_what_could_not_be_seen_stays() -> None:
    _, standing = look([], EXCESS)
    told, left = look(standing, unknown=frozenset({FindingKind.EXCESS_RIGHTS}), now=NOW + DAY)
    assert (told, left) == ({}, standing)


def test_a_deadline_that_comes_nearer_is_told_once_a_step() -> None:
    at, standing, steps = NOW + 31 * DAY, list[TenantFinding](), list[tuple[int, Severity]]()
    for day in range(32):
        now = NOW + day * DAY
        told, found = look(standing, deletion(at, now), now=now)
        standing = list(found)
        if told:
            steps.append((31 - day, standing[0].severity))
    assert steps == [
        (31, Severity.NOTE),
        (30, Severity.WARNING),
        (7, Severity.URGENT),
        (1, Severity.CRITICAL),
    ]


def test_a_deadline_comes_nearer_while_nobody_answers() -> None:
    _, standing = look([], deletion(NOW + 8 * DAY))
    told, left = look(standing, unknown=frozenset(FindingKind), now=NOW + DAY)
    assert told == {DELETION: ChangeEvent.SEVERITY_CHANGED}
    assert left[0].severity is Severity.URGENT
    assert left[0].last_seen_at == NOW, "nobody saw it"


def test_each_kind_has_its_text_and_a_remedy_without_holes() -> None:
    assert set(KINDS) == set(FindingKind)
    key = KmsKeyArn.parse("arn:aws:kms:eu-central-1:222222222222:key/00000000-0000-4000-8000-000000000001")
    tenant = Tenant(TENANT_ID, "acme", TenantState.ACTIVE, "external-1", NOW)
    connected = replace(tenant, connection=Connection(TENANT_ID, key, "external-1", tenant_name="acme"))
    for kind in FindingKind:
        finding = TenantFinding(uuid4(), TENANT_ID, kind, Severity.NOTE, {}, NOW, NOW)
        told = remedy_for(finding, connected)
        for one in (told, remedy_for(finding, tenant)):
            assert "{" not in one
            assert "external-1" not in one
        if "{key_id}" in KINDS[kind].remedy:
            assert key.key_id in told
    told_by_aws = TenantFinding(
        uuid4(), TENANT_ID, FindingKind.ACCESS_BROKEN, Severity.URGENT, {"remedy": "do this"}, NOW, NOW
    )
    assert remedy_for(told_by_aws, tenant) == "do this"
