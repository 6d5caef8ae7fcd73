"""The door to cryptography: known answers, rejections, and a secret that keeps itself."""

import copy
import hashlib
import logging
import pickle

import pytest

from byok.crypto import hazmat
from byok.crypto.hazmat import NotAuthentic, SecretBytes, XaesKey

RAW = bytes(range(32))
NONCE = b"ABCDEFGHIJKLMNOPQRSTUVWX"


@pytest.fixture
def secret() -> SecretBytes:
    return SecretBytes(RAW)


def test_secret_bytes_show_nothing_however_they_are_shown(
    secret: SecretBytes, caplog: pytest.LogCaptureFixture
) -> None:
    shown = [repr(secret), str(secret), f"{secret}", f"{secret!r:>40}", repr({"key": secret}), f"{[secret]}"]
    logging.getLogger("test").error("%s %r", secret, secret)
    shown.append(caplog.text)
    for text in shown:
        assert RAW.hex() not in text
        assert "\\x01" not in text
        assert "SecretBytes(...)" in text


@pytest.mark.parametrize("leak", [pickle.dumps, copy.copy, copy.deepcopy, bytes, hash])
def test_secret_bytes_refuse_to_be_copied_pickled_or_hashed(leak: object, secret: SecretBytes) -> None:
    with pytest.raises(TypeError):
        leak(secret)  # type: ignore[operator]


def test_secret_bytes_equal_by_content_and_only_each_other(secret: SecretBytes) -> None:
    assert secret == SecretBytes(RAW)
    assert secret != SecretBytes(RAW[:-1] + b"x")
    assert secret != RAW


def test_wipe_empties_the_secret_and_leaves_the_cipher_usable(secret: SecretBytes) -> None:
    cipher = XaesKey(secret)
    before = cipher.encrypt(NONCE, b"x", b"c")
    with secret.borrow() as lent:
        secret.wipe()
        assert bytes(lent) == b""
    assert cipher.encrypt(NONCE, b"x", b"c") == before


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_keys_of_another_length_are_refused(length: int) -> None:
    short = SecretBytes(bytes(length))
    for use in (
        lambda: XaesKey(short),
        lambda: hazmat.gcm_encrypt(short, bytes(12), b"", b"a"),
        lambda: hazmat.gcm_decrypt(short, bytes(12), bytes(16), b"a"),
        lambda: hazmat.derive_key(short, b"a"),
        lambda: hazmat.fingerprint(short),
    ):
        with pytest.raises(ValueError, match="32 bytes"):
            use()


@pytest.mark.parametrize(
    ("key", "associated_data", "expected"),
    [
        (b"\x01" * 32, b"", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
        (
            b"\x03" * 32,
            b"c2sp.org/XAES-256-GCM",
            "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d",
        ),
    ],
)
def test_xaes_gives_the_published_answers(key: bytes, associated_data: bytes, expected: str) -> None:
    cipher = XaesKey(SecretBytes(key))
    body = cipher.encrypt(NONCE, b"XAES-256-GCM", associated_data)
    assert body.hex() == expected
    assert cipher.decrypt(NONCE, body, associated_data) == b"XAES-256-GCM"


def test_xaes_gives_the_published_accumulated_answer() -> None:
    """C2SP's 10,000 pseudorandom inputs, hashed together."""
    random = hashlib.shake_128(b"").digest(10_000 * (32 + 24 + 1 + 255 + 1 + 255))
    place = 0
    outputs = hashlib.shake_128()

    def take(count: int) -> bytes:
        nonlocal place
        place += count
        return random[place - count : place]

    for _ in range(10_000):
        cipher, nonce = XaesKey(SecretBytes(take(32))), take(24)
        plaintext = take(take(1)[0])
        associated_data = take(take(1)[0])
        body = cipher.encrypt(nonce, plaintext, associated_data)
        assert cipher.decrypt(nonce, body, associated_data) == plaintext
        outputs.update(body)
    assert outputs.hexdigest(32) == "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939"


def test_every_flipped_bit_is_rejected(secret: SecretBytes) -> None:
    cipher = XaesKey(secret)
    body = cipher.encrypt(NONCE, b"ada", b"context")
    for bit in range(len(body) * 8):
        broken = bytearray(body)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(NotAuthentic):
            cipher.decrypt(NONCE, bytes(broken), b"context")
    for bit in range(len(NONCE) * 8):
        nonce = bytearray(NONCE)
        nonce[bit // 8] ^= 1 << bit % 8
        with pytest.raises(NotAuthentic):
            cipher.decrypt(bytes(nonce), body, b"context")
    with pytest.raises(NotAuthentic):
        cipher.decrypt(NONCE, body, b"Context")


@pytest.mark.parametrize("length", [0, 12, 23, 25])
def test_a_nonce_of_another_length_is_refused(secret: SecretBytes, length: int) -> None:
    with pytest.raises(ValueError, match="24 bytes"):
        XaesKey(secret).encrypt(bytes(length), b"x", b"c")


def test_xaes_key_shows_and_pickles_nothing(secret: SecretBytes) -> None:
    assert repr(XaesKey(secret)) == "XaesKey(...)"
    with pytest.raises(TypeError):
        pickle.dumps(XaesKey(secret))


def test_fingerprints_tell_secrets_apart_and_are_stable(secret: SecretBytes) -> None:
    assert hazmat.fingerprint(secret) == hazmat.fingerprint(SecretBytes(RAW))
    assert hazmat.fingerprint(secret) != hazmat.fingerprint(SecretBytes(b"x" * 32))
    assert RAW not in hazmat.fingerprint(secret)
