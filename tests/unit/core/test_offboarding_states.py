"""The way out of a tenant: each event in each state, the day, and what a certificate asks of a customer."""

import itertools
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from byok.core.arns import KmsKeyArn, RoleArn
from byok.core.audit import ChainPlace
from byok.core.model import Check, Connection, Tenant, TenantState
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


def removals(role_arn: RoleArn | None, passed: bool = True) -> str:
    tenant_id = UUID(int=1)
    connection = Connection(tenant_id, KmsKeyArn.parse(kms_key_arn()), "x", role_arn, tenant_name="acme")
    tenant = Tenant(tenant_id, "acme", TenantState.OFFBOARDED, "x", NOW, connection=connection)
    offboarding = Offboarding(UUID(int=2), tenant_id, OffboardingState.SHREDDED, "a", NOW, "x", NOW)
    proofs = [Check("one", True), Check("other", passed)]
    told = certificate_of(Evidence(tenant, offboarding, None, [], proofs, ChainPlace(7, bytes(32)), NOW))
    assert told["passed"] is passed
    return " ".join(one["what"] + " " + one["how"] for one in told["customer_removes"])


def test_what_the_customer_removes_is_what_its_mode_has() -> None:
    key = KmsKeyArn.parse(kms_key_arn())
    with_role = removals(RoleArn("aws", key.account, "path/byok-acme"))
    assert "delete-role --role-name byok-acme" in with_role, "the name, without the path"
    assert "ByokRoleUseWithContext" in with_role
    without = removals(None)
    assert "ByokUseWithContext and ByokLook" in without
    assert "delete-role" not in without


def test_one_check_that_failed_is_told_at_the_top() -> None:
    removals(None, passed=False)
