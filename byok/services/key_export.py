"""A customer takes its keys along: all live versions of a key in Tink keysets, encrypted by its own KMS.

Nothing of it is in clear outside this module but in the call to KMS. Each export is in the tenant's audit
chain before anybody gets it.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from byok.core.key_export import (
    export_associated_data,
    show_numbers,
    split_versions,
    tink_kms_context,
)
from byok.core.lifecycle import may_decrypt
from byok.core.model import Key, KeyVersion, Tenant, VersionState
from byok.crypto.hazmat import SecretBytes
from byok.crypto.keysets import (
    KeysetInfo,
    encrypted_keyset_json,
    read_keyset_info,
    require_tink,
    serialize_keyset,
)
from byok.errors import InvariantBroken, KmsAccessRevoked, KmsRequestRejected, LostRace, NotReady
from byok.ports import Clock, Kms, Store, Transaction, WrappedKey
from byok.services.access import Access
from byok.services.records import require_connection
from byok.services.suspension import Suspensions, require_active

# How many versions were unwrapped, of how many.
Progress = Callable[[int, int], None]


class ExportNotAllowed(KmsRequestRejected):
    """The customer's KMS key does not let us encrypt an export. It stops nothing else."""


@dataclass(frozen=True, slots=True)
class ExportedKeyset:
    """A Tink EncryptedKeyset as JSON, and the versions in it. ``request_id`` is that of the KMS Encrypt."""

    versions: Sequence[int]
    document: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Exported:
    """All live versions of a key; ``active`` is the primary of each keyset."""

    kms_key_arn: str
    associated_data: str
    active: int
    keysets: Sequence[ExportedKeyset]


@dataclass(frozen=True, slots=True)
class _Live:
    """A key with the versions that decrypt, by number."""

    tenant: Tenant
    key: Key
    active: int
    versions: dict[int, KeyVersion]

    @property
    def substance(self) -> tuple[object, ...]:
        """What an export rests on."""
        return (self.active, list(self.versions), self.tenant.connection)


class KeyExporter:
    """Exports keys."""

    def __init__(
        self, *, store: Store, kms: Kms, access: Access, suspensions: Suspensions, clock: Clock
    ) -> None:
        self._store = store
        self._kms = kms
        self._access = access
        self._suspensions = suspensions
        self._clock = clock

    def export(
        self, tenant_name: str, key_name: str, *, actor: str, on_version: Progress = lambda *_: None
    ) -> Exported:
        """Encrypt all versions of a key that decrypt under the customer's KMS key.

        Raises:
            ConfigurationError: Tink is not installed; UnknownTenant, UnknownKey, TenantNotActive;
            NotReady: no version is active; LostRace: versions came or went meanwhile;
            ExportNotAllowed: the customer does not give kms:Encrypt for it;
            KmsAccessRevoked, KmsUnavailable, IntegrityError.
        """
        require_tink()
        with self._store.transaction() as tx:
            tenant = tx.tenants.get(tenant_name)
            live = _read_live(tx, tenant, tx.keys.get(tenant, key_name))
        associated_data = export_associated_data(tenant.id, live.key.id)
        parts = split_versions(live.versions, live.active)
        total, numbers = sum(map(len, parts)), itertools.count(1)
        keysets = [
            self._encrypted(live, part, associated_data, lambda: on_version(next(numbers), total))
            for part in parts
        ]
        self._record(live, keysets, actor)
        arn = str(require_connection(tenant).kms_key_arn)
        return Exported(arn, associated_data, live.active, keysets)

    def _encrypted(
        self, live: _Live, numbers: Sequence[int], associated_data: str, on_next: Callable[[], None]
    ) -> ExportedKeyset:
        secrets: dict[int, SecretBytes] = {}
        try:
            for number in numbers:
                secrets[number] = self._unwrapped(live.tenant, live.versions[number])
                on_next()
            keyset = serialize_keyset(secrets, live.active)
        finally:
            for secret in secrets.values():
                secret.wipe()
        try:
            encrypted = self._encrypt(live, keyset, associated_data)
        finally:
            keyset.wipe()
        document = encrypted_keyset_json(encrypted.ciphertext, numbers, live.active)
        if read_keyset_info(document) != KeysetInfo(frozenset(numbers), live.active):
            raise InvariantBroken("the keyset that was written names other versions than were exported")
        return ExportedKeyset(numbers, document, encrypted.request_id)

    def _unwrapped(self, tenant: Tenant, version: KeyVersion) -> SecretBytes:
        try:
            return self._access.prove(tenant, version, fresh_session=False).secret
        except KmsAccessRevoked as refusal:
            self._suspensions.revoked(tenant, refusal, actor="export")
            raise

    def _encrypt(self, live: _Live, keyset: SecretBytes, associated_data: str) -> WrappedKey:
        """Its refusal suspends nobody: it is a right that byok has for an errand alone."""
        connection = require_connection(live.tenant)
        try:
            return self._kms.encrypt(connection, keyset, tink_kms_context(associated_data))
        except KmsAccessRevoked as refusal:
            if refusal.aws_code != "AccessDeniedException":
                raise
            name, key = live.tenant.name, live.key.name
            raise ExportNotAllowed(
                f"{connection.kms_key_arn} does not let us encrypt an export of {name}/{key}",
                aws_code=refusal.aws_code,
                remedy=f"the customer adds what byok tenant policy {name} --for export --key {key} prints;"
                " then do this again, some minutes later if need be: IAM takes its time",
            ) from refusal

    def _record(self, live: _Live, keysets: Sequence[ExportedKeyset], actor: str) -> None:
        """Write it down, unless versions came or went, or the tenant was stopped, since the export began."""
        with self._store.transaction() as tx:
            key = tx.keys.lock(live.key.id)
            tenant = tx.tenants.lock(live.tenant.id)
            now = _read_live(tx, tenant, key)
            if now.substance != live.substance:
                raise LostRace(
                    f"key {key.name!r} of tenant {tenant.name!r} got other versions, or another KMS key,"
                    " during the export",
                    remedy="do this again",
                )
            tx.audit.append(
                tenant.id, self._clock.now(), actor, "key.exported",
                key=live.key.name, versions=show_numbers(live.versions), active=live.active,
                kms_key_arn=str(require_connection(tenant).kms_key_arn), keysets=len(keysets),
                kms_request_ids=", ".join(keyset.request_id for keyset in keysets),
            )  # fmt: skip


def _read_live(tx: Transaction, tenant: Tenant, key: Key) -> _Live:
    require_active(tenant)
    versions = {one.number: one for one in tx.versions.list(key.id) if may_decrypt(key, one)}
    active = [number for number, one in versions.items() if one.state is VersionState.ACTIVE]
    if not active:
        raise NotReady(f"key {key.name!r} of tenant {tenant.name!r} has no active version yet")
    return _Live(tenant, key, active[0], versions)
