"""What needs a version beyond reading fields: for whoever wants to destroy it."""

from collections.abc import Sequence

from byok.core.blind_index import pinned_versions
from byok.core.model import Key, KeyVersion
from byok.ports import Transaction


def blind_indexes(tx: Transaction, key: Key, version: KeyVersion) -> Sequence[str]:  # noqa: ARG001  # as every pin
    """A version that blind indexes are computed under."""
    return ["its key's blind indexes rest on it"] if version.number in pinned_versions(key) else []


def registered_tables(tx: Transaction, key: Key, version: KeyVersion) -> Sequence[str]:
    """A version that a registered table may still hold tokens of: no campaign has counted none."""
    unproven = []
    for target in tx.targets.list(key.id):
        proven = tx.campaigns.find_proven(target.id)
        if proven is None or proven <= version.number:
            unproven.append(f"no campaign has proven that {target.shape.name} holds nothing under it")
    return unproven
