"""Every row of AWS's errors, answered by the simulator to the real adapter: what becomes of the tenant."""

import base64
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from uuid import UUID

import pytest
import tenacity

from byok.core import policies
from byok.core.encryption_context import version_context
from byok.core.model import Connection, TenantState
from byok.embedded.stack import Stack
from byok.errors import (
    ByokError,
    KmsAccessRevoked,
    KmsIntegrityError,
    KmsRequestRejected,
    KmsUnavailable,
)
from byok.kms.classify import KMS_ERROR_CLASSES, STS_ERROR_CLASSES
from byok.settings import Settings
from byok.simulator import VENDOR_ACCOUNT_ID
from byok.simulator.control import SimulatorControl
from byok.simulator.customer import CustomerAccount
from byok.wiring import Runtime, build
from tests.customers import VENDOR, Customer, add_key, join

OPERATION = "GenerateDataKeyWithoutPlaintext"


@dataclass(frozen=True)
class Row:
    """AWS's answer to each call of ours, byok's error, and how many calls that makes."""

    code: str
    error: type[ByokError]
    calls: int = 1
    operation: str = OPERATION
    http_status: int = 400
    sessions: int = 0


# kms: error → class; RETRY makes 3 calls, REAUTH asks for a session and calls once more.
ROWS = [
    Row("ThrottlingException", KmsUnavailable, 3),
    Row("KMSInternalException", KmsUnavailable, 3, http_status=500),
    Row("DependencyTimeoutException", KmsUnavailable, 3, http_status=503),
    Row("KeyUnavailableException", KmsUnavailable, 3, http_status=500),
    Row("KeyUnavailableException", KmsUnavailable, 3, http_status=400),
    Row("DisabledException", KmsAccessRevoked),
    Row("AccessDeniedException", KmsAccessRevoked, 2, sessions=1),
    Row("NotFoundException", KmsAccessRevoked),
    Row("InvalidCiphertextException", KmsIntegrityError),
    Row("IncorrectKeyException", KmsIntegrityError),
    Row("InvalidKeyUsageException", KmsRequestRejected),
    Row("UnsupportedOperationException", KmsRequestRejected),
    Row("InvalidArnException", KmsRequestRejected),
    Row("ValidationException", KmsRequestRejected),
    Row("InvalidGrantTokenException", KmsRequestRejected),
    Row("InvalidGrantIdException", KmsRequestRejected),
    Row("LimitExceededException", KmsRequestRejected),
    Row("ConflictException", KmsRequestRejected),
    Row("ExpiredTokenException", KmsRequestRejected, 2, sessions=1),
    Row("ExpiredToken", KmsRequestRejected, 2, http_status=403, sessions=1),
    Row("UnrecognizedClientException", KmsRequestRejected, 2, sessions=1),
    Row("InvalidSignatureException", KmsRequestRejected, 2, http_status=403, sessions=1),
    Row("IncompleteSignature", KmsRequestRejected, 2, http_status=403, sessions=1),
    Row("Throttling", KmsUnavailable, 3),
    Row("TooManyRequestsException", KmsUnavailable, 3),
    Row("RequestLimitExceeded", KmsUnavailable, 3),
    Row("InternalFailure", KmsUnavailable, 3),
    Row("InternalError", KmsUnavailable, 3),
    Row("ServiceUnavailable", KmsUnavailable, 3),
    Row("SomethingNewException", KmsRequestRejected),
    Row("SomethingNewException", KmsUnavailable, 3, http_status=503),
    Row("Throttling", KmsUnavailable, 3, "AssumeRole"),
    Row("ThrottlingException", KmsUnavailable, 3, "AssumeRole"),
    Row("RequestLimitExceeded", KmsUnavailable, 3, "AssumeRole"),
    Row("InternalFailure", KmsUnavailable, 3, "AssumeRole"),
    Row("ServiceUnavailable", KmsUnavailable, 3, "AssumeRole"),
    Row("ExpiredTokenException", KmsRequestRejected, 1, "AssumeRole", 403),
    Row("IncompleteSignature", KmsRequestRejected, 1, "AssumeRole"),
    Row("AccessDenied", KmsAccessRevoked, 1, "AssumeRole", 403),
    Row("RegionDisabledException", KmsAccessRevoked, 1, "AssumeRole", 403),
    Row("OptInRequired", KmsAccessRevoked, 1, "AssumeRole", 403),
    Row("InvalidClientTokenId", KmsRequestRejected, 1, "AssumeRole", 403),
    Row("SignatureDoesNotMatch", KmsRequestRejected, 1, "AssumeRole", 403),
    Row("ExpiredToken", KmsRequestRejected, 1, "AssumeRole", 403),
    Row("ValidationError", KmsRequestRejected, 1, "AssumeRole"),
    Row("PackedPolicyTooLarge", KmsRequestRejected, 1, "AssumeRole"),
    Row("MalformedPolicyDocument", KmsRequestRejected, 1, "AssumeRole"),
]


