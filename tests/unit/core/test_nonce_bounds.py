"""The figures of docs/spec/ciphertext.md, "How often may a nonce repeat?", from the constants in the code."""

from math import log2

import pytest

from byok.crypto.hazmat import GCM_IV_BYTES, XAES_SALT_BYTES
from byok.services.lease import MAX_LEASE_USES
from byok.settings import Settings

MOST_USES = 10_000_000


@pytest.mark.parametrize(
    ("uses", "messages", "within"),
    [(MAX_LEASE_USES, 40, -37), (MAX_LEASE_USES, 45, -32), (MOST_USES, 41, -32)],
)
def test_nonces_repeat_as_seldom_as_the_spec_says(uses: int, messages: int, within: int) -> None:
    iv_bits, salt_bits = 8 * GCM_IV_BYTES, 8 * XAES_SALT_BYTES
    assert messages + log2(uses) - 1 - iv_bits <= within
    assert 2 * messages - 1 - iv_bits - salt_bits <= -103 + 2 * (messages - 45)


def test_no_setting_makes_an_epoch_longer_than_the_spec_counts_with() -> None:
    field = Settings.model_fields["max_lease_uses"]
    assert field.default == MAX_LEASE_USES
    assert [bound.le for bound in field.metadata if hasattr(bound, "le")] == [MOST_USES]
