"""The AWS adapter over the simulator: sessions, retries, and what counts as a revocation."""

import logging
import re
import socket
from dataclasses import replace

import boto3
import pytest

from byok.core import policies
from byok.core.arns import KmsKeyArn, RoleArn
from byok.core.encryption_context import version_context
from byok.core.model import Connection
from byok.embedded.stack import Stack
from byok.errors import KmsAccessRevoked, KmsRequestRejected, KmsUnavailable
from byok.simulator import VENDOR_ROLE_ARN
from byok.simulator.control import SimulatorControl
from byok.wiring import Runtime
from tests.customers import Customer, join

VENDOR = RoleArn.parse(VENDOR_ROLE_ARN)


@pytest.fixture
def acme(stack: Stack, runtime: Runtime, simulator: SimulatorControl) -> Customer:
    return join(stack, runtime, "acme")


def connection(customer: Customer) -> Connection:
    assert customer.tenant.connection is not None
    return customer.tenant.connection


def context(customer: Customer) -> dict[str, str]:
    return version_context(customer.tenant.id, customer.tenant.id, 1)


def calls(simulator: SimulatorControl, operation: str) -> int:
    return len(simulator.calls(operation=operation))


def test_one_session_serves_many_calls(acme: Customer, runtime: Runtime, simulator: SimulatorControl) -> None:
    simulator.forget_calls()
    for _ in range(5):
        runtime.kms.describe_key(connection(acme))
    assert calls(simulator, "AssumeRole") == 0  # the one of the connection check lives on
    runtime.kms.forget()
    runtime.kms.describe_key(connection(acme))
    assert calls(simulator, "AssumeRole") == 1


@pytest.mark.parametrize("fault", ["throttle", "internal_error", "bad_gateway", "reset"])
def test_a_passing_fault_is_retried(
    acme: Customer, runtime: Runtime, simulator: SimulatorControl, fault: str
) -> None:
    getattr(simulator, fault)(times=2, account=acme.account.account_id)
    wrapped = runtime.kms.generate_data_key(connection(acme), context(acme))
    assert wrapped.ciphertext


def test_a_lasting_fault_is_an_outage_and_no_revocation(
    acme: Customer, runtime: Runtime, simulator: SimulatorControl
) -> None:
    simulator.throttle(account=acme.account.account_id)
    with pytest.raises(KmsUnavailable, match="ThrottlingException"):
        runtime.kms.generate_data_key(connection(acme), context(acme))
    assert calls(simulator, "GenerateDataKeyWithoutPlaintext") >= 3


def test_a_denial_is_asked_again_once_with_a_new_session(
    acme: Customer, runtime: Runtime, simulator: SimulatorControl
) -> None:
    simulator.forget_calls()
    simulator.inject(code="AccessDeniedException", operation="DescribeKey", times=1)
    runtime.kms.describe_key(connection(acme))
    assert (calls(simulator, "DescribeKey"), calls(simulator, "AssumeRole")) == (2, 1)
    simulator.forget_calls()
    acme.account.delete_role_policy("byok")
    with pytest.raises(KmsAccessRevoked) as caught:
        runtime.kms.describe_key(connection(acme))
    assert caught.value.aws_code == "AccessDeniedException"
    assert (calls(simulator, "DescribeKey"), calls(simulator, "AssumeRole")) == (2, 1)


def test_an_expired_session_is_renewed(acme: Customer, runtime: Runtime, simulator: SimulatorControl) -> None:
    simulator.inject(code="ExpiredTokenException", operation="DescribeKey", times=1)
    assert runtime.kms.describe_key(connection(acme)).state == "Enabled"


def test_a_changed_trust_policy_is_noticed_by_a_fresh_session_only(acme: Customer, runtime: Runtime) -> None:
    wrapped = runtime.kms.generate_data_key(connection(acme), context(acme))
    acme.account.update_trust_policy("byok", policies.trust_policy(VENDOR, "another-external-id"))
    runtime.kms.decrypt(connection(acme), wrapped.ciphertext, context(acme))  # the live session goes on
    with pytest.raises(KmsAccessRevoked) as caught:
        runtime.kms.decrypt(connection(acme), wrapped.ciphertext, context(acme), fresh_session=True)
    assert caught.value.aws_code == "AccessDenied"