@pytest.fixture
def acme(stack: Stack, runtime: Runtime, simulator: SimulatorControl) -> Customer:
    customer = join(stack, runtime, "acme")
    add_key(runtime, "acme")
    runtime.kms.describe_key(connection(customer))  # a session lives
    simulator.forget_calls()
    return customer


def connection(customer: Customer) -> Connection:
    assert customer.tenant.connection is not None
    return customer.tenant.connection


def generate(customer: Customer, runtime: Runtime) -> None:
    runtime.kms.generate_data_key(
        connection(customer), version_context(customer.tenant.id, customer.tenant.id, 1)
    )


def state_after_a_rotation(runtime: Runtime) -> TenantState:
    requested = runtime.services.vault.request_rotation("acme", "pii")
    with contextlib.suppress(ByokError):
        runtime.services.rotations.run(requested.rotation.id)
    return runtime.services.registry.show_tenant("acme")[0].state


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.operation}:{row.code}:{row.http_status}")
def test_a_code_has_its_class(
    acme: Customer, runtime: Runtime, simulator: SimulatorControl, row: Row
) -> None:
    simulator.inject(operation=row.operation, code=row.code, http_status=row.http_status)
    if row.operation == "AssumeRole":
        runtime.kms.forget()
    with pytest.raises(row.error) as caught:
        generate(acme, runtime)
    assert row.code in caught.value.message
    assert "request" in caught.value.message
    assert len(simulator.calls(operation=row.operation)) == row.calls
    assert len(simulator.calls(operation="AssumeRole")) == row.sessions or row.operation == "AssumeRole"
    simulator.clear_faults()
    simulator.inject(operation=row.operation, code=row.code, http_status=row.http_status)
    runtime.kms.forget()
    stopped = row.error is KmsAccessRevoked
    assert state_after_a_rotation(runtime) is (TenantState.SUSPENDED if stopped else TenantState.ACTIVE)


def test_every_code_of_the_tables_has_a_row() -> None:
    for table, rows in (
        (KMS_ERROR_CLASSES, {row.code for row in ROWS if row.operation == OPERATION}),
        (STS_ERROR_CLASSES, {row.code for row in ROWS if row.operation == "AssumeRole"}),
    ):
        told_apart_elsewhere = {"KMSInvalidStateException"}
        assert set(table) - told_apart_elsewhere - rows == set()


BREAKS: dict[str, Callable[[SimulatorControl], object]] = {
    "a gateway's page": lambda simulator: simulator.bad_gateway(operation=OPERATION),
    "503 as a page": lambda simulator: simulator.inject(operation=OPERATION, html_status=503),
    "504 as a page": lambda simulator: simulator.inject(operation=OPERATION, html_status=504),
    "429 as a page": lambda simulator: simulator.inject(operation=OPERATION, html_status=429),
    "a reset": lambda simulator: simulator.reset(operation=OPERATION),
}


@pytest.mark.parametrize("how", BREAKS)
def test_a_broken_line_is_an_outage(
    acme: Customer, runtime: Runtime, simulator: SimulatorControl, how: str
) -> None:
    BREAKS[how](simulator)
    with pytest.raises(KmsUnavailable):
        generate(acme, runtime)
    # Those that met the fault: a call of the set-up that the client gave up may be logged late.
    assert len(simulator.calls(operation=OPERATION, outcome="fault")) == 3


