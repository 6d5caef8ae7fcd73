"""The master key ring: the first seals, all open, and nothing opens elsewhere."""

import base64
import os
import traceback
from dataclasses import replace

import pytest

from byok.core.model import SealedBox
from byok.crypto.hazmat import SecretBytes
from byok.crypto.keyring import MasterKeyRing
from byok.crypto.ring_entries import format_entry
from byok.errors import InvalidMasterKey, SealBroken, UnknownMasterKey

OLD, NEW = bytes(32), b"\x07" * 32
GOOD = base64.b64encode(NEW).decode()


def ring(*entries: tuple[str, bytes]) -> MasterKeyRing:
    return MasterKeyRing([(key_id, SecretBytes(raw)) for key_id, raw in entries], os.urandom)


def test_the_first_key_seals_and_every_key_opens() -> None:
    box = ring(("old", OLD)).seal(b"wrapped", "record", "tenant", 1)
    both = ring(("new", NEW), ("old", OLD))
    assert both.open(box, "record", "tenant", 1) == b"wrapped"
    assert both.seal(b"wrapped", "record", "tenant", 1).master_key_id == "new"
    assert both.ids == ("new", "old")


def test_a_key_that_is_not_in_the_ring_is_named() -> None:
    box = ring(("old", OLD)).seal(b"wrapped", "record", 1)
    with pytest.raises(UnknownMasterKey, match="'old'"):
        ring(("new", NEW)).open(box, "record", 1)


def test_a_box_opens_nowhere_else() -> None:
    keys = ring(("a", NEW), ("b", NEW))
    box = keys.seal(b"wrapped", "record", "tenant", 1)
    elsewhere: list[tuple[SealedBox, tuple[str | int, ...]]] = [
        (box, ("lease", "tenant", 1)),
        (box, ("record", "tenants", 1)),
        (box, ("record", "tenant", 2)),
        (box, ("record", "tenant", 1, "more")),
        (box, ("record", "tenan", "t1")),
        (replace(box, master_key_id="b"), ("record", "tenant", 1)),
        (replace(box, iv=bytes(12)), ("record", "tenant", 1)),
        (replace(box, body=box.body[:-1]), ("record", "tenant", 1)),
    ]
    for moved, (purpose, *parts) in elsewhere:
        with pytest.raises(SealBroken) as caught:
            keys.open(moved, str(purpose), *parts)
        assert caught.value.__cause__ is None


def test_two_seals_of_the_same_differ() -> None:
    keys = ring(("a", NEW))
    assert keys.seal(b"x", "record").body != keys.seal(b"x", "record").body


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",\n",
        GOOD,
        f"UPPER:{GOOD}",
        f":{GOOD}",
        f"mk:{GOOD}!",
        "mk:" + base64.b64encode(NEW[:-1]).decode(),
        "mk:" + base64.b64encode(NEW + b"x").decode(),
        f"mk:{GOOD},mk:{GOOD}",
        f"mk:{GOOD},other",
    ],
)
def test_a_bad_ring_is_refused_without_showing_any_of_it(text: str) -> None:
    with pytest.raises(InvalidMasterKey) as caught:
        MasterKeyRing.parse(text, os.urandom)
    shown = "".join(traceback.format_exception(caught.value)) + str(caught.value.remedy)
    assert GOOD[:12] not in shown
    assert caught.value.exit_code == 78


def test_parse_reads_what_format_writes_in_lines_or_commas() -> None:
    entries = [format_entry("new", NEW), format_entry("old", OLD)]
    for text in (",".join(entries), "\n".join(entries) + "\n"):
        assert MasterKeyRing.parse(text, os.urandom).ids == ("new", "old")


def test_repr_names_ids_only() -> None:
    assert repr(ring(("a", NEW))) == "MasterKeyRing(a)"
