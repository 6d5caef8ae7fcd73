"""Public keys as people give them."""

from base64 import b64encode

import pytest

from byok.cli.reports import decode_public_key
from byok.errors import InvalidInput


def test_a_public_key_is_32_bytes_in_base64() -> None:
    assert decode_public_key(b64encode(bytes(32)).decode()) == bytes(32)


@pytest.mark.parametrize("text", ["", "YQ==", b64encode(bytes(31)).decode(), "no base64", "Schlüssel"])
def test_what_is_none_is_refused_and_not_passed_over(text: str) -> None:
    """A key that was cut off would trust nobody, and say nothing."""
    with pytest.raises(InvalidInput, match="no public key"):
        decode_public_key(text)
