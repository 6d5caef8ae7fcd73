"""Which versions stand in which keyset."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byok.core.key_export import (
    VERSIONS_PER_KEYSET,
    export_associated_data,
    show_numbers,
    split_versions,
    tink_kms_context,
)

TENANT = UUID("01a20c8e-4efd-7194-bf1d-0834216456f8")
KEY = UUID("01a20c8e-4efd-7194-bf1d-0834216456f9")


@given(st.sets(st.integers(1, 2**32 - 1), max_size=200), st.integers(1, 2**32 - 1))
def test_each_version_is_in_one_keyset_and_the_active_one_in_all(numbers: set[int], active: int) -> None:
    parts = split_versions(numbers | {active}, active)
    assert set().union(*parts) == numbers | {active}
    assert all(active in part and len(part) <= VERSIONS_PER_KEYSET for part in parts)
    others = [number for part in parts for number in part if number != active]
    assert others == sorted(numbers - {active})
    assert len(parts) == max(1, -(-len(others) // (VERSIONS_PER_KEYSET - 1)))


@pytest.mark.parametrize(
    ("numbers", "shown"),
    [([], ""), ([3], "3"), ([2, 1], "1-2"), ([1, 2, 3, 5, 7, 8], "1-3, 5, 7-8"), ([2, 4], "2, 4")],
)
def test_numbers_in_few_words(numbers: list[int], shown: str) -> None:
    assert show_numbers(numbers) == shown


def test_what_it_is_bound_to_names_tenant_and_key_by_their_ids() -> None:
    told = export_associated_data(TENANT, KEY)
    assert told == f"byok/export/1/tenant/{TENANT}/key/{KEY}"
    assert tink_kms_context(told) == {"associatedData": told.encode().hex()}
