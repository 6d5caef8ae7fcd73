"""A stock Tink reads our streams behind their first five bytes, and we read Tink's."""

import os
import re
from pathlib import Path

import pytest

from byok.core.segments import SEGMENT_BYTES, StreamHeader
from byok.crypto.hazmat import SecretBytes, derive_key
from tests.streams import HEADER, open_whole, seal, tink_open, tink_seal

pytest.importorskip("tink")
FIRST, OTHERS = SEGMENT_BYTES - 56, SEGMENT_BYTES - 16
SPEC = Path(__file__).parents[3] / "docs/spec/stream.md"


@pytest.mark.parametrize(
    "length", [0, 1, FIRST - 1, FIRST, FIRST + 1, FIRST + OTHERS, FIRST + OTHERS + 1, FIRST + 2 * OTHERS + 5]
)
def test_tink_and_byok_read_each_other(length: int) -> None:
    secret, plaintext, context = os.urandom(32), os.urandom(length), os.urandom(9)
    header = StreamHeader(7, os.urandom(32), os.urandom(7))
    ours, theirs = seal(secret, plaintext, context, header), tink_seal(secret, plaintext, context)
    assert tink_open(secret, ours, context) == plaintext
    assert open_whole(secret, theirs, context) == plaintext
    assert len(ours) == len(theirs)


def test_the_worked_example_of_the_spec_runs() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", SPEC.read_text(), re.DOTALL)
    exec(compile(example, str(SPEC), "exec"), {})  # noqa: S102  # the page's own example


def test_the_bytes_of_the_spec_are_ours() -> None:
    (shown,) = re.findall(r"^    (0200000007[0-9a-f]+)$", SPEC.read_text(), re.MULTILINE)
    with derive_key(SecretBytes(bytes(range(32))), b"byok/stream/1").borrow() as secret:
        assert seal(bytes(secret), b"ada@example.com", b"exports/2026-11.csv", HEADER).hex() == shown
