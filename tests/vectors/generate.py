"""Writes ciphertext.json and stream.json: ``python -m tests.vectors.generate``.

What a stock Tink made has random nonces, and is kept as it is once it is there.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from byok.core.segments import StreamHeader
from byok.core.wire import format_token
from byok.crypto.hazmat import SecretBytes, XaesKey, derive_key
from tests.streams import parts_of, seal, tink_seal
from tests.tink_tokens import tink_aead

HERE = Path(__file__).parent
SECRETS = {1: bytes(range(32)), 2: bytes(range(32, 64))}
OTHER_SECRET = bytes(range(64, 96))
UNKNOWN_VERSION = 3
CONTEXT, OTHER_CONTEXT = b"users.email:42", b"users.email:43"
ADA = b"ada@example.com"

Vector = dict[str, Any]


def pseudorandom(seed: str, length: int) -> bytes:
    """SHAKE-128 of a seed: what stands for a long plaintext."""
    return hashlib.shake_128(seed.encode()).digest(length)


def flipped(data: bytes, place: int) -> bytes:
    """With one bit of one byte changed."""
    return data[:place] + bytes([data[place] ^ 0x01]) + data[place + 1 :]


# --- tokens ---------------------------------------------------------------------------------------


def token(plaintext: bytes, version: int = 1, secret: bytes | None = None, context: bytes = CONTEXT) -> bytes:
    """A token whose nonce is made of its plaintext: fit for vectors alone."""
    nonce = pseudorandom(f"nonce {version} {plaintext.hex()}", 24)
    cipher = XaesKey(SecretBytes(secret or SECRETS[version]))
    return format_token(version, nonce, cipher.encrypt(nonce, plaintext, context))


def token_vector(
    name: str, token: bytes, *, version: int = 1, context: bytes = CONTEXT, **outcome: str
) -> Vector:
    return {
        "name": name,
        "made_by": "byok",
        "secret": SECRETS[version].hex(),
        "version": version,
        "context": context.hex(),
        "token": token.hex(),
        **outcome,
    }


def token_vectors() -> Iterator[Vector]:
    """Ours, each with its plaintext or with the class of its rejection."""
    for length in (0, 1, 15, 16, 17, 32, 100, 255, 256, 1000):
        plaintext = pseudorandom("plaintext", length)
        yield token_vector(f"valid, {length} bytes", token(plaintext), plaintext=plaintext.hex())
    yield token_vector("valid, version 2", token(ADA, 2), version=2, plaintext=ADA.hex())
    long = pseudorandom("context", 300)
    yield token_vector("valid, long context", token(ADA, context=long), context=long, plaintext=ADA.hex())

    whole, empty = token(ADA), token(b"")
    yield token_vector("empty token", b"", reject="too-short")
    yield token_vector("one byte short of an empty message", empty[:-1], reject="too-short")
    yield token_vector("too short comes before prefix", b"\x00" * 44, reject="too-short")
    yield token_vector("prefix 0", b"\x00" + whole[1:], reject="prefix")
    yield token_vector("prefix of a stream", b"\x02" + whole[1:], reject="prefix")
    yield token_vector("prefix comes before version", b"\xff" + bytes(4) + whole[5:], reject="prefix")
    yield token_vector("version 0", whole[:1] + bytes(4) + whole[5:], reject="version-0")
    for number in (UNKNOWN_VERSION, 2**32 - 1):
        yield token_vector(
            f"version {number} is unknown",
            whole[:1] + number.to_bytes(4) + whole[5:],
            reject="unknown-version",
        )
    tampered = {
        "version of another secret": whole[:1] + (2).to_bytes(4) + whole[5:],
        "first half of the nonce": flipped(whole, 5),
        "end of the first half of the nonce": flipped(whole, 16),
        "second half of the nonce": flipped(whole, 17),
        "end of the nonce": flipped(whole, 28),
        "first byte of the body": flipped(whole, 29),
        "last byte of the body": flipped(whole, len(whole) - 17),
        "first byte of the tag": flipped(whole, len(whole) - 16),
        "last byte of the tag": flipped(whole, len(whole) - 1),
        "tag of an empty message": flipped(empty, len(empty) - 1),
        "truncated by a byte": whole[:-1],
        "truncated to an empty message": whole[:45],
        "extended by a byte": whole + b"\x00",
        "two tokens in one": whole + whole,
        "body of another token": whole[:29] + token(pseudorandom("other", 15))[29:],
    }
    for name, changed in tampered.items():
        yield token_vector(f"tampered: {name}", changed, reject="not-authentic")
    yield token_vector("wrong context", whole, context=OTHER_CONTEXT, reject="not-authentic")
    yield token_vector("longer context", whole, context=CONTEXT + b"\x00", reject="not-authentic")
    yield token_vector("other key", token(ADA, secret=OTHER_SECRET), reject="not-authentic")
    yield token_vector("empty context", whole, context=b"", reject="empty-context")


def tink_token_vectors() -> Iterator[Vector]:
    """A stock Tink's."""
    for length in (0, 15, 100):
        plaintext = pseudorandom("plaintext", length)
        made = tink_aead(SECRETS[1], 1).encrypt(plaintext, CONTEXT)
        yield token_vector(f"valid, {length} bytes, Tink's", made, plaintext=plaintext.hex()) | {
            "made_by": "tink"
        }


