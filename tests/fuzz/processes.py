"""One process's part of the inputs, and what it tells of it."""

from collections import Counter
from multiprocessing.sharedctypes import SynchronizedArray
from typing import NamedTuple

import sqlalchemy as sa

from byok.core import segments
from byok.store import migrate
from byok.store.postgres import PostgresStore, create_engine
from tests.fuzz.corpus import Corpus
from tests.fuzz.judge import Judge, Wrong
from tests.fuzz.run import fuzz
from tests.streams import SMALL_SEGMENT_BYTES

_done: "SynchronizedArray[int] | None" = None


class Told(NamedTuple):
    """How many inputs there were, what became of them, and what must not have happened."""

    done: int
    counts: Counter[tuple[str, str]]
    wrong: str | None


def set_up(done: "SynchronizedArray[int]") -> None:
    """Count into ``done``, at the place of this process; and have short streams of many segments."""
    global _done  # what is shared can't be an argument
    _done, segments.SEGMENT_BYTES = done, SMALL_SEGMENT_BYTES


def make_database(url: str, name: str) -> str:
    """A database of its own on the same server; return its URL."""
    engine = create_engine(url, 1)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return sa.make_url(url).set(database=name).render_as_string(hide_password=False)


def run(place: int, database_url: str, seed: int, count: int) -> Told:
    """Check so many inputs over a corpus of this process's own."""
    engine = create_engine(database_url, 2)
    migrate.upgrade(engine)
    judge, wrong = Judge(Corpus(PostgresStore(engine), seed)), None

    def on_progress(done: int) -> None:
        assert _done is not None
        _done[place] = done

    try:
        on_progress(fuzz(judge, seed, count, on_progress))
    except Wrong as error:
        wrong = f"seed {seed}: {error}"
    engine.dispose()
    assert _done is not None
    return Told(_done[place], judge.counts, wrong)
