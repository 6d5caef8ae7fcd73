"""What is counted of requests to KMS: each that was sent, how it ended, and no tenant accused wrongly."""

import contextlib
from collections import Counter

import pytest

from byok.core import policies
from byok.embedded.stack import Stack
from byok.errors import ByokError
from byok.simulator.control import SimulatorControl
from byok.wiring import Runtime
from tests.customers import VENDOR, Customer, add_key, join

Counts = Counter[tuple[str, str, str]]


@pytest.fixture
def acme(stack: Stack, runtime: Runtime, simulator: SimulatorControl) -> Customer:
    customer = join(stack, runtime, "acme")
    runtime.metrics.forget()
    return customer


def counted(runtime: Runtime) -> Counts:
    """Requests by operation, outcome and tenant."""
    found: Counts = Counter()
    for family in runtime.metrics.collect():
        for sample in family.samples:
            if sample.name == "byok_kms_requests_total":
                labels = sample.labels
                found[labels["operation"], labels["outcome"], labels["tenant"]] += int(sample.value)
    return found


def call(runtime: Runtime, customer: Customer) -> None:
    assert customer.tenant.connection is not None
    with contextlib.suppress(ByokError):
        runtime.kms.describe_key(customer.tenant.connection)


def test_a_preflight_counts_for_nothing_whatever_it_finds(
    stack: Stack, runtime: Runtime, acme: Customer
) -> None:
    acme.account.delete_role_policy("byok")
    runtime.services.onboarding.verify_tenant("acme", actor="test")
    assert counted(runtime) == {}


def test_all_that_byok_asks_by_itself_is_counted_and_goes_well(
    runtime: Runtime, acme: Customer, simulator: SimulatorControl
) -> None:
    """Under a policy that lets us ask no more than we must, and with a wrong context that KMS must refuse."""
    needed = policies.role_permissions(acme.kms_key, acme.tenant.id)
    for statement in needed["Statement"]:
        actions = [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
        statement["Action"] = [one for one in actions if "Rotation" not in one and "Tags" not in one]
    needed["Statement"] = [one for one in needed["Statement"] if one["Action"]]
    acme.account.put_role_policy("byok", needed)
    before = trail(simulator, acme)
    runtime.kms.forget()
    add_key(runtime, "acme")
    runtime.services.checkups.validate("acme", "pii", actor="test")
    runtime.services.follower.sync("acme", actor="test")
    runtime.services.checkups.probe("acme")
    seen = counted(runtime)
    assert {outcome for _, outcome, _ in seen} == {"ok"}
    assert {tenant for _, _, tenant in seen} == {""}
    by_operation: Counter[str] = Counter()
    for (operation, _, _), count in seen.items():
        by_operation[operation] += count
    assert by_operation == trail(simulator, acme) - before, "as the customer has it in its own trail"
    assert by_operation["GetKeyRotationStatus"] == 2, "refused in one session, and in another"


def trail(simulator: SimulatorControl, customer: Customer) -> Counter[str]:
    return Counter(record["eventName"] for record in simulator.cloudtrail(customer.account.account_id))


@pytest.mark.parametrize(
    ("code", "http_status", "outcome"),
    [
        ("AccessDeniedException", 400, "denied"),
        ("DisabledException", 400, "denied"),
        ("KMSInvalidStateException", 400, "unusable"),
        ("ThrottlingException", 400, "throttled"),
        ("KMSInternalException", 500, "outage"),
        ("ExpiredTokenException", 400, "rejected"),
        ("ValidationException", 400, "rejected"),
        ("InvalidCiphertextException", 400, "integrity"),
    ],
)
def test_an_error_is_counted_by_its_class(
    runtime: Runtime, acme: Customer, simulator: SimulatorControl, code: str, http_status: int, outcome: str
) -> None:
    simulator.inject(code=code, http_status=http_status, operation="DescribeKey", times=1)
    call(runtime, acme)
    assert counted(runtime)["DescribeKey", outcome, "acme"] == 1


def test_a_role_that_refuses_us_is_counted_as_an_assumption_of_it(runtime: Runtime, acme: Customer) -> None:
    acme.account.update_trust_policy("byok", policies.trust_policy(VENDOR, "another-external-id"))
    runtime.kms.forget()
    call(runtime, acme)
    assert counted(runtime) == {("AssumeRole", "denied", "acme"): 1}, "and no request was sent that failed"


def test_a_proxys_page_is_counted_as_an_answer_that_is_none(
    runtime: Runtime, acme: Customer, simulator: SimulatorControl
) -> None:
    runtime.kms.forget()
    simulator.inject(html_status=200, operation="AssumeRole", times=1)
    call(runtime, acme)
    assert counted(runtime) == {("AssumeRole", "integrity", "acme"): 1}


def test_a_tenant_with_trouble_is_told_from_those_without(
    stack: Stack, runtime: Runtime, acme: Customer, simulator: SimulatorControl
) -> None:
    globex = join(stack, runtime, "globex")
    runtime.metrics.forget()
    simulator.throttle(account=acme.account.account_id)
    call(runtime, acme)
    call(runtime, globex)
    seen = counted(runtime)
    assert seen["DescribeKey", "throttled", "acme"] == 3
    assert seen["DescribeKey", "ok", ""] == 1
    assert not any(tenant == "globex" for _, _, tenant in seen)
