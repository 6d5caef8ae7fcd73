"""Secrets planted in every kind of place never reach a line."""

import base64
import json
import logging
import string
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy.exc import IntegrityError

from byok.crypto.hazmat import SecretBytes
from byok.errors import KmsUnavailable
from byok.logs import LogScope, configure_logging, get_logger
from byok.logs.redaction import MAX_TEXT, clean_named, clean_text, clean_value, describe_error, tell_exception


@dataclass
class Record:
    """A library's object that prints what it has."""

    password: object


class Printing:
    """Prints its secret however it is asked."""

    def __init__(self, secret: object) -> None:
        self.secret = secret

    def __str__(self) -> str:
        return str(self.secret)

    __repr__ = __str__

    def __format__(self, spec: str) -> str:
        return str(self.secret)


class Colour(Enum):
    RED = "red"


class _DriverError(Exception):
    sqlstate = "23505"


# --- secrets of several kinds ---------------------------------------------------------------------

PASSWORDS = st.text(
    st.characters(codec="ascii", categories=["L", "N", "P", "S"], exclude_characters="'\"\\<>"), min_size=12
).map(lambda text: f"Pw{text}")
KEYS = st.binary(min_size=32, max_size=48).filter(lambda raw: len(set(raw)) > 20)

_AWS_ALPHABET = string.ascii_letters + string.digits + "/+"
AWS_SECRETS = st.text(_AWS_ALPHABET, min_size=40, max_size=40).filter(
    lambda text: any(map(str.isupper, text)) and any(map(str.islower, text)) and not text.isalpha()
)
AWS_IDS = st.tuples(
    st.sampled_from(["AKIA", "ASIA"]),
    st.text(string.ascii_uppercase + string.digits, min_size=16, max_size=16),
).map("".join)


def spellings(secret: bytes) -> list[str]:
    """How bytes turn up in text."""
    plain = base64.b64encode(secret).decode()
    return [
        repr(secret)[2:-1],
        secret.hex(),
        plain.rstrip("="),
        base64.urlsafe_b64encode(secret).decode()[:43],
    ]


# --- places ---------------------------------------------------------------------------------------

PASSWORD_TEXTS: list[Callable[[str], str]] = [
    lambda secret: f"redis://:{secret}@broker:6379/0 is away",
    lambda secret: f"cannot connect to postgresql+psycopg://byok:{secret}@h1,h2/byok?x=1",
    lambda secret: f"sentinel://:{secret}@h1:26379;sentinel://:{secret}@h2:26379",
    lambda secret: f"{{'host': 'h', 'password': '{secret}', 'port': 1}}",
    lambda secret: f'{{"aws_secret_access_key": "{secret}"}}',
    lambda secret: f"SessionToken='{secret}'",
    lambda secret: f"with password {secret} of nobody",
    lambda secret: f"the token is {secret}1 now",
    lambda secret: f"(psycopg.errors.UniqueViolation) no\nDETAIL:  Key (email)=({secret}) already exists.",
    lambda secret: f"(x) oops [SQL: INSERT INTO t VALUES (%s)]\n[parameters: {{'p': '{secret}'}}]",
    lambda secret: f"new row violates check\nFailing row contains (1, {secret}).",
    lambda secret: "x" * 7_980 + f" redis://:{secret}@h/0",  # cut in the middle
]
BYTES_TEXTS: list[Callable[[bytes], str]] = [
    lambda secret: f"Plaintext: {secret!r}",
    lambda secret: f"{bytearray(secret)!r} {memoryview(secret)!r}",
    lambda secret: f"key {secret.hex()} of 32 bytes",
    lambda secret: f"key={base64.b64encode(secret).decode()}",
    lambda secret: f"({base64.urlsafe_b64encode(secret).decode()})",
]
AWS_TEXTS: list[Callable[[str], str]] = [
    str,
    lambda secret: f"signed with {secret}.",
    lambda secret: f"<{secret}>: no such key",
    lambda secret: f"key={secret}, region=eu-central-1",
]
OBJECTS: list[Callable[[Any], object]] = [
    Printing,
    Record,
    lambda secret: {"nested": secret},
    lambda secret: [{"nested": secret}, [secret]],
    lambda secret: SimpleNamespace(secret=secret),
    lambda secret: lambda: secret,
    lambda secret: ValueError(f"invalid literal: {secret!r}"),
    lambda secret: KeyError(secret),
    lambda secret: OSError(secret),
    lambda secret: IntegrityError("INSERT", {"p": secret}, _DriverError(f"Key (x)=({secret})")),
    lambda secret: {secret},
    lambda secret: iter([secret]),
]


