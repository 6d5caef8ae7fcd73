"""Looking after what is in use: probing tenants' access, validating active versions."""

from byok.core.model import Check, Tenant, TenantEvent, TenantState
from byok.crypto.hazmat import fingerprint
from byok.errors import KmsAccessRevoked, KmsIntegrityError, LostRace, NotReady
from byok.logs import get_logger
from byok.ports import Clock, Store
from byok.services.records import Records
from byok.services.suspension import Suspensions, require_active
from byok.services.validation import Rejected, Validator

log = get_logger(__name__)


class Checkups:
    """Periodic checks of tenants and versions."""

    def __init__(
        self, store: Store, records: Records, validator: Validator, suspensions: Suspensions, clock: Clock
    ) -> None:
        self._store = store
        self._records = records
        self._validator = validator
        self._suspensions = suspensions
        self._clock = clock

    def probe(self, tenant_name: str) -> TenantState:
        """Prove a tenant's access by a new session and a real Decrypt; suspend or resume accordingly.

        A tenant without any version has nothing to prove it by, and stays as it is.

        Raises:
            UnknownTenant, KmsUnavailable, IntegrityError.
        """
        with self._store.transaction() as tx:
            tenant = tx.tenants.get(tenant_name)
            active = [tx.versions.find_active(key.id) for key in tx.keys.list(tenant.id)]
        versions = [version for version in active if version is not None]
        if tenant.state not in (TenantState.ACTIVE, TenantState.SUSPENDED) or not versions:
            return tenant.state
        version = versions[0]
        try:
            unwrapped = self._records.unwrap(tenant, version, fresh_session=True)
        except KmsAccessRevoked as refusal:
            self._suspensions.revoked(tenant, refusal, actor="probe")
            return TenantState.SUSPENDED
        if fingerprint(unwrapped.secret) != version.fingerprint:
            raise KmsIntegrityError(
                f"KMS decrypts version {version.number} of tenant {tenant_name!r} to another secret",
                remedy="don't resume; find out what changed in the KMS key or the record",
            )
        unwrapped.secret.wipe()
        return self._resume(tenant) if _resumes_by_itself(tenant) else tenant.state

    def _resume(self, tenant: Tenant) -> TenantState:
        now = self._clock.now()
        try:
            with self._store.transaction() as tx:
                tx.tenants.transition(tenant, TenantEvent.RESUME, now)
                tx.audit.append(tenant.id, now, "probe", "tenant.resumed")
        except LostRace:
            return tenant.state
        log.info("tenant_resumed", tenant=tenant.name)
        return TenantState.ACTIVE

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


def _resumes_by_itself(tenant: Tenant) -> bool:
    """Only what AWS's refusal stopped comes back by itself; a lock by a person stays."""
    return tenant.suspension is not None and bool(tenant.suspension.aws_code)