@pytest.mark.parametrize(
    ("state", "error", "reason"),
    [
        ("PendingImport", KmsAccessRevoked, "imported material"),
        ("PendingReplicaDeletion", KmsAccessRevoked, "about to be deleted"),
        ("Unavailable", KmsAccessRevoked, "key store is disconnected"),
        ("Creating", KmsUnavailable, None),
        ("Updating", KmsUnavailable, None),
    ],
)
def test_an_invalid_state_is_told_apart_by_describe_key(
    acme: Customer,
    runtime: Runtime,
    simulator: SimulatorControl,
    state: str,
    error: type[ByokError],
    reason: str | None,
) -> None:
    simulator.put_key_in_state(acme.kms_key, state)
    simulator.inject(operation=OPERATION, code="KMSInvalidStateException")
    with pytest.raises(error) as caught:
        generate(acme, runtime)
    if reason is not None:
        assert isinstance(caught.value, KmsAccessRevoked)
        assert reason in caught.value.reason


@pytest.mark.parametrize("nobody_tells", ["refused", "no state", "a page"])
def test_an_invalid_state_that_nobody_tells_is_an_outage(
    acme: Customer, runtime: Runtime, simulator: SimulatorControl, nobody_tells: str
) -> None:
    """A key in an external key store is so while its proxy is slow, and the customer need not let us look."""
    simulator.inject(operation=OPERATION, code="KMSInvalidStateException")
    match nobody_tells:
        case "refused":
            simulator.inject(operation="DescribeKey", code="AccessDeniedException")
        case "no state":
            simulator.inject(operation="DescribeKey", reply={"KeyMetadata": {"KeyId": "x"}})
        case _:
            simulator.inject(operation="DescribeKey", html_status=200)
    with pytest.raises(KmsUnavailable):
        generate(acme, runtime)
    assert state_after_a_rotation(runtime) is TenantState.ACTIVE


def test_a_disabled_key_suspends_also_when_nobody_tells_its_state(
    acme: Customer, runtime: Runtime, simulator: SimulatorControl
) -> None:
    simulator.inject(operation=OPERATION, code="DisabledException")
    simulator.throttle(operation="DescribeKey")
    assert state_after_a_rotation(runtime) is TenantState.SUSPENDED


def test_pending_deletion_suspends_and_tells_the_date(acme: Customer, runtime: Runtime) -> None:
    acme.account.schedule_key_deletion(acme.kms_key, days=7)
    assert state_after_a_rotation(runtime) is TenantState.SUSPENDED
    stopped = runtime.services.registry.show_tenant("acme")[0].suspension
    assert stopped is not None
    deletion = acme.account.kms.describe_key(KeyId=acme.kms_key)["KeyMetadata"]["DeletionDate"]
    assert stopped.reason == f"the KMS key is about to be deleted, on {deletion:%Y-%m-%d}"


@pytest.mark.parametrize("code", ["DisabledException", "KMSInvalidStateException"])
def test_both_codes_of_a_key_about_to_be_deleted_suspend(
    acme: Customer, runtime: Runtime, simulator: SimulatorControl, code: str
) -> None:
    acme.account.schedule_key_deletion(acme.kms_key)
    simulator.inject(operation=OPERATION, code=code)
    assert state_after_a_rotation(runtime) is TenantState.SUSPENDED


def test_a_reply_of_another_key_is_an_integrity_alarm(
    acme: Customer, runtime: Runtime, simulator: SimulatorControl
) -> None:
    simulator.inject(operation=OPERATION, reply_key_id="arn:aws:kms:eu-central-1:1:key/other")
    with pytest.raises(KmsIntegrityError, match="instead of"):
        generate(acme, runtime)
    assert state_after_a_rotation(runtime) is TenantState.ACTIVE


def wrapped_and_its_context(customer: Customer, runtime: Runtime) -> tuple[bytes, dict[str, str]]:
    context = version_context(customer.tenant.id, customer.tenant.id, 1)
    return runtime.kms.generate_data_key(connection(customer), context).ciphertext, context


