"""Proof that a customer lets us in now: a new session, a real Decrypt, and the secret we know."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from byok.core.findings import Verdict
from byok.core.model import Key, KeyVersion, Tenant
from byok.crypto.hazmat import SecretBytes, fingerprint
from byok.errors import KmsAccessRevoked, KmsIntegrityError
from byok.ports import Clock, Kms, Store
from byok.services.records import Records, require_connection
from byok.services.suspension import require_unmoved


@dataclass(frozen=True, slots=True)
class Proof:
    """What a proof brought: a version's secret, and when KMS was asked for it."""

    secret: SecretBytes
    decrypted_at: datetime


class Access:
    """Proves access to customers' KMS keys."""

    def __init__(self, store: Store, kms: Kms, records: Records, clock: Clock) -> None:
        self._store = store
        self._kms = kms
        self._records = records
        self._clock = clock

    def active_versions(self, tenant: Tenant) -> Sequence[tuple[Key, KeyVersion]]:
        """The versions by which a tenant's access can be proven.

        Raises:
            LostRace: the tenant changed meanwhile.
        """
        with self._store.transaction() as tx:
            pairs = [(key, tx.versions.find_active(key.id)) for key in tx.keys.list(tenant.id)]
            require_unmoved(tx, tenant)
        return [(key, version) for key, version in pairs if version is not None]

    def prove(self, tenant: Tenant, version: KeyVersion, *, fresh_session: bool = True) -> Proof:
        """Decrypt a version; in a session of its own, so that a changed trust policy is noticed, unless told
        otherwise.

        Raises:
            KmsAccessRevoked, KmsUnavailable, IntegrityError.
        """
        decrypted_at = self._clock.now()
        unwrapped = self._records.unwrap(tenant, version, fresh_session=fresh_session)
        if fingerprint(unwrapped.secret) != version.fingerprint:
            raise KmsIntegrityError(
                f"KMS decrypts version {version.number} of tenant {tenant.name!r} to another secret",
                remedy="don't resume; find out what changed in the KMS key or the record",
            )
        return Proof(unwrapped.secret, decrypted_at)

    def prove_all(self, tenant: Tenant) -> None:
        """Prove every active version; where there is none yet, run the checks of the connection.

        Raises:
            KmsAccessRevoked, KmsUnavailable, IntegrityError, TenantNotActive: it has no connection.
        """
        versions = self.active_versions(tenant)
        for _, version in versions:
            self.prove(tenant, version).secret.wipe()
        if not versions:
            for finding in self._kms.check_connection(require_connection(tenant)):
                if finding.verdict is Verdict.FAILED:
                    raise KmsAccessRevoked(f"{finding.check}: {finding.explanation}", remedy=finding.remedy)
