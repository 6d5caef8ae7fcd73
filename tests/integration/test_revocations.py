"""How fast each of a customer's acts bites, and that the tests of it would notice if none did."""

import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from urllib.request import urlopen
from uuid import uuid4

import pytest

from byok.core import policies
from byok.core.arns import KmsKeyArn, RoleArn
from byok.core.encryption_context import version_context
from byok.core.model import Connection, TenantState
from byok.embedded.stack import Stack
from byok.errors import KmsAccessRevoked
from byok.kms.aws import AwsKms
from byok.kms.bulkhead import Bulkhead
from byok.simulator.control import SimulatorControl
from byok.simulator.customer import CustomerAccount
from byok.wiring import Runtime
from tests.customers import VENDOR, Customer, add_key, join
from tests.fakes import CountingMetrics, FakeClock, MemorySpool
from tests.revocations import REVOCATIONS


@pytest.fixture
def acme(stack: Stack, runtime: Runtime, simulator: SimulatorControl) -> Customer:
    customer = join(stack, runtime, "acme")
    add_key(runtime, "acme")
    return customer


def validate(runtime: Runtime) -> None:
    """A use of the key in a session that may be alive already."""
    runtime.services.checkups.validate("acme", "pii", actor="test")


@pytest.mark.parametrize("how", REVOCATIONS)
def test_a_probe_stops_the_tenant_and_nothing_is_served(acme: Customer, runtime: Runtime, how: str) -> None:
    token = runtime.services.vault.cipher("acme", "pii").encrypt(b"x", context=b"c")
    REVOCATIONS[how].act(acme.account, acme.kms_key)
    assert runtime.services.checkups.probe("acme") is TenantState.SUSPENDED
    runtime.services.desk.forget()
    with pytest.raises(Exception, match="suspended"):
        runtime.services.vault.cipher("acme", "pii").decrypt(token, context=b"c")


@pytest.mark.parametrize("how", REVOCATIONS)
def test_a_live_session_feels_it_or_goes_on_until_it_expires(
    acme: Customer, runtime: Runtime, simulator: SimulatorControl, how: str
) -> None:
    validate(runtime)
    REVOCATIONS[how].act(acme.account, acme.kms_key)
    if not REVOCATIONS[how].bites_live_session:
        validate(runtime)
        simulator.advance_clock(901)  # the session expires: 900 s is the bound of these
    with pytest.raises(KmsAccessRevoked):
        validate(runtime)


def test_revoking_sessions_alone_is_no_revocation(
    acme: Customer, runtime: Runtime, simulator: SimulatorControl
) -> None:
    """IAM's "Revoke active sessions" denies tokens issued before now; a new session is let in."""
    validate(runtime)
    simulator.advance_clock(2)
    acme.account.enable_key(acme.kms_key)  # any call: the log tells the simulator's time
    now = datetime.fromisoformat(simulator.calls()[-1]["at"])
    document = policies.role_permissions(acme.kms_key, acme.tenant.id)
    document["Statement"].append(
        {
            "Effect": "Deny",
            "Action": "*",
            "Resource": "*",
            "Condition": {"DateLessThan": {"aws:TokenIssueTime": f"{now:%Y-%m-%dT%H:%M:%SZ}"}},
        }
    )
    acme.account.put_role_policy("byok", document)
    simulator.forget_calls()
    validate(runtime)
    assert [call["outcome"] for call in simulator.calls(operation="AssumeRole")] == ["ok"]
    assert "AccessDeniedException" in {call["outcome"] for call in simulator.calls()}


def test_a_grant_lets_in_and_its_revocation_stops(stack: Stack, runtime: Runtime) -> None:
    """Key-policy mode over a grant: one click in, one click out."""
    account = CustomerAccount(stack.simulator.url, "299999999999")
    key = account.create_key()
    tenant = runtime.services.onboarding.add_tenant("globex", actor="test")
    grant = account.kms.create_grant(
        KeyId=key,
        GranteePrincipal=str(VENDOR),
        Operations=["GenerateDataKeyWithoutPlaintext", "Decrypt", "DescribeKey"],
        Constraints={"EncryptionContextSubset": {"byok-tenant": str(tenant.id)}},
    )
    verification = runtime.services.onboarding.verify_tenant("globex", actor="test", kms_key_arn=key)
    assert verification.passed, verification.findings
    add_key(runtime, "globex")
    account.kms.revoke_grant(KeyId=key, GrantId=grant["GrantId"])
    assert runtime.services.checkups.probe("globex") is TenantState.SUSPENDED


def test_a_change_bites_once_it_has_propagated(
    acme: Customer, runtime: Runtime, simulator: SimulatorControl
) -> None:
    simulator.delay_propagation(120)
    try:
        acme.account.delete_role_policy("byok")
        assert runtime.services.checkups.probe("acme") is TenantState.ACTIVE
        simulator.advance_clock(121)
        assert runtime.services.checkups.probe("acme") is TenantState.SUSPENDED
    finally:
        simulator.delay_propagation(0)


@pytest.fixture(scope="module")
def bare_moto() -> Iterator[str]:
    """moto as it comes, without the simulator's layer."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    for _ in range(300):
        try:
            urlopen(f"{url}/moto-api/", timeout=1).close()
            break
        except OSError:
            time.sleep(0.1)
    yield url
    server.terminate()
    server.wait(10)


@pytest.mark.parametrize("how", REVOCATIONS)
def test_bare_moto_notices_no_revocation(bare_moto: str, environment: object, how: str) -> None:
    """Over moto alone the tests above would be red: that they are green here proves something."""
    account = MotoCustomer(bare_moto, f"3{uuid4().int % 10**11:011d}")
    key, tenant_id = account.create_key(), uuid4()
    role = account.create_role(
        "byok", policies.trust_policy(VENDOR, "external-id"), policies.role_permissions(key, tenant_id)
    )
    kms = AwsKms(FakeClock(), Bulkhead(), CountingMetrics(), MemorySpool(), endpoint_url=bare_moto)
    connection = Connection(
        tenant_id, KmsKeyArn.parse(key), "external-id", RoleArn.parse(role), tenant_name="acme"
    )
    context = version_context(tenant_id, tenant_id, 1)
    wrapped = kms.generate_data_key(connection, context)
    REVOCATIONS[how].act(account, key)
    assert len(kms.decrypt(connection, wrapped.ciphertext, context, fresh_session=True).secret) == 32


class MotoCustomer(CustomerAccount):
    """A customer's administrator over moto, which knows keys in these calls by their bare id only."""

    def __init__(self, endpoint_url: str, account_id: str) -> None:
        super().__init__(endpoint_url, account_id)
        for client in (self.kms, self.iam):
            client.meta.events.register("before-sign.*", self._name_account)

    def _name_account(self, request: object, **_: object) -> None:
        request.headers["x-moto-account-id"] = self.account_id  # type: ignore[attr-defined]  # botocore's

    def disable_key(self, arn: str) -> None:
        super().disable_key(arn.rpartition("/")[2])

    def schedule_key_deletion(self, arn: str, days: int = 7) -> None:
        super().schedule_key_deletion(arn.rpartition("/")[2], days)
