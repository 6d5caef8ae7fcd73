"""A stock Tink reads our tokens and we read Tink's."""

import os

import pytest

from byok.core.wire import format_token, parse_token
from byok.crypto.hazmat import SecretBytes, XaesKey
from tests.tink_tokens import tink_aead

pytest.importorskip("tink")
VERSION = 7


def test_tink_and_byok_read_each_other() -> None:
    secret = os.urandom(32)
    ours, theirs = XaesKey(SecretBytes(secret)), tink_aead(secret, VERSION)
    for length in range(100):
        message, context, nonce = os.urandom(length), os.urandom(length % 40 + 1), os.urandom(24)
        token = format_token(VERSION, nonce, ours.encrypt(nonce, message, context))
        assert theirs.decrypt(token, context) == message
        parsed = parse_token(theirs.encrypt(message, context))
        assert parsed.version_number == VERSION
        assert ours.decrypt(parsed.nonce, parsed.body, context) == message