def _everywhere(text: object, capsys: pytest.CaptureFixture[str]) -> str:
    """What is printed of something in each place of a record, in both formats."""
    printed = ""
    for log_format in ("json", "console"):
        configure_logging(log_format, logging.DEBUG)
        log, theirs = get_logger("byok.test"), logging.getLogger("celery")
        log.warning("event", value=text, values=[text], more=(1, text))
        log.bind(bound=text).debug("event")
        theirs.warning("a %s and %r", text, text)
        theirs.warning("%(one)s", {"one": text})
        theirs.warning("x", extra={"data": {"kwargs": text}, "other": text})
        theirs.warning(text)
        theirs.warning("%d", text)
        with LogScope(task=text if isinstance(text, str) else None):
            log.info("event")
        error = text if isinstance(text, Exception) else RuntimeError(text)
        try:
            try:
                raise error
            except Exception:  # noqa: BLE001  # whatever is tried
                raise LookupError(text) from None
        except LookupError:
            theirs.exception("broke: %s", error)
            log.exception("broke", error=error)
        err = capsys.readouterr().err
        if log_format == "json":
            assert all(json.loads(line)["event"] for line in err.splitlines())
        printed += err
    return printed


_FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@_FUZZ
@given(secret=PASSWORDS, place=st.sampled_from(PASSWORD_TEXTS))
def test_no_password_in_any_text(
    capsys: pytest.CaptureFixture[str], secret: str, place: Callable[[str], str]
) -> None:
    assert secret not in _everywhere(place(secret), capsys)


@_FUZZ
@given(secret=KEYS, place=st.sampled_from(BYTES_TEXTS))
def test_no_key_in_any_text(
    capsys: pytest.CaptureFixture[str], secret: bytes, place: Callable[[bytes], str]
) -> None:
    printed = _everywhere(place(secret), capsys)
    assert [one for one in spellings(secret) if one in printed] == []


@_FUZZ
@given(secret=AWS_SECRETS | AWS_IDS, place=st.sampled_from(AWS_TEXTS))
def test_no_access_key_of_aws_in_any_text(
    capsys: pytest.CaptureFixture[str], secret: str, place: Callable[[str], str]
) -> None:
    assert secret not in _everywhere(place(secret), capsys)


@pytest.mark.parametrize(
    "name",
    ["secret_key", "tokens", "master_key", "BYOK_MASTER_KEYS", "data_key", "dataKey", "plaintext", "pwd_2"],
)
def test_nothing_is_shown_under_a_telltale_name(name: str) -> None:
    assert clean_named(name, "swordfish-1234") == "***"


@pytest.mark.parametrize("name", ["master_key_id", "master_key_ids", "key", "kms_key_arn", "tag"])
def test_names_and_ids_of_keys_are_shown(name: str) -> None:
    assert clean_named(name, "mk-1") == "mk-1"


@_FUZZ
@given(secret=PASSWORDS, place=st.sampled_from(OBJECTS))
def test_no_secret_in_any_object(
    capsys: pytest.CaptureFixture[str], secret: str, place: Callable[[Any], object]
) -> None:
    assert secret not in _everywhere(place(secret), capsys)


