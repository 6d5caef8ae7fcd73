"""Blind indexes byte by byte, and the steps of a rebuild."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byok.core.blind_index import (
    INDEX_BYTES,
    INDEX_PURPOSE,
    announced,
    enabled,
    finished,
    format_index,
    index_message,
    index_version,
    switched,
)
from byok.core.model import IndexVersions
from byok.crypto.hazmat import SecretBytes, derive_key, mac
from byok.errors import IllegalTransition, InvalidInput, LostRace

ROOT = Path(__file__).parents[3]
FILE = ROOT / "tests/vectors/blind_index.json"
VECTORS: dict[str, list[dict[str, Any]]] = json.loads(FILE.read_text())
PAGE = (ROOT / "docs/spec/blind-index.md").read_text()


@pytest.mark.parametrize("case", VECTORS["valid"], ids=lambda case: case["name"])
def test_vectors(case: dict[str, Any]) -> None:
    secret, context, value = (bytes.fromhex(case[name]) for name in ("secret", "context", "value"))
    computed = mac(derive_key(SecretBytes(secret), INDEX_PURPOSE), index_message(context, value))
    index = format_index(case["version"], computed)
    assert index.hex() == case["index"]
    assert index_version(index) == case["version"]


@pytest.mark.parametrize("case", VECTORS["malformed"], ids=lambda case: case["name"])
def test_malformed_indexes_are_refused(case: dict[str, str]) -> None:
    with pytest.raises(InvalidInput):
        index_version(bytes.fromhex(case["index"]))


def test_the_page_shows_the_first_vector_and_checks_all_without_byok() -> None:
    assert f"\n    {VECTORS['valid'][0]['index']}\n" in PAGE
    (script,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    checked = subprocess.run(
        [sys.executable, "-I", "-W", "ignore::ResourceWarning", "-c", script, str(FILE)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.stdout == "all right\n", checked.stderr


Bytes = st.binary(max_size=6)


@given(Bytes, Bytes, Bytes, Bytes)
def test_different_pairs_never_give_the_same_message(one: bytes, a: bytes, two: bytes, b: bytes) -> None:
    assert (index_message(one, a) == index_message(two, b)) == ((one, a) == (two, b))


@given(st.binary(max_size=4), st.binary(max_size=4), st.integers(0, 4))
def test_no_byte_moves_between_context_and_value(context: bytes, value: bytes, at: int) -> None:
    joined = context + value
    moved = joined[:at], joined[at:]
    assert (index_message(context, value) == index_message(*moved)) == ((context, value) == moved)


@given(st.integers(1, 2**32 - 1), st.binary(min_size=32, max_size=32))
def test_the_number_reads_back(number: int, computed: bytes) -> None:
    index = format_index(number, computed)
    assert (len(index), index_version(index)) == (INDEX_BYTES, number)


NONE, ONE = IndexVersions(1), IndexVersions(1, 3)  # not rebuilt; announced: from 1 to 3
BOTH = IndexVersions(3, 1)  # written under 3, 1 is looked for


def test_a_rebuild_goes_through_its_steps() -> None:
    assert enabled(None, 1) == NONE
    assert announced(NONE, 3) == ONE
    assert switched(ONE) == BOTH
    assert finished(BOTH) == IndexVersions(3)
    assert (NONE.live, ONE.live, BOTH.live) == ((1,), (1, 3), (3, 1))


def test_a_rebuild_that_died_after_its_announcement_goes_on_to_where_it_was_going() -> None:
    assert announced(ONE, 4) == ONE


@pytest.mark.parametrize("index", [NONE, BOTH])
def test_who_comes_late_to_the_switch_is_told(index: IndexVersions) -> None:
    with pytest.raises(LostRace):
        switched(index)


@pytest.mark.parametrize(
    "step",
    [
        lambda: enabled(NONE, 3),
        lambda: announced(NONE, 1),
        lambda: announced(BOTH, 3),
        lambda: announced(BOTH, 4),
        lambda: finished(NONE),
        lambda: finished(ONE),
    ],
)
def test_no_other_step_is_taken(step: Callable[[], IndexVersions]) -> None:
    with pytest.raises(IllegalTransition):
        step()