# --- streams --------------------------------------------------------------------------------------


def stream_key(secret: bytes) -> bytes:
    """The key of streams under a version's secret."""
    with derive_key(SecretBytes(secret), b"byok/stream/1").borrow() as raw:
        return bytes(raw)


def header(version: int = 1) -> StreamHeader:
    """A fixed one."""
    return StreamHeader(version, pseudorandom("salt", 32), pseudorandom("nonce prefix", 7))


def stream(plaintext: bytes, version: int = 1, secret: bytes | None = None) -> bytes:
    """A stream whose header is fixed: fit for vectors alone."""
    return seal(stream_key(secret or SECRETS[version]), plaintext, CONTEXT, header(version))


def stream_vector(name: str, *, version: int = 1, context: bytes = CONTEXT, **more: object) -> Vector:
    return {
        "name": name,
        "made_by": "byok",
        "secret": SECRETS[version].hex(),
        "version": version,
        "context": context.hex(),
        **more,
    }


def long_vector(name: str, whole: bytes, length: int) -> Vector:
    """A stream of many segments, by what it is made of and its hash."""
    return stream_vector(
        name,
        header=whole[:45].hex(),
        plaintext_seed="plaintext",
        plaintext_bytes=length,
        stream_sha256=hashlib.sha256(whole).hexdigest(),
    )


LONG_BYTES = 2 * 2**20 + 100  # three segments
LONG = "valid, three segments"


def stream_vectors() -> Iterator[Vector]:
    """Ours. ``parts`` are to be taken from the stream named by ``of``: 0 its header, then its segments."""
    for length in (0, 1, 15, 100):
        plaintext = pseudorandom("plaintext", length)
        made = stream(plaintext)
        yield stream_vector(f"valid, {length} bytes", stream=made.hex(), plaintext=plaintext.hex())
    yield stream_vector("valid, version 2", version=2, stream=stream(ADA, 2).hex(), plaintext=ADA.hex())
    yield long_vector(LONG, stream(pseudorandom("plaintext", LONG_BYTES)), LONG_BYTES)
    for length, name in ((2**20 - 56, "one full segment"), (2 * 2**20 - 72, "two full segments")):
        yield long_vector(f"valid, {name}", stream(pseudorandom("plaintext", length)), length)

    whole = stream(ADA)
    rejected = {
        "empty": (b"", "too-short"),
        "header cut": (whole[:44], "too-short"),
        "too short comes before prefix": (bytes(44), "too-short"),
        "prefix of a token": (b"\x01" + whole[1:], "prefix"),
        "prefix comes before version": (b"\x03" + bytes(4) + whole[5:], "prefix"),
        "version 0": (whole[:1] + bytes(4) + whole[5:], "version-0"),
        "version comes before header length": (whole[:1] + bytes(5) + whole[6:], "version-0"),
        "header length 39": (whole[:5] + b"\x27" + whole[6:], "header-length"),
        "header length 24": (whole[:5] + b"\x18" + whole[6:], "header-length"),
        "version 3 is unknown": (whole[:1] + (3).to_bytes(4) + whole[5:], "unknown-version"),
        "no segment": (whole[:45], "too-short-segment"),
        "less than a tag": (whole[:60], "too-short-segment"),
        "tampered: version of another secret": (whole[:1] + (2).to_bytes(4) + whole[5:], "not-authentic"),
        "tampered: salt": (flipped(whole, 6), "not-authentic"),
        "tampered: end of the salt": (flipped(whole, 37), "not-authentic"),
        "tampered: nonce prefix": (flipped(whole, 38), "not-authentic"),
        "tampered: end of the nonce prefix": (flipped(whole, 44), "not-authentic"),
        "tampered: body": (flipped(whole, 45), "not-authentic"),
        "tampered: tag": (flipped(whole, len(whole) - 1), "not-authentic"),
        "truncated by a byte": (whole[:-1], "not-authentic"),
        "extended by a byte": (whole + b"\x00", "not-authentic"),
        "other key": (stream(ADA, secret=OTHER_SECRET), "not-authentic"),
        "under the version's secret itself": (seal(SECRETS[1], ADA, CONTEXT, header()), "not-authentic"),
    }
    for name, (changed, reject) in rejected.items():
        yield stream_vector(name, stream=changed.hex(), reject=reject)
    for context in (OTHER_CONTEXT, CONTEXT + b"\x00"):
        yield stream_vector(
            f"wrong context {context!r}", context=context, stream=whole.hex(), reject="not-authentic"
        )
    yield stream_vector("empty context", context=b"", stream=whole.hex(), reject="empty-context")
    edits = {
        "cut behind the first segment": [0, 1],
        "cut behind the second segment": [0, 1, 2],
        "first segment left out": [0, 2, 3],
        "middle segment left out": [0, 1, 3],
        "middle segment doubled": [0, 1, 2, 2, 3],
        "last segment doubled": [0, 1, 2, 3, 3],
        "two segments in the other order": [0, 1, 3, 2],
        "continued with itself": [0, 1, 2, 3, 0, 1, 2, 3],
    }
    for name, parts in edits.items():
        yield stream_vector(name, of=LONG, parts=parts, reject="not-authentic")


