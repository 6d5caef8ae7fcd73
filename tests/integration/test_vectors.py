"""The vectors of both formats, through the parsers and through the whole cipher."""

import hashlib
import io
import json

import pytest

from byok.core import segments
from byok.core.segments import MalformedStream, StreamHeader
from byok.core.wire import MalformedToken, parse_token
from byok.crypto.hazmat import NotAuthentic, SecretBytes
from byok.crypto.streaming import open_segment
from byok.errors import ByokError, CannotDecrypt, EmptyContext
from byok.services.fields import Cipher
from tests.streams import parts_of
from tests.vectors.generate import (
    FILES,
    HERE,
    SECRETS,
    UNKNOWN_VERSION,
    Vector,
    generated,
    load,
    plaintext_of,
    stream_key,
    stream_of,
)
from tests.world import World

pytest.importorskip("tink")
TOKENS, STREAMS = load("ciphertext.json"), load("stream.json")
# What the parsers say of each class; of the others they know nothing.
PARSED = {
    "too-short": "shorter than",
    "prefix": "unknown prefix",
    "version-0": "version number 0",
    "header-length": "unknown header length",
}


@pytest.fixture
def cipher(world: World) -> Cipher:
    """A cipher whose versions have the secrets of the vectors."""
    world.kms.secrets = [SECRETS[1], SECRETS[2]]
    world.add_tenant()
    world.add_key()
    world.services.vault.request_rotation("acme", "pii")
    world.run_published()
    assert world.states() == ["retired", "active"]
    return world.services.vault.cipher("acme", "pii")


def opened(cipher: Cipher, vector: Vector, context: bytes) -> bytes:
    if "token" in vector:
        return cipher.decrypt(bytes.fromhex(vector["token"]), context=context)
    sink = io.BytesIO()
    cipher.decrypt_stream(io.BytesIO(stream_of(vector)), sink, context=context)
    return sink.getvalue()


def open_segments(header: StreamHeader, parts: list[bytes], context: bytes) -> None:
    key = SecretBytes(stream_key(SECRETS[header.version_number]))
    for number, body in enumerate(parts):
        open_segment(key, header, context, number, body, is_last=number == len(parts) - 1)


@pytest.mark.parametrize("name", FILES)
def test_the_files_are_what_the_generator_writes(name: str) -> None:
    assert json.loads((HERE / name).read_text()) == generated(name)


def test_each_class_of_rejection_has_vectors() -> None:
    of_tokens = {vector.get("reject") for vector in TOKENS}
    of_streams = {vector.get("reject") for vector in STREAMS}
    both = {None, "unknown-version", "not-authentic", "empty-context", "too-short", "prefix", "version-0"}
    assert of_tokens == both
    assert of_streams == both | {"header-length", "too-short-segment"}


@pytest.mark.parametrize("vector", TOKENS, ids=lambda vector: vector["name"])
def test_the_parser_of_tokens_names_the_first_thing_that_is_wrong(vector: Vector) -> None:
    token, wrong = bytes.fromhex(vector["token"]), PARSED.get(vector.get("reject", ""))
    if wrong is not None:
        with pytest.raises(MalformedToken, match=wrong):
            parse_token(token)
    else:
        number = parse_token(token).version_number
        assert (number in SECRETS) is (vector.get("reject") != "unknown-version")


@pytest.mark.parametrize("vector", STREAMS, ids=lambda vector: vector["name"])
def test_the_parser_of_streams_names_the_first_thing_that_is_wrong(vector: Vector) -> None:
    stream, reject = stream_of(vector), vector.get("reject")
    if reject in PARSED:
        with pytest.raises(MalformedStream, match=PARSED[reject]):
            segments.parse_header(stream[:45])
        return
    header, *parts = parts_of(stream)
    parsed = segments.parse_header(header)
    assert (parsed.version_number in SECRETS) is (reject != "unknown-version")
    if reject == "too-short-segment":
        with pytest.raises(MalformedStream, match="shorter than a segment"):
            segments.check_segment(0, len(parts[0]))
    elif reject == "not-authentic":
        with pytest.raises(NotAuthentic):
            open_segments(parsed, parts, bytes.fromhex(vector["context"]))


def test_long_streams_are_the_bytes_they_were() -> None:
    for vector in STREAMS:
        if "stream_sha256" in vector:
            assert hashlib.sha256(stream_of(vector)).hexdigest() == vector["stream_sha256"], vector["name"]


def test_the_whole_cipher_opens_what_is_valid_and_refuses_the_rest_in_one_way(
    cipher: Cipher, world: World
) -> None:
    answers: set[tuple[type[ByokError], str, str | None, str]] = set()
    for vector in TOKENS + STREAMS:
        context = bytes.fromhex(vector["context"])
        if "reject" not in vector:
            assert opened(cipher, vector, context) == plaintext_of(vector), vector["name"]
        elif vector["reject"] == "empty-context":
            with pytest.raises(EmptyContext):
                opened(cipher, vector, context)
        else:
            with pytest.raises(CannotDecrypt) as refusal:
                opened(cipher, vector, context)
            error = refusal.value
            assert (error.__cause__, error.__suppress_context__) == (None, True), vector["name"]
            answers.add((type(error), error.message, error.remedy, error.code))
    assert len(answers) == 1


def test_the_versions_of_the_vectors_are_the_only_ones() -> None:
    assert UNKNOWN_VERSION not in SECRETS
    assert {vector["version"] for vector in TOKENS + STREAMS} == set(SECRETS)
