"""The way out of a tenant: each event in each state, the day, and what a certificate asks of a customer."""

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from byok.core.arns import KmsKeyArn, RoleArn
from byok.core.audit import ChainPlace
from byok.core.model import Check, Connection, Tenant, TenantState
from byok.core.moves import Sharing
from byok.core.offboarding import (
    OFFBOARDING_LIFECYCLE,
    UNDER_WAY,
    Offboarding,
    OffboardingEvent,
    OffboardingState,
    check_retention,
    shred_time,
)
from byok.core.shred_certificate import Evidence, certificate_of
from byok.errors import IllegalTransition, OutOfBounds
from tests.world import kms_key_arn

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STEPS = {
    ("waiting", "cancel"): "cancelled",
    ("waiting", "begin"): "shredding",
    ("shredding", "end"): "shredded",
    ("shredded", "certify"): "certified",
}


@pytest.mark.parametrize(("state", "event"), list(itertools.product(OffboardingState, OffboardingEvent)))
def test_each_event_in_each_state_leads_on_or_is_refused(
    state: OffboardingState, event: OffboardingEvent
) -> None:
    if (following := STEPS.get((state.value, event.value))) is not None:
        assert OFFBOARDING_LIFECYCLE.after(state, event).value == following
    else:
        with pytest.raises(IllegalTransition, match=f"a leaving that is {state}"):
            OFFBOARDING_LIFECYCLE.after(state, event)


@pytest.mark.parametrize(("days", "lease_hours"), list(itertools.product((0, 1, 30), (0, 1, 24))))
def test_the_day_is_after_the_retention_and_after_the_longest_lease(days: int, lease_hours: int) -> None:
    retention, lease = timedelta(days=days), timedelta(hours=lease_hours)
    at = shred_time(NOW, retention, lease)
    assert at >= NOW + retention
    assert at >= NOW + lease + UNDER_WAY
    assert at in (NOW + retention, NOW + lease + UNDER_WAY), "and no later"


def test_retentions_have_bounds() -> None:
    for days in (0, 3650):
        check_retention(timedelta(days=days))
    for days in (-1, 3651):
        with pytest.raises(OutOfBounds, match="out of bounds"):
            check_retention(timedelta(days=days))


TENANT, ALONE = UUID(int=1), Sharing()
KMS_KEY = KmsKeyArn.parse(kms_key_arn())


def connection_by(role_arn: RoleArn | None, kms_key: KmsKeyArn = KMS_KEY) -> Connection:
    return Connection(TENANT, kms_key, "x", role_arn, tenant_name="acme")


def certificate(*connections: Connection, sharing: Sharing = ALONE, passed: bool = True) -> dict[str, Any]:
    """The report for a tenant that had these connections, the last one first."""
    tenant = Tenant(TENANT, "acme", TenantState.OFFBOARDED, "x", NOW, connection=connections[0])
    offboarding = Offboarding(UUID(int=2), TENANT, OffboardingState.SHREDDED, "a", NOW, "x", NOW)
    proofs = [Check("one", True), Check("other", passed)]
    had = [(one, sharing) for one in connections]
    head = ChainPlace(7, bytes(32))
    told = certificate_of(Evidence(tenant, offboarding, None, [], proofs, head, NOW, had))
    assert told["passed"] is passed
    return told


def removals(*connections: Connection, sharing: Sharing = ALONE) -> str:
    told = certificate(*connections, sharing=sharing)
    return " ".join(one["what"] + " " + one["how"] for one in told["customer_removes"])


def test_what_the_customer_removes_is_what_its_mode_has() -> None:
    with_role = removals(connection_by(RoleArn("aws", KMS_KEY.account, "path/byok-acme")))
    assert "delete-role --role-name byok-acme" in with_role, "the name, without the path"
    assert "ByokRoleUseWithContext" in with_role
    without = removals(connection_by(None))
    assert "ByokUseWithContext and ByokLook" in without
    assert "delete-role" not in without


def test_one_check_that_failed_is_told_at_the_top() -> None:
    certificate(connection_by(None), passed=False)


def test_who_moved_is_told_of_every_kms_key_and_role_that_it_ever_gave() -> None:
    older = KmsKeyArn.parse(kms_key_arn(7))
    role = RoleArn("aws", older.account, "byok-before")
    moved = connection_by(None), connection_by(role, older)
    told = certificate(*moved)
    assert told["other_connections"] == [{"kms_key_arn": str(older), "role_arn": str(role)}]
    assert f"the role {role}" in removals(*moved)
    assert older.key_id in removals(*moved), "its grants and tag"
    backups = told["remains"][0]["remedy"]
    assert f"all of the KMS keys {KMS_KEY.key_id}, {older.key_id} are" in backups
    assert removals(*moved).count("webhook") == 1


@pytest.mark.parametrize("role", [None, RoleArn("aws", KMS_KEY.account, "byok")])
def test_what_another_tenant_of_the_customers_needs_is_not_removed(role: RoleArn | None) -> None:
    told = removals(connection_by(role), sharing=Sharing(("globex",), ("globex",)))
    for whole in ("delete-role", "the stack", "untag", "revoke-grant", "of the key policy"):
        assert whole not in told
    assert str(TENANT) in told
    assert "globex" not in told, "who else is a customer is nobody's business"
