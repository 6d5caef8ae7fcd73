"""What needs a version beyond reading fields: for whoever wants to destroy it."""

from collections.abc import Sequence

from byok.core.blind_index import pinned_versions
from byok.core.destruction import Objection
from byok.core.model import Key, KeyVersion, Tenant
from byok.ports import Transaction


def blind_indexes(
    tx: Transaction,  # noqa: ARG001  # as every pin
    tenant: Tenant,
    key: Key,
    version: KeyVersion,
) -> Sequence[Objection]:
    """A version that blind indexes are computed under."""
    if version.number not in pinned_versions(key):
        return []
    return [
        Objection(
            f"version {version.number} is pinned: its key's blind indexes rest on it",
            f"rebuild them under the active version: byok key index {tenant.name} {key.name} --rebuild",
        )
    ]


def registered_tables(tx: Transaction, tenant: Tenant, key: Key, version: KeyVersion) -> Sequence[Objection]:
    """A version that a registered table may still hold tokens of: no campaign has counted none."""
    unproven = []
    for target in tx.targets.list(key.id):
        proven = tx.campaigns.find_proven(target.id)
        if proven is None or proven <= version.number:
            unproven.append(
                Objection(
                    f"version {version.number} is pinned: no campaign has proven that {target.shape.name}"
                    " holds nothing under it",
                    f"byok reencrypt start {tenant.name} {key.name} --target {target.id}",
                )
            )
    return unproven
