"""Bringing a customer in: register it, check its connection, let it become active."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

from byok.core.bounds import check_name
from byok.core.findings import Finding, failed
from byok.core.model import (
    Connection,
    KmsKeyArn,
    RoleArn,
    Tenant,
    TenantEvent,
    TenantState,
)
from byok.errors import ConnectionFixed, NotReady
from byok.ports import Clock, Kms, Random, Store


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of checking a tenant's connection; ``failed`` is what keeps it from being active."""

    tenant: Tenant
    findings: Sequence[Finding]
    failed: Sequence[Finding]

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against the connection."""
        return not self.failed

    @property
    def may_pass_later(self) -> bool:
        """Whether what failed can be a change in AWS's IAM that has not arrived everywhere yet."""
        return bool(self.failed) and all(finding.may_pass_later for finding in self.failed)


class Onboarding:
    """Registers tenants, and verifies them: the one way for a tenant to become active.

    ``refuse_excess``: a connection with more rights than needed does not pass.
    """

    def __init__(self, store: Store, kms: Kms, clock: Clock, random: Random, *, refuse_excess: bool) -> None:
        self._store = store
        self._kms = kms
        self._clock = clock
        self._random = random
        self._refuse_excess = refuse_excess

    def add_tenant(self, name: str, *, actor: str) -> Tenant:
        """Register a tenant, pending, with an external id of its own.

        Raises:
            InvalidName, DuplicateTenant.
        """
        now = self._clock.now()
        tenant = Tenant(
            id=self._random.uuid(),
            name=check_name("tenant", name),
            state=TenantState.PENDING,
            external_id=f"byok-{secrets.token_urlsafe(24)}",  # 192 bits; AWS allows 2 to 1,224 characters
            created_at=now,
        )
        with self._store.transaction() as tx:
            tx.tenants.add(tenant)
            tx.audit.append(tenant.id, now, actor, "tenant.added", tenant=tenant.name)
        return tenant

    def verify_tenant(
        self,
        name: str,
        *,
        actor: str,
        kms_key_arn: str | None = None,
        role_arn: str | None = None,
        shared: bool = False,
    ) -> Verification:
        """Check a tenant's connection; a pending tenant whose checks all pass becomes active.

        The ARNs are needed the first time, and stored. An active or suspended tenant keeps its
        connection: another KMS key is a migration. ``shared``: other tenants may have the same KMS key
        or role, since they belong to the same customer.

        Raises:
            UnknownTenant, InvalidArn, KmsKeyTaken, RoleTaken, ConnectionFixed, NotReady (no ARN known),
            KmsUnavailable.
        """
        tenant, connection = self._connect(name, actor, kms_key_arn, role_arn, shared=shared)
        findings = self._kms.check_connection(connection)
        stopping = failed(findings, refuse_warnings=self._refuse_excess)
        # Read before the transaction: none is open across a KMS call.
        kms_key_rotation = None if stopping else self._kms.read_rotation(connection)
        now = self._clock.now()
        with self._store.transaction() as tx:
            if kms_key_rotation is not None and tenant.state is TenantState.PENDING:
                tenant = tx.tenants.transition(tenant, TenantEvent.VERIFY, now)
                tx.tenants.set_kms_key_rotation(tenant, kms_key_rotation.known, now)
            tx.audit.append(
                tenant.id, now, actor, "tenant.verification-failed" if stopping else "tenant.verified",
                kms_key_arn=str(connection.kms_key_arn),
                failed=", ".join(f"{finding.check}: {finding.cause}" for finding in stopping),
            )  # fmt: skip
        return Verification(tenant, findings, stopping)

    def _connect(
        self, name: str, actor: str, kms_key_arn: str | None, role_arn: str | None, *, shared: bool
    ) -> tuple[Tenant, Connection]:
        with self._store.transaction() as tx:
            tenant = tx.tenants.get(name)
            if tenant.state is TenantState.PENDING and kms_key_arn is not None:
                connection = _connection(tenant, kms_key_arn, role_arn)
                if connection != tenant.connection or shared:
                    tx.tenants.set_connection(tenant, connection, shared=shared)
                    tx.audit.append(
                        tenant.id, self._clock.now(), actor, "tenant.connection-set",
                        kms_key_arn=kms_key_arn, role_arn=role_arn, shared=str(shared).lower(),
                    )  # fmt: skip
                tenant = replace(tenant, connection=connection)
        _require_same(tenant, kms_key_arn, role_arn)
        if tenant.connection is None:
            raise NotReady(
                f"tenant {name!r} has no KMS key yet",
                remedy=f"byok tenant verify {name} --kms-key-arn ARN --role-arn ARN",
            )
        return tenant, tenant.connection


def _connection(tenant: Tenant, kms_key_arn: str, role_arn: str | None) -> Connection:
    role = None if role_arn is None else RoleArn.parse(role_arn)
    return Connection(tenant.id, KmsKeyArn.parse(kms_key_arn), tenant.external_id, role)


def _require_same(tenant: Tenant, kms_key_arn: str | None, role_arn: str | None) -> None:
    if tenant.connection is None:
        return
    stored_role = tenant.connection.role_arn
    if (kms_key_arn or str(tenant.connection.kms_key_arn)) != str(tenant.connection.kms_key_arn) or (
        role_arn is not None and role_arn != str(stored_role)
    ):
        raise ConnectionFixed(
            f"tenant {tenant.name!r} is connected to another KMS key or role",
            remedy="a verified tenant keeps its connection; moving to another KMS key is a migration",
        )
