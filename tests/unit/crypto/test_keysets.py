"""Keysets of ours are Tink's: a stock Tink opens them, and they fit into one KMS Encrypt."""

import os
import sys
from typing import Any

import pytest

from byok.core.key_export import VERSIONS_PER_KEYSET
from byok.core.wire import format_token
from byok.crypto.hazmat import SecretBytes, XaesKey
from byok.crypto.keysets import (
    KeysetInfo,
    encrypted_keyset_json,
    read_keyset_info,
    require_tink,
    serialize_keyset,
)
from byok.errors import ConfigurationError, InvariantBroken

KMS_ENCRYPT_BYTES = 4096
NEWEST = 2**32 - 1


def secrets(count: int, newest: int) -> dict[int, SecretBytes]:
    return {newest - place: SecretBytes(os.urandom(32)) for place in range(count)}


@pytest.fixture
def tink() -> Any:
    return pytest.importorskip("tink")


def test_as_many_versions_as_are_said_fit_whatever_their_numbers(tink: Any) -> None:
    assert len(serialize_keyset(secrets(VERSIONS_PER_KEYSET, NEWEST), NEWEST)) == 4072
    one_more = serialize_keyset(secrets(VERSIONS_PER_KEYSET + 1, NEWEST), NEWEST)
    assert len(one_more) == 4179 > KMS_ENCRYPT_BYTES


def test_a_stock_tink_opens_tokens_of_every_version_and_encrypts_with_the_primary(tink: Any) -> None:
    from tink import aead, cleartext_keyset_handle

    aead.register()
    keys = secrets(3, 9)
    with serialize_keyset(keys, 8).borrow() as raw:
        handle = cleartext_keyset_handle.read(tink.BinaryKeysetReader(bytes(raw)))
    cipher = handle.primitive(aead.Aead)
    for number, secret in keys.items():
        nonce = os.urandom(24)
        token = format_token(number, nonce, XaesKey(secret).encrypt(nonce, b"ada", b"users.email:42"))
        assert cipher.decrypt(token, b"users.email:42") == b"ada"
        with pytest.raises(tink.TinkError):
            cipher.decrypt(token, b"users.email:43")
    assert cipher.encrypt(b"ada", b"users.email:42")[:5] == b"\x01\x00\x00\x00\x08"


def test_tinks_own_writer_makes_the_same_of_the_same_keyset(tink: Any) -> None:
    """Byte for byte, but for what encrypts it: here nothing does."""
    from tink import aead, cleartext_keyset_handle

    class Nothing(aead.Aead):  # type: ignore[misc]  # tink is untyped
        def encrypt(self, plaintext: bytes, associated_data: bytes) -> bytes:
            return plaintext

        def decrypt(self, ciphertext: bytes, associated_data: bytes) -> bytes:
            return ciphertext

    with serialize_keyset(secrets(3, 9), 8).borrow() as raw:
        serialized = bytes(raw)
    handle = cleartext_keyset_handle.read(tink.BinaryKeysetReader(serialized))
    theirs = tink.json_proto_keyset_format.serialize_encrypted(handle, Nothing(), b"")
    assert encrypted_keyset_json(serialized, [7, 9, 8], 8) == theirs


def test_what_is_in_an_encrypted_keyset_is_read_back(tink: Any) -> None:
    document = encrypted_keyset_json(b"from KMS", [9, 7], 9)
    assert read_keyset_info(document) == KeysetInfo(frozenset({7, 9}), 9)


@pytest.mark.parametrize("document", ["", "{}", '{"encryptedKeyset": 7}', '{"encryptedKeyset": ""}'])
def test_what_is_no_encrypted_keyset_is_refused(tink: Any, document: str) -> None:
    with pytest.raises(InvariantBroken):
        read_keyset_info(document)


def test_the_secrets_themselves_stay_as_they_were(tink: Any) -> None:
    keys = secrets(1, 1)
    with keys[1].borrow() as raw:
        before = bytes(raw)
        serialize_keyset(keys, 1).wipe()
        assert bytes(raw) == before


def test_without_tink_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "tink"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tink", None)
    with pytest.raises(ConfigurationError) as missing:
        require_tink()
    assert missing.value.remedy == "pip install 'byok[tink]'"