@pytest.mark.parametrize("state", ["pending deletion", "deleted role"])
def test_other_ways_to_revoke(acme: Customer, runtime: Runtime, state: str) -> None:
    if state == "pending deletion":
        acme.account.schedule_key_deletion(acme.kms_key)
    else:
        acme.account.delete_role("byok")
    with pytest.raises(KmsAccessRevoked):
        runtime.kms.generate_data_key(connection(acme), context(acme))


def test_an_enabled_key_that_says_invalid_state_is_an_outage(
    acme: Customer, runtime: Runtime, simulator: SimulatorControl
) -> None:
    """So it is with a key in an external key store whose proxy times out."""
    simulator.inject(code="KMSInvalidStateException", operation="GenerateDataKeyWithoutPlaintext")
    with pytest.raises(KmsUnavailable):
        runtime.kms.generate_data_key(connection(acme), context(acme))


def test_our_own_identity_in_trouble_is_no_revocation(
    acme: Customer, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIASTRANGER")
    runtime.kms.forget()
    with pytest.raises(KmsRequestRejected, match="InvalidClientTokenId"):
        runtime.kms.describe_key(connection(acme))


def test_key_policy_mode_needs_no_role(acme: Customer, runtime: Runtime) -> None:
    tenant = runtime.services.onboarding.add_tenant("globex", actor="test")
    key = acme.account.create_key()
    root = {"AWS": f"arn:aws:iam::{acme.account.account_id}:root"}
    own = {"Effect": "Allow", "Principal": root, "Action": "kms:*", "Resource": "*"}
    acme.account.put_key_policy(
        key,
        {"Version": "2012-10-17", "Statement": [own, *policies.key_policy_statements(VENDOR, tenant.id)]},
    )
    verification = runtime.services.onboarding.verify_tenant("globex", actor="test", kms_key_arn=key)
    assert verification.passed, verification.findings
    assert KmsKeyArn.parse(key).account == acme.account.account_id


def test_key_policy_mode_looks_for_our_credentials_once(
    acme: Customer, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[object] = []
    find = boto3.session.Session.get_credentials

    def look(session: boto3.session.Session) -> object:
        looked.append(session)
        return find(session)

    monkeypatch.setattr(boto3.session.Session, "get_credentials", look)
    direct = replace(connection(acme), role_arn=None)
    runtime.kms.forget()
    for _ in range(3):
        with pytest.raises(KmsAccessRevoked):  # this key's policy names no vendor
            runtime.kms.describe_key(direct)
    assert len(looked) == 1


def test_a_session_is_cut_down_to_what_we_need(
    acme: Customer, runtime: Runtime, simulator: SimulatorControl
) -> None:
    """However wide the customer made the role: what the session policy leaves out is refused."""
    wide = {"Effect": "Allow", "Action": "kms:*", "Resource": "*"}
    acme.account.put_role_policy("byok", {"Version": "2012-10-17", "Statement": [wide]})
    runtime.kms.forget()
    client = runtime.kms._sessions.kms_client("eu-central-1")
    other_key = acme.account.create_key()
    with runtime.kms._sessions.acting_as(connection(acme)):
        client.describe_key(KeyId=acme.kms_key)
        for forbidden in (
            lambda: client.encrypt(KeyId=acme.kms_key, Plaintext=b"x", EncryptionContext=context(acme)),
            lambda: client.generate_data_key(KeyId=acme.kms_key, KeySpec="AES_256"),
            lambda: client.describe_key(KeyId=other_key),
        ):
            with pytest.raises(client.exceptions.ClientError, match="no session policy allows"):
                forbidden()


def test_sessions_name_tenant_and_host(acme: Customer, simulator: SimulatorControl) -> None:
    """By them the customer finds us in its CloudTrail."""
    assumed = simulator.calls(operation="AssumeRole", key_arn=acme.role)
    assert assumed
    host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())
    assert {call["session_name"] for call in assumed} == {f"byok.{acme.tenant.id}.{host}"[:64]}


def test_no_plaintext_in_debug_logs(
    acme: Customer, runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    wrapped = runtime.kms.generate_data_key(connection(acme), context(acme))
    unwrapped = runtime.kms.decrypt(connection(acme), wrapped.ciphertext, context(acme))
    assert "Plaintext" not in caplog.text
    with unwrapped.secret.borrow() as raw:
        assert repr(bytes(raw))[2:-1] not in caplog.text


def test_a_signature_without_a_tenant_is_refused(runtime: Runtime) -> None:
    client = runtime.kms._sessions.kms_client("eu-central-1")
    with pytest.raises(LookupError):
        client.list_keys()
