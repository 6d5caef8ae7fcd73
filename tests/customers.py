"""Customers with real (simulated) AWS accounts, for tests over the real adapters."""

import itertools
from dataclasses import dataclass
from datetime import timedelta

from byok.core import policies
from byok.core.arns import RoleArn
from byok.core.model import Tenant
from byok.embedded.stack import Stack
from byok.simulator import VENDOR_ROLE_ARN
from byok.simulator.customer import CustomerAccount
from byok.wiring import Runtime

VENDOR = RoleArn.parse(VENDOR_ROLE_ARN)
_accounts = itertools.count(200_000_000_000)


@dataclass(frozen=True)
class Customer:
    """A tenant that is active, and the other side of it."""

    tenant: Tenant
    account: CustomerAccount
    kms_key: str
    role: str

    @property
    def name(self) -> str:
        return self.tenant.name


def new_account(stack: Stack) -> CustomerAccount:
    """An AWS account that nobody used before."""
    return CustomerAccount(stack.simulator.url, str(next(_accounts)))


def join(stack: Stack, runtime: Runtime, name: str) -> Customer:
    """Register, provision and verify a customer in role mode."""
    account = new_account(stack)
    tenant = runtime.services.onboarding.add_tenant(name, actor="test")
    kms_key = account.create_key()
    role = account.create_role(
        "byok",
        policies.trust_policy(VENDOR, tenant.external_id),
        policies.role_permissions(kms_key, tenant.id),
    )
    verification = runtime.services.onboarding.verify_tenant(
        name, actor="test", kms_key_arn=kms_key, role_arn=role
    )
    assert verification.passed, verification.findings
    return Customer(verification.tenant, account, kms_key, role)


def add_key(runtime: Runtime, tenant: str, key: str = "pii", ttl: timedelta = timedelta(hours=1)) -> None:
    """Create a key and run its first rotation in this process."""
    _, requested = runtime.services.registry.create_key(
        tenant, key, rotation_period=timedelta(days=30), lease_ttl=ttl, actor="test"
    )
    runtime.services.rotations.run(requested.rotation.id)
