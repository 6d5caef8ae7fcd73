"""Opening a version's record: unseal the wrapped key, have KMS unwrap it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from byok.core.encryption_context import version_context
from byok.core.model import Connection, Key, KeyVersion, SealedBox, Tenant
from byok.core.resealing import RecordKind, SealedRecord
from byok.crypto.keyring import MasterKeyRing
from byok.errors import TenantNotActive, UnknownVersion
from byok.ports import Kms, UnwrappedKey

RECORD_PURPOSE = "byok/record/1"
# What the seals of each kind are for. A record that is opened as another kind does not open.
_PURPOSES: Final[Mapping[RecordKind, str]] = {RecordKind.VERSION: RECORD_PURPOSE}


@dataclass(frozen=True, slots=True)
class Records:
    """Seals and opens version records with both the customer's KMS and our master key."""

    kms: Kms
    master_keys: MasterKeyRing

    def seal(self, tenant: Tenant, key: Key, number: int, wrapped_key: bytes) -> SealedBox:
        """Seal a wrapped key for its row."""
        return self.seal_for(require_connection(tenant), key.id, number, wrapped_key)

    def seal_for(self, connection: Connection, key_id: UUID, number: int, wrapped_key: bytes) -> SealedBox:
        """Seal a wrapped key for a row that names the KMS key of ``connection``."""
        named = str(connection.tenant_id), str(key_id), number, str(connection.kms_key_arn)
        return self.master_keys.seal(wrapped_key, RECORD_PURPOSE, *named)

    def wrapped_key(self, tenant: Tenant, version: KeyVersion) -> bytes:
        """Open the seal of a row: the wrapped key, which only the customer's KMS can unwrap.

        Raises:
            UnknownVersion: it is destroyed; SealBroken, UnknownMasterKey.
        """
        return open_record(self.master_keys, tenant.id, version)

    def unwrap(self, tenant: Tenant, version: KeyVersion, *, fresh_session: bool = False) -> UnwrappedKey:
        """The secret of a version, by a KMS Decrypt under the context rebuilt from the row.

        Raises:
            UnknownVersion: it is destroyed; SealBroken, UnknownMasterKey, and what `Kms.decrypt` raises.
        """
        context = version_context(tenant.id, version.key_id, version.number)
        return self.kms.decrypt(
            require_connection(tenant),
            self.wrapped_key(tenant, version),
            context,
            fresh_session=fresh_session,
        )


def open_record(master_keys: MasterKeyRing, tenant_id: UUID, version: KeyVersion) -> bytes:
    """Open the seal of a row; see `Records.wrapped_key`."""
    if not version.sealed_wrapped_key.body:
        raise UnknownVersion(f"version {version.number} is {version.state}: its wrapped key is gone")
    return master_keys.open(
        version.sealed_wrapped_key,
        RECORD_PURPOSE,
        str(tenant_id),
        str(version.key_id),
        version.number,
        str(version.kms_key_arn),
    )


def open_sealed(master_keys: MasterKeyRing, kind: RecordKind, record: SealedRecord) -> bytes:
    """Open a record as it is stored; the wrapped key in it opens with the customer's KMS alone.

    Raises:
        SealBroken, UnknownMasterKey.
    """
    return master_keys.open(record.box, _PURPOSES[kind], *_bound_to(record))


def reseal(master_keys: MasterKeyRing, kind: RecordKind, record: SealedRecord) -> SealedBox:
    """A record's seal under the ring's first key, bound to the same.

    Raises:
        SealBroken, UnknownMasterKey.
    """
    wrapped_key = open_sealed(master_keys, kind, record)
    return master_keys.seal(wrapped_key, _PURPOSES[kind], *_bound_to(record))


def _bound_to(record: SealedRecord) -> tuple[str | int, ...]:
    place = record.place
    return str(record.tenant_id), str(place.key_id), place.number, record.kms_key_arn


def require_connection(tenant: Tenant) -> Connection:
    """The tenant's connection.

    Raises:
        TenantNotActive: the tenant has none yet.
    """
    if tenant.connection is None:
        raise TenantNotActive(
            f"tenant {tenant.name!r} has no KMS key yet",
            remedy=f"byok tenant verify {tenant.name} --kms-key-arn ARN --role-arn ARN",
        )
    return tenant.connection