@pytest.mark.parametrize(
    ("altered", "match"),
    [
        ({"KeyId": "arn:aws:kms:eu-central-1:1:key/other"}, "instead of"),
        ({"Plaintext": base64.b64encode(bytes(31)).decode()}, "31 bytes"),
        ({"Plaintext": base64.b64encode(bytes(33)).decode()}, "33 bytes"),
        ({"Plaintext": ""}, "0 bytes"),
    ],
)
def test_what_decrypt_replies_is_checked(
    acme: Customer, runtime: Runtime, simulator: SimulatorControl, altered: dict[str, str], match: str
) -> None:
    wrapped, context = wrapped_and_its_context(acme, runtime)
    simulator.inject(operation="Decrypt", reply=altered)
    with pytest.raises(KmsIntegrityError, match=match):
        runtime.kms.decrypt(connection(acme), wrapped, context)


CALLS: dict[str, Callable[[Customer, Runtime], object]] = {
    OPERATION: generate,
    "Decrypt": lambda acme, runtime: runtime.kms.decrypt(
        connection(acme), b"x", version_context(acme.tenant.id, acme.tenant.id, 1)
    ),
    "DescribeKey": lambda acme, runtime: runtime.kms.describe_key(connection(acme)),
    "GetKeyRotationStatus": lambda acme, runtime: runtime.kms.read_rotation(connection(acme)),
    "ListResourceTags": lambda acme, runtime: runtime.kms.read_rotation(connection(acme)),
    "AssumeRole": generate,
    "GetCallerIdentity": lambda acme, runtime: runtime.kms._sessions.caller_account(
        connection(acme), runtime.kms._sessions.own_credentials()
    ),
}


@pytest.mark.parametrize("operation", CALLS)
def test_a_page_of_a_proxy_is_no_reply_of_aws(
    acme: Customer, runtime: Runtime, simulator: SimulatorControl, operation: str
) -> None:
    simulator.inject(operation=operation, html_status=200)
    runtime.kms.forget()
    with pytest.raises(KmsIntegrityError, match="none of AWS's"):
        CALLS[operation](acme, runtime)


def test_a_call_that_hangs_is_an_outage_when_the_read_timeout_is_over(
    acme: Customer, runtime: Runtime, simulator: SimulatorControl
) -> None:
    runtime.kms._retrying = tenacity.Retrying(stop=tenacity.stop_after_attempt(1), reraise=True)
    simulator.hang(8, operation=OPERATION, times=1)
    began = time.monotonic()
    with pytest.raises(KmsUnavailable, match="ReadTimeoutError"):
        generate(acme, runtime)
    assert 4.5 < time.monotonic() - began < 7.5


def test_a_deleted_role_rejects_the_session_and_then_the_new_one(acme: Customer, runtime: Runtime) -> None:
    acme.account.delete_role("byok")
    with pytest.raises(KmsAccessRevoked) as caught:
        generate(acme, runtime)
    assert caught.value.aws_code == "AccessDenied"


def test_a_canary_tells_our_lost_identity_from_a_customers_refusal(
    acme: Customer, runtime: Runtime, settings: Settings, stack: Stack
) -> None:
    """Assuming the customer's role fails; a role of our own decides whose doing that is."""
    own = CustomerAccount(stack.simulator.url, VENDOR_ACCOUNT_ID)
    trust = {**policies.trust_policy(VENDOR, "x")}
    del trust["Statement"][0]["Condition"]["StringEquals"]
    name = f"canary-{acme.account.account_id}"
    canary = own.create_role(name, trust, policies.role_permissions(acme.kms_key, acme.tenant.id))
    acme.account.delete_role("byok")
    guarded = build(settings.model_copy(update={"canary_role_arn": canary}))
    for number in range(6):  # many in a row: each time the canary proves that it is not our doing
        with pytest.raises(KmsAccessRevoked):
            guarded.kms.describe_key(replace(connection(acme), tenant_id=UUID(int=number)))
    own.delete_role(name)
    with pytest.raises(KmsRequestRejected, match="canary"):
        generate(acme, guarded)
    assert state_after_a_rotation(guarded) is TenantState.ACTIVE
    guarded.close()
