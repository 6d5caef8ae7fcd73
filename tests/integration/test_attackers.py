"""What the threat model says of each attacker, by one that tries, with real servers and enforced policies.

Each holds just what the threat model gives it: `docs/threat-model.md` refers to these tests.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import boto3
import pytest
import redis
from botocore.exceptions import ClientError

from byok.core import policies
from byok.core.encryption_context import version_context
from byok.core.model import KeyVersion
from byok.core.policies import FOREIGN_TENANT_ID
from byok.crypto.hazmat import SecretBytes
from byok.crypto.keyring import MasterKeyRing
from byok.embedded.stack import Stack
from byok.entropy import SystemRandom
from byok.errors import KmsAccessRevoked, KmsIntegrityError, SealBroken, UnknownMasterKey
from byok.services.records import open_record
from byok.simulator import VENDOR_ACCESS_KEY_ID, VENDOR_SECRET_ACCESS_KEY
from byok.simulator.control import SimulatorControl
from byok.wiring import Runtime
from tests.customers import VENDOR, Customer, add_key, join

CONTEXT = b"users.email:1"
ADA = b"ada@example.com"


@dataclass
class Prey:
    """A customer with a key in use, and what lies about because of it."""

    stack: Stack
    runtime: Runtime
    customer: Customer
    version: KeyVersion
    secret: bytes

    @property
    def tenant_id(self) -> UUID:
        return self.customer.tenant.id

    @property
    def context(self) -> dict[str, str]:
        return version_context(self.tenant_id, self.version.key_id, self.version.number)


@pytest.fixture
def prey(stack: Stack, runtime: Runtime) -> Prey:
    customer = join(stack, runtime, "acme")
    add_key(runtime, "acme")
    runtime.services.vault.cipher("acme", "pii").encrypt(ADA, context=CONTEXT)
    with runtime.store.transaction() as tx:
        tenant = tx.tenants.get("acme")
        version = tx.versions.get(tx.keys.get(tenant, "pii").id, 1)
    wrapped = open_record(runtime.master_keys, tenant.id, version)
    assert tenant.connection is not None
    context = version_context(tenant.id, version.key_id, version.number)
    with runtime.kms.decrypt(tenant.connection, wrapped, context).secret.borrow() as raw:
        secret = bytes(raw)
    return Prey(stack, runtime, customer, version, secret)


def own_ring(key_id: str = "main") -> MasterKeyRing:
    """The master keys of somebody who has none of ours, under any name."""
    random = SystemRandom()
    return MasterKeyRing([(key_id, SecretBytes(random.bytes(32)))], random.bytes)


def client(service: str, prey: Prey, credentials: Mapping[str, str]) -> Any:
    session: Any = boto3.session.Session()
    return session.client(
        service, endpoint_url=prey.stack.simulator.url, region_name="eu-central-1", **credentials
    )


def stolen_vendor_identity() -> dict[str, str]:
    return {
        "aws_access_key_id": VENDOR_ACCESS_KEY_ID,
        "aws_secret_access_key": VENDOR_SECRET_ACCESS_KEY,
    }


def assume(prey: Prey, **arguments: str) -> dict[str, str]:
    """The customer's role, by the vendor's stolen identity; its credentials."""
    sts = client("sts", prey, stolen_vendor_identity())
    assumed = sts.assume_role(RoleArn=prey.customer.role, RoleSessionName="thief", **arguments)["Credentials"]
    return {
        "aws_access_key_id": assumed["AccessKeyId"],
        "aws_secret_access_key": assumed["SecretAccessKey"],
        "aws_session_token": assumed["SessionToken"],
    }


def refusal(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


# --- a dump of PostgreSQL ---------------------------------------------------------------------------


def test_a_dump_of_postgresql_opens_with_no_other_master_key(prey: Prey) -> None:
    with pytest.raises(UnknownMasterKey):
        open_record(own_ring("other"), prey.tenant_id, prey.version)
    with pytest.raises(SealBroken):
        open_record(own_ring(prey.version.sealed_wrapped_key.master_key_id), prey.tenant_id, prey.version)


def test_with_the_master_key_too_it_still_takes_the_customers_kms(prey: Prey) -> None:
    wrapped = open_record(prey.runtime.master_keys, prey.tenant_id, prey.version)
    assert prey.secret not in wrapped
    stranger = {"aws_access_key_id": "AKIAADMN999999999999", "aws_secret_access_key": "x"}
    with pytest.raises(ClientError) as refused:
        client("kms", prey, stranger).decrypt(
            KeyId=prey.customer.kms_key, CiphertextBlob=wrapped, EncryptionContext=prey.context
        )
    assert refusal(refused) == "AccessDeniedException"


# --- a dump of Redis --------------------------------------------------------------------------------


def test_a_dump_of_redis_holds_no_secret(prey: Prey) -> None:
    with redis.Redis.from_url(prey.stack.environment["BYOK_CACHE_URL"]) as cache:
        leases = [cache.get(name) for name in cache.scan_iter(f"byok:lease:{{{prey.tenant_id}}}:*")]
    (lease,) = leases
    assert isinstance(lease, bytes)
    assert len(lease) > len(prey.secret)
    assert prey.secret not in lease


# --- the vendor's AWS identity ----------------------------------------------------------------------


@pytest.mark.parametrize("external_id", [None, "byok-of-another-tenant"])
def test_the_vendors_identity_alone_opens_no_role(prey: Prey, external_id: str | None) -> None:
    with pytest.raises(ClientError) as refused:
        assume(prey, **({} if external_id is None else {"ExternalId": external_id}))
    assert refusal(refused) == "AccessDenied"


@pytest.fixture
def stolen_session(prey: Prey) -> Any:
    """KMS as the customer's role, by who has the vendor's identity and read the external id in PostgreSQL;
    not cut down by any session policy."""
    return client("kms", prey, assume(prey, ExternalId=prey.customer.tenant.external_id))


def test_with_the_external_id_the_customers_policy_is_the_bound(prey: Prey, stolen_session: Any) -> None:
    key = {"KeyId": prey.customer.kms_key}
    foreign = prey.context | {"byok-tenant": str(FOREIGN_TENANT_ID)}
    attempts: list[Callable[[], object]] = [
        lambda: stolen_session.generate_data_key(**key, KeySpec="AES_256", EncryptionContext=prey.context),
        lambda: stolen_session.encrypt(**key, Plaintext=b"x", EncryptionContext=prey.context),
        lambda: stolen_session.generate_data_key_without_plaintext(
            **key, KeySpec="AES_256", EncryptionContext=foreign
        ),
        lambda: stolen_session.generate_data_key_without_plaintext(**key, KeySpec="AES_256"),
        lambda: stolen_session.schedule_key_deletion(**key),
        lambda: stolen_session.disable_key(**key),
        lambda: stolen_session.put_key_policy(**key, Policy="{}", PolicyName="default"),
    ]
    for attempt in attempts:
        with pytest.raises(ClientError) as refused:
            attempt()
        assert refusal(refused) == "AccessDeniedException"


def test_what_it_does_get_stands_in_the_customers_cloudtrail(
    prey: Prey, stolen_session: Any, simulator: SimulatorControl
) -> None:
    wrapped = open_record(prey.runtime.master_keys, prey.tenant_id, prey.version)
    key = prey.customer.kms_key
    opened = stolen_session.decrypt(KeyId=key, CiphertextBlob=wrapped, EncryptionContext=prey.context)
    assert opened["Plaintext"] == prey.secret
    (record,) = [
        one
        for one in simulator.cloudtrail(prey.customer.account.account_id)
        if one["requestID"] == opened["ResponseMetadata"]["RequestId"]
    ]
    assert record["userIdentity"]["arn"].endswith("/thief")
    assert record["requestParameters"]["encryptionContext"] == prey.context


def test_a_session_that_is_open_ends_with_the_customers_word(prey: Prey, stolen_session: Any) -> None:
    wrapped = open_record(prey.runtime.master_keys, prey.tenant_id, prey.version)
    prey.customer.account.delete_role_policy("byok")
    with pytest.raises(ClientError) as refused:
        stolen_session.decrypt(
            KeyId=prey.customer.kms_key, CiphertextBlob=wrapped, EncryptionContext=prey.context
        )
    assert refusal(refused) == "AccessDeniedException"


# --- a malicious tenant -----------------------------------------------------------------------------


def test_another_tenants_role_does_not_open_ours(prey: Prey) -> None:
    globex = join(prey.stack, prey.runtime, "globex")
    wrapped = open_record(prey.runtime.master_keys, prey.tenant_id, prey.version)
    assert globex.tenant.connection is not None
    for context in (prey.context, version_context(globex.tenant.id, prey.version.key_id, 1)):
        with pytest.raises((KmsAccessRevoked, KmsIntegrityError)):
            prey.runtime.kms.decrypt(globex.tenant.connection, wrapped, context)


def test_two_tenants_on_one_kms_key_do_not_open_each_others(prey: Prey) -> None:
    wrapped = open_record(prey.runtime.master_keys, prey.tenant_id, prey.version)
    other = prey.runtime.services.onboarding.add_tenant("globex", actor="test")
    role = prey.customer.account.create_role(
        "globex",
        policies.trust_policy(VENDOR, other.external_id),
        policies.role_permissions(prey.customer.kms_key, other.id),
    )
    globex = prey.runtime.services.onboarding.verify_tenant(
        "globex", actor="test", kms_key_arn=prey.customer.kms_key, role_arn=role, shared=True
    ).tenant
    assert globex.connection is not None
    with pytest.raises(KmsAccessRevoked):
        prey.runtime.kms.decrypt(globex.connection, wrapped, prey.context)
    with pytest.raises(KmsIntegrityError):
        prey.runtime.kms.decrypt(
            globex.connection, wrapped, version_context(other.id, prey.version.key_id, 1)
        )