def tink_stream_vectors() -> Iterator[Vector]:
    """A stock Tink's, behind our five bytes."""
    key = stream_key(SECRETS[1])
    for length in (0, 15, 100):
        plaintext = pseudorandom("plaintext", length)
        made = tink_seal(key, plaintext, CONTEXT, 1)
        yield stream_vector(
            f"valid, {length} bytes, Tink's", stream=made.hex(), plaintext=plaintext.hex()
        ) | {"made_by": "tink"}
    made = tink_seal(key, pseudorandom("plaintext", LONG_BYTES), CONTEXT, 1)
    yield long_vector("valid, three segments, Tink's", made, LONG_BYTES) | {"made_by": "tink"}


# --- files ----------------------------------------------------------------------------------------

FILES: dict[str, tuple[str, Callable[[], Iterator[Vector]], Callable[[], Iterator[Vector]]]] = {
    "ciphertext.json": ("docs/spec/ciphertext.md", token_vectors, tink_token_vectors),
    "stream.json": ("docs/spec/stream.md", stream_vectors, tink_stream_vectors),
}


def load(name: str) -> list[Vector]:
    """The vectors of a file."""
    vectors: list[Vector] = json.loads((HERE / name).read_text())["vectors"]
    return vectors


def stream_of(vector: Vector) -> bytes:
    """The bytes of a stream's vector, made again where the file has but a recipe."""
    if "stream" in vector:
        return bytes.fromhex(vector["stream"])
    if "parts" in vector:
        (source,) = [one for one in load("stream.json") if one["name"] == vector["of"]]
        parts = parts_of(stream_of(source))
        return b"".join(parts[place] for place in vector["parts"])
    raw = bytes.fromhex(vector["header"])
    made = StreamHeader(vector["version"], raw[6:38], raw[38:45])
    return seal(stream_key(bytes.fromhex(vector["secret"])), plaintext_of(vector), CONTEXT, made)


def plaintext_of(vector: Vector) -> bytes:
    """The plaintext of a vector that opens."""
    if "plaintext" in vector:
        return bytes.fromhex(vector["plaintext"])
    return pseudorandom(vector["plaintext_seed"], vector["plaintext_bytes"])


def generated(name: str) -> dict[str, Any]:
    """The content of a file."""
    spec, ours, tinks = FILES[name]
    kept = [one for one in load(name) if one["made_by"] == "tink"] if (HERE / name).exists() else []
    return {"spec": spec, "vectors": [*ours(), *(kept or tinks())]}


def main() -> None:
    """Write both files."""
    for name in FILES:
        (HERE / name).write_text(json.dumps(generated(name), indent=1) + "\n")


if __name__ == "__main__":
    main()