@_FUZZ
@given(
    secret=KEYS, place=st.sampled_from([*OBJECTS, bytes, bytearray, memoryview, SecretBytes, int.from_bytes])
)
def test_no_bytes_in_any_object(
    capsys: pytest.CaptureFixture[str], secret: bytes, place: Callable[[Any], object]
) -> None:
    printed = _everywhere(place(secret), capsys)
    assert [one for one in [*spellings(secret), str(int.from_bytes(secret))] if one in printed] == []


def test_settings_keep_their_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    assert "hunter2" not in _everywhere(SecretStr("hunter2"), capsys)


# --- and what is no secret stays readable ---------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "Decrypt on arn:aws:kms:eu-central-1:222222222001:key/00000000-0000-4000-8000-000000000001: "
        "ThrottlingException (request 0aa91302-ff7e-4c5a-9a1f-ad98e1abbd4f)",
        "Task byok.keys.rotate_many[3f0c8a52-2f6a-4a8c-8f6e-4d8f4a1c9b7e] succeeded in 0.104s: '25 done'",
        "/usr/lib/python3.11/site-packages/celery/worker/consumer/consumer.py:507: a warning",
        "Connected to redis://127.0.0.1:6379/0",
        "arn:aws:iam::222222222001:role/byok-access-for-the-application-of-vendor",
        "the secret is that of version 2",
        "da39a3ee5e6b4b0d3255bfef95601890afd80709 is a commit",
        'FATAL: password authentication failed for user "byok"',
        "WRONGPASS invalid username-password pair or user is disabled.",
        "Found credentials in environment variables.",
        "BYOK_MASTER_KEYS: two entries are named mk-1",
        "the name or password of 'ada' is not plain ASCII",
    ],
)
def test_plain_texts_stay(text: str) -> None:
    assert clean_text(text) == text


def test_what_is_cut_out_leaves_the_rest() -> None:
    assert clean_text("to redis://:hunter2@h:1/0, try 3") == "to redis://***@h:1/0, try 3"
    assert clean_text("password='a c' host=h") == "password=*** host=h"
    assert clean_text("password hunter2, and password swordfish") == "password ***, and password ***"
    assert clean_text("AKIAIOSFODNN7EXAMPLE signs") == "*** signs"
    assert clean_text("got b'\\x00\\'' of it") == "got <bytes> of it"
    assert clean_text("a\nb\x1b[31m") == "a b [31m"
    assert len(clean_text("word " * 1000)) == MAX_TEXT + 1


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, None),
        (True, True),
        (7, 7),
        (2**64, "<int>"),
        (0.5, 0.5),
        (float("nan"), "nan"),
        (Colour.RED, "red"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
        (timedelta(seconds=5), "0:00:05"),
        (["a", 1, ["b"], b"c"], ["a", 1, "<list>", "<bytes>"]),
        ({"a": 1}, "<dict>"),
        (b"x", "<bytes>"),
        (Record("x"), "<Record>"),
    ],
)
def test_values_by_their_type(value: object, shown: object) -> None:
    assert clean_value(value) == shown


def test_exceptions_tell_what_is_theirs_to_tell() -> None:
    assert describe_error(KmsUnavailable("KMS is away")) == "kms-unavailable: KMS is away"
    assert describe_error(ConnectionRefusedError(111, "Connection refused")) == (
        "ConnectionRefusedError: Connection refused"
    )
    away = RedisConnectionError("Error 111 connecting to redis://:hunter2@h:6379. Connection refused.")
    assert describe_error(away) == (
        "ConnectionError: Error 111 connecting to redis://***@h:6379. Connection refused."
    )
    assert describe_error(IntegrityError("INSERT", {}, _DriverError("x"))) == "IntegrityError: SQLSTATE 23505"
    assert describe_error(ValueError("hunter2")) == "ValueError"


def test_a_ring_of_causes_ends() -> None:
    one, other = ValueError(), KeyError()
    one.__cause__, other.__cause__ = other, one
    assert len(tell_exception(one)) == 8
