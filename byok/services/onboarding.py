"""Bringing a customer in: register it, check its connection, let it become active."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

from byok.core.arns import KmsKeyArn, RoleArn
from byok.core.bounds import check_name
from byok.core.findings import Finding, failed
from byok.core.model import Connection, Tenant, TenantEvent, TenantState
from byok.core.provisioning import AccessMode
from byok.errors import ConnectionFixed, InvalidInput, NotReady
from byok.ports import Clock, Kms, Random, Store
from byok.services.records import require_connection
from byok.services.suspension import require_present


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
        mode: AccessMode | None = None,
        shared: bool = False,
    ) -> Verification:
        """Check a tenant's connection; a pending tenant whose checks all pass becomes active.

        The ARNs are needed the first time, and stored; later each can be corrected alone, until the tenant
        is active. Then it keeps its connection: another KMS key is a migration. A pending tenant gives up
        a role that it has by ``mode`` only. ``shared``: other tenants may have the same KMS key or role,
        since they belong to the same customer.

        Raises:
            UnknownTenant, InvalidArn, KmsKeyTaken, RoleTaken, ConnectionFixed, NotReady (no ARN known),
            InvalidInput (a role in key-policy mode), TenantNotActive (it has left), LostRace (its connection
            was changed meanwhile), KmsUnavailable.
        """
        wanted = _Wanted(kms_key_arn, role_arn, mode, shared)
        tenant, connection = self._connect(name, actor, wanted)
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

    def _connect(self, name: str, actor: str, wanted: "_Wanted") -> tuple[Tenant, Connection]:
        with self._store.transaction() as tx:
            tenant = tx.tenants.get(name)
            require_present(tenant)
            if tenant.state is not TenantState.PENDING:
                _require_same(tenant, wanted)
                return tenant, require_connection(tenant)
            connection = _merge(tenant, wanted)
            if connection != tenant.connection or wanted.shared:
                tx.tenants.set_connection(tenant, connection, shared=wanted.shared)
                tx.audit.append(
                    tenant.id, self._clock.now(), actor, "tenant.connection-set",
                    kms_key_arn=str(connection.kms_key_arn),
                    role_arn=None if connection.role_arn is None else str(connection.role_arn),
                    shared=str(wanted.shared).lower(),
                )  # fmt: skip
        return replace(tenant, connection=connection), connection


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the caller says of the connection; None leaves it as it is."""

    kms_key_arn: str | None
    role_arn: str | None
    mode: AccessMode | None
    shared: bool

    def __post_init__(self) -> None:
        if self.role_arn is not None and self.mode is AccessMode.KEY_POLICY:
            raise InvalidInput("key-policy mode has no role", remedy="leave out the role, or the mode")


def _merge(tenant: Tenant, wanted: _Wanted) -> Connection:
    """The connection of a pending tenant: what is given now, over what is known."""
    known = tenant.connection
    key = None if known is None else known.kms_key_arn
    role = None if known is None or wanted.mode is AccessMode.KEY_POLICY else known.role_arn
    if wanted.kms_key_arn is not None:
        key = KmsKeyArn.parse(wanted.kms_key_arn)
    if wanted.role_arn is not None:
        role = RoleArn.parse(wanted.role_arn)
    if key is None:
        raise _not_known(tenant, "KMS key")
    if role is None and wanted.mode is AccessMode.ROLE:
        raise _not_known(tenant, "role")
    return Connection(tenant.id, key, tenant.external_id, role, tenant_name=tenant.name)


def _not_known(tenant: Tenant, what: str) -> NotReady:
    return NotReady(
        f"tenant {tenant.name!r} has no {what} yet",
        remedy=f"byok tenant verify {tenant.name} --kms-key-arn ARN --role-arn ARN",
    )


def _require_same(tenant: Tenant, wanted: _Wanted) -> None:
    connection = require_connection(tenant)
    mode = AccessMode.KEY_POLICY if connection.role_arn is None else AccessMode.ROLE
    if (
        wanted.kms_key_arn in (None, str(connection.kms_key_arn))
        and wanted.role_arn in (None, str(connection.role_arn))
        and wanted.mode in (None, mode)
    ):
        return
    raise ConnectionFixed(
        f"tenant {tenant.name!r} is connected to another KMS key or role",
        remedy=f"to move it to another KMS key: byok tenant migrate {tenant.name} --kms-key-arn ARN",
    )
