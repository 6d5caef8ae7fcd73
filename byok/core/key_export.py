"""Taking keys along: which versions stand in which Tink keyset, and what that is bound to. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from uuid import UUID

# KMS Encrypt takes 4096 bytes. With the greatest version numbers there can be, 38 versions are 4,072 bytes of
# protobuf, and 39 are 4,179 (tests/unit/crypto/test_keysets.py).
VERSIONS_PER_KEYSET = 38


def export_associated_data(tenant_id: UUID, key_id: UUID) -> str:
    """What an exported keyset is bound to. Tink shows it to AWS, which writes it into CloudTrail, so that it
    names ids and no names."""
    return f"byok/export/1/tenant/{tenant_id}/key/{key_id}"


def tink_kms_context(associated_data: str) -> Mapping[str, str]:
    """The encryption context that Tink's AWS KMS integration makes of associated data."""
    return {"associatedData": associated_data.encode().hex()}


def split_versions(numbers: Iterable[int], active: int) -> Sequence[Sequence[int]]:
    """Version numbers by keyset, in order, as few as there can be.

    The active version is in each, for each keyset needs a primary, and whoever encrypts with one shall do so
    under the version that is active.
    """
    others = sorted(set(numbers) - {active})
    room = VERSIONS_PER_KEYSET - 1
    parts = [others[begin : begin + room] for begin in range(0, len(others), room)]
    return [sorted([*part, active]) for part in parts or [[]]]


def show_numbers(numbers: Iterable[int]) -> str:
    """Version numbers in few words, such as ``1-3, 5``."""
    ordered = sorted(set(numbers))
    begins = [*ordered[:1], *(after for before, after in pairwise(ordered) if after != before + 1)]
    ends = [*(before for before, after in pairwise(ordered) if after != before + 1), *ordered[-1:]]
    return ", ".join(
        str(begin) if begin == end else f"{begin}-{end}" for begin, end in zip(begins, ends, strict=True)
    )
