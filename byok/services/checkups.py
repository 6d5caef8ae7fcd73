"""Looking after what is in use: probing tenants' access, validating active versions."""

from byok.core.model import Check, Key, KeyVersion, Tenant, TenantState
from byok.errors import KmsAccessRevoked, LostRace, NotReady
from byok.ports import Clock, Store
from byok.services.access import Access
from byok.services.leases import LeaseDesk
from byok.services.suspension import (
    Suspensions,
    is_leaving,
    is_over,
    require_active,
    require_unmoved,
)
from byok.services.validation import Rejected, Validator


class Checkups:
    """Periodic checks of tenants and versions."""

    def __init__(
        self,
        *,
        store: Store,
        access: Access,
        desk: LeaseDesk,
        validator: Validator,
        suspensions: Suspensions,
        clock: Clock,
    ) -> None:
        self._store = store
        self._access = access
        self._desk = desk
        self._validator = validator
        self._suspensions = suspensions
        self._clock = clock

    def probe(self, tenant_name: str) -> TenantState:
        """Prove a tenant's access by a new session and a real Decrypt; suspend or resume accordingly.

        What the Decrypt of an active tenant brought renews the lease of the whole fleet. A suspended tenant
        without any version is let go on by the checks of its connection; an active one stays as it is.

        Raises:
            UnknownTenant, KmsUnavailable, IntegrityError.
        """
        with self._store.transaction() as tx:
            tenant = tx.tenants.get(tenant_name)
        if tenant.state not in (TenantState.ACTIVE, TenantState.SUSPENDED) or is_leaving(tenant):
            return tenant.state
        versions = self._access.active_versions(tenant)
        try:
            if versions:
                self._prove(tenant, *versions[0])
            elif self._may_go_on(tenant):
                self._access.prove_all(tenant)
        except KmsAccessRevoked as refusal:
            self._suspensions.revoked(tenant, refusal, actor="probe")
            return TenantState.SUSPENDED
        return self._go_on(tenant) if self._may_go_on(tenant) else tenant.state

    def _prove(self, tenant: Tenant, key: Key, version: KeyVersion) -> None:
        proof = self._access.prove(tenant, version)
        if tenant.state is TenantState.ACTIVE and key.lease_ttl:
            self._desk.put(tenant, key, version.number, proof.secret, proof.decrypted_at)
        proof.secret.wipe()

    def _may_go_on(self, tenant: Tenant) -> bool:
        return tenant.suspension is not None and is_over(tenant.suspension, self._clock.now())

    def _go_on(self, tenant: Tenant) -> TenantState:
        try:
            return self._suspensions.resume(tenant, actor="probe").state
        except LostRace:
            return tenant.state

    def validate(self, tenant_name: str, key_name: str, *, actor: str) -> tuple[int, tuple[Check, ...]]:
        """Run the gate over a key's active version; store and return the report with its number.

        Raises:
            UnknownTenant, UnknownKey, TenantNotActive, NotReady, ValidationFailed, KmsUnavailable,
            KmsAccessRevoked.
        """
        with self._store.transaction() as tx:
            tenant = tx.tenants.get(tenant_name)
            require_active(tenant)
            key = tx.keys.get(tenant, key_name)
            versions = tx.versions.list(key.id)
            version = tx.versions.find_active(key.id)
            require_unmoved(tx, tenant)
        if version is None:
            raise NotReady(f"key {key_name!r} of tenant {tenant_name!r} has no active version yet")
        try:
            checks = self._validator.validate(tenant, key, version, versions).checks
            failure = None
        except KmsAccessRevoked as refusal:
            self._suspensions.revoked(tenant, refusal, actor="validation")
            raise
        except Rejected as rejected:
            checks, failure = rejected.checks, rejected
        now = self._clock.now()
        with self._store.transaction() as tx:
            tx.versions.set_checks(version, checks)
            tx.audit.append(
                tenant.id, now, actor, "version.validation-failed" if failure else "version.revalidated",
                key=key.name, version=version.number,
                failed=", ".join(check.name for check in checks if not check.passed),
            )  # fmt: skip
        if failure is not None:
            raise failure
        return version.number, checks
