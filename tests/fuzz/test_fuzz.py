"""A cut of ``make fuzz``."""

import pytest

from byok.core import segments
from byok.store.postgres import PostgresStore
from tests.fuzz.corpus import Corpus
from tests.fuzz.judge import Judge
from tests.fuzz.run import fuzz
from tests.streams import SMALL_SEGMENT_BYTES

# What a run of this length must have met, or the inputs have become dull.
CLASSES = {
    *(
        (kind, reason)
        for kind in ("token", "stream")
        for reason in ("opened", "not authentic", "unknown version", "unknown prefix", "version number 0")
    ),
    ("token", "shorter than an empty message's token"),
    ("stream", "shorter than a header"),
    ("stream", "unknown header length"),
    ("stream", "refused after a true beginning"),
}


def test_nothing_opens_but_what_was_made(store: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "SEGMENT_BYTES", SMALL_SEGMENT_BYTES)
    judge = Judge(Corpus(store, seed=1))
    assert fuzz(judge, 1, 5000) >= 5000
    assert set(judge.counts) >= CLASSES
