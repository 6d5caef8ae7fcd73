"""What a preflight says of each kind, and of what it says nothing."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from byok.core.arns import KmsKeyArn, RoleArn
from byok.core.findings import Cause, Finding, Verdict
from byok.core.lookout import FindingKind, Severity
from byok.core.looks import ConnectionLook, KmsKeyFacts, nothing_known, seen_in
from byok.core.model import Connection, Tenant, TenantState

NOW = datetime(2026, 5, 1, tzinfo=UTC)
KEY = KmsKeyArn.parse("arn:aws:kms:eu-central-1:222222222222:key/00000000-0000-4000-8000-000000000001")
ROLE = RoleArn.parse("arn:aws:iam::222222222222:role/byok")
CONNECTION = Connection(UUID(int=1), KEY, "external-1", ROLE, tenant_name="acme")
ACME = Tenant(UUID(int=1), "acme", TenantState.ACTIVE, "external-1", NOW, connection=CONNECTION)
ENABLED = KmsKeyFacts("Enabled", "AWS_KMS")
CHECKS = (
    "arns-fit",
    "role-can-be-assumed",
    "role-refuses-missing-external-id",
    "role-refuses-wrong-external-id",
    "session-is-in-key-account",
    "kms-key-is-usable",
    "may-generate",
    "may-decrypt",
    "foreign-tenant-context-is-refused",
    "missing-context-is-refused",
    "no-unneeded-rights",
    "round-trip",
)


def look(
    *otherwise: Finding,
    until: str = "round-trip",
    key: KmsKeyFacts | None = ENABLED,
    rotates: bool | None = True,
) -> ConnectionLook:
    """A preflight whose checks pass up to ``until``, but for those that are said to end otherwise."""
    run = CHECKS[: CHECKS.index(until) + 1]
    ended = {check: Finding(check, Verdict.PASSED, "ok") for check in run}
    return ConnectionLook([*(ended | {one.check: one for one in otherwise}).values()], key, rotates)


def failed(check: str, cause: Cause, verdict: Verdict = Verdict.FAILED) -> Finding:
    return Finding(check, verdict, "seen", cause, "explanation", "remedy")


def test_all_is_known_of_a_preflight_that_ran_to_its_end() -> None:
    seen = seen_in(look(), ACME, NOW)
    assert (seen.sightings, seen.unknown) == ([], frozenset())


def test_nothing_is_known_of_checks_that_were_not_reached() -> None:
    """The vendor's own kinds are known all the same: no look at the customer's side tells of them."""
    refused = failed("role-can-be-assumed", Cause.ROLE_REFUSES_US)
    stopped = look(refused, until="role-can-be-assumed", key=None, rotates=None)
    seen = seen_in(stopped, ACME, NOW)
    assert [one.kind for one in seen.sightings] == [FindingKind.ACCESS_BROKEN]
    assert seen.unknown == nothing_known().unknown
    assert FindingKind.AUDIT_CHAIN_BROKEN not in seen.unknown


def test_a_disabled_key_hides_what_else_there_is() -> None:
    disabled = failed("kms-key-is-usable", Cause.KEY_DISABLED)
    key = KmsKeyFacts("Disabled", "AWS_KMS")
    seen = seen_in(look(disabled, until="kms-key-is-usable", key=key, rotates=None), ACME, NOW)
    assert [one.kind for one in seen.sightings] == [FindingKind.KMS_KEY_DISABLED]
    assert seen.unknown == {
        FindingKind.CONTEXT_NOT_ENFORCED,
        FindingKind.EXCESS_RIGHTS,
        FindingKind.ACCESS_BROKEN,
        FindingKind.KMS_KEY_ROTATION_OFF,
    }


@pytest.mark.parametrize(
    ("check", "cause", "verdict", "kind", "severity"),
    [
        (
            "role-refuses-missing-external-id", Cause.EXTERNAL_ID_NOT_REQUIRED, Verdict.FAILED,
            FindingKind.EXTERNAL_ID_NOT_ENFORCED, Severity.URGENT,
        ),
        (
            "missing-context-is-refused", Cause.CONTEXT_NOT_ENFORCED, Verdict.WARNING,
            FindingKind.CONTEXT_NOT_ENFORCED, Severity.WARNING,
        ),
        (
            "missing-context-is-refused", Cause.CONTEXT_NOT_ENFORCED, Verdict.FAILED,
            FindingKind.CONTEXT_NOT_ENFORCED, Severity.URGENT,
        ),
        (
            "no-unneeded-rights", Cause.TOO_MANY_RIGHTS, Verdict.WARNING,
            FindingKind.EXCESS_RIGHTS, Severity.WARNING,
        ),
        (
            "session-is-in-key-account", Cause.WRONG_ACCOUNT, Verdict.FAILED,
            FindingKind.ACCESS_BROKEN, Severity.URGENT,
        ),
    ],
)  # fmt: skip
def test_each_cause_has_its_kind(
    check: str, cause: Cause, verdict: Verdict, kind: FindingKind, severity: Severity
) -> None:
    seen = seen_in(look(failed(check, cause, verdict)), ACME, NOW)
    assert [(one.kind, one.severity) for one in seen.sightings] == [(kind, severity)]
    assert seen.unknown == frozenset()


def test_a_check_that_could_not_be_tried_says_nothing() -> None:
    untried = failed("missing-context-is-refused", Cause.REFUSED_BY_AWS, Verdict.WARNING)
    note = Finding("no-unneeded-rights", Verdict.NOTE, "kms:Encrypt could not be tried")
    seen = seen_in(look(untried, note), ACME, NOW)
    assert seen.sightings == []
    assert seen.unknown == {FindingKind.CONTEXT_NOT_ENFORCED, FindingKind.EXCESS_RIGHTS}


def test_without_a_role_there_is_no_external_id_to_enforce() -> None:
    by_policy = replace(ACME, connection=replace(CONNECTION, role_arn=None))
    run = ConnectionLook([one for one in look().findings if not one.check.startswith("role-")], ENABLED, True)
    assert seen_in(run, by_policy, NOW).unknown == frozenset()


@pytest.mark.parametrize("rotates", [False, None])
def test_imported_material_is_not_expected_to_rotate(rotates: bool | None) -> None:
    seen = seen_in(look(key=KmsKeyFacts("Enabled", "EXTERNAL"), rotates=rotates), ACME, NOW)
    assert (seen.sightings, seen.unknown) == ([], frozenset())


def test_a_rotation_that_we_may_not_read_is_unknown() -> None:
    assert seen_in(look(rotates=None), ACME, NOW).unknown == {FindingKind.KMS_KEY_ROTATION_OFF}


def test_a_key_whose_replicas_go_first_has_no_day_yet() -> None:
    gone = failed("kms-key-is-usable", Cause.KEY_PENDING_DELETION)
    key = KmsKeyFacts("PendingReplicaDeletion", "AWS_KMS")
    (one,) = seen_in(look(gone, until="kms-key-is-usable", key=key, rotates=None), ACME, NOW).sightings
    assert (one.kind, one.severity, one.deadline_at) == (
        FindingKind.KMS_KEY_PENDING_DELETION,
        Severity.URGENT,
        None,
    )


def test_a_detail_is_small() -> None:
    long = replace(failed("round-trip", Cause.NOT_AWS_KMS), seen="x" * 10_000, explanation="y" * 10_000)
    (one,) = seen_in(look(long), ACME, NOW + timedelta(days=1)).sightings
    assert max(len(text) for text in one.detail.values()) == 500
