"""Resealing: records, under another master key. Pure.

A reseal walks over each kind of sealed records in the order of their places, seals anew what is under
another master key, and counts what is left. It walks again as long as anything is left that opens, or some
process still seals under another key.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from byok.core.model import SealedBox

LISTED_RECORDS = 100  # of those that don't open, named in the reseal


class RecordKind(StrEnum):
    """The kinds of records that are sealed in PostgreSQL, in the order in which they are resealed."""

    VERSION = "version"


KINDS = tuple(RecordKind)


@dataclass(frozen=True, slots=True)
class RecordPlace:
    """Where a record is: the key and the number of the version that it belongs to."""

    key_id: UUID
    number: int

    def __str__(self) -> str:
        return f"{self.key_id}/{self.number}"

    @classmethod
    def parse(cls, text: str) -> "RecordPlace":
        """Read what ``str`` wrote."""
        key_id, _, number = text.rpartition("/")
        return cls(UUID(key_id), int(number))


@dataclass(frozen=True, slots=True)
class SealedRecord:
    """A record as it is stored: where, what its seal is bound to beside that, and the seal."""

    place: RecordPlace
    tenant_id: UUID
    kms_key_arn: str
    box: SealedBox


@dataclass(frozen=True, slots=True)
class RecordPage:
    """Records in the order of their places; ``last`` is where the next page goes on, None behind the last."""

    records: Sequence[SealedRecord]
    last: RecordPlace | None


@dataclass(frozen=True, slots=True)
class UnreadableRecord:
    """A record that does not open, and the error that says why."""

    kind: RecordKind
    place: RecordPlace
    why: str


class ResealState(StrEnum):
    """How a reseal stands. At most one runs."""

    RUNNING = "running"
    DONE = "done"  # counted: no record is under another master key, and no process seals under one
    FAILED = "failed"  # what is left does not open
    SUPERSEDED = "superseded"  # another master key was put first meanwhile


@dataclass(frozen=True, slots=True)
class Tally:
    """Records of one pass or of all: sealed anew, written or locked by somebody else then, not opening."""

    resealed: int = 0
    conflicts: int = 0
    unreadable: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.resealed + other.resealed,
            self.conflicts + other.conflicts,
            self.unreadable + other.unreadable,
        )


@dataclass(frozen=True, slots=True)
class Reseal:
    """One walk under ``master_key_id``. ``total``: records under other keys when it began.

    ``batch`` grows with every claim and fences off who had it before. ``kind`` and ``cursor`` say where the
    pass is; no kind: it has gone through all, and what is left is to be counted. ``waits_for`` says why it
    goes on although there is nothing to do now.
    """

    id: UUID
    master_key_id: str
    state: ResealState
    requested_by: str
    requested_at: datetime
    total: int = 0
    kind: RecordKind | None = KINDS[0]
    cursor: RecordPlace | None = None
    batch: int = 0
    pass_number: int = 1
    tally: Tally = Tally()
    this_pass: Tally = Tally()
    unreadable_records: tuple[UnreadableRecord, ...] = ()
    waits_for: str | None = None
    failures: int = 0
    failure: str | None = None
    finished_at: datetime | None = None

    @property
    def is_running(self) -> bool:
        """Whether it goes on."""
        return self.state is ResealState.RUNNING


def next_kind(kind: RecordKind) -> RecordKind | None:
    """The kind after this one; None after the last."""
    place = KINDS.index(kind) + 1
    return KINDS[place] if place < len(KINDS) else None


def next_pass(reseal: Reseal) -> Reseal:
    """From the first record on once more."""
    return replace(
        reseal,
        kind=KINDS[0],
        cursor=None,
        pass_number=reseal.pass_number + 1,
        this_pass=Tally(),
        unreadable_records=(),
        waits_for=None,
    )


class Verdict(StrEnum):
    """What follows from the count at the end of a pass."""

    FINISH = "finish"
    AGAIN = "again"
    UNREADABLE = "unreadable"
    WAIT = "wait"


def judge(reseal: Reseal, remaining: int, elsewhere: Sequence[str]) -> Verdict:
    """At the end of a pass. ``remaining`` records are under other keys; ``elsewhere`` are the living
    processes that seal under another key, or do not say."""
    if remaining > reseal.this_pass.unreadable:
        # What is left was written or held by somebody else. A pass that did nothing is not repeated at once.
        return Verdict.AGAIN if reseal.this_pass.resealed or reseal.waits_for else Verdict.WAIT
    if elsewhere:
        return Verdict.WAIT
    return Verdict.UNREADABLE if remaining else Verdict.FINISH


def list_unreadable(
    known: tuple[UnreadableRecord, ...], found: Sequence[UnreadableRecord]
) -> tuple[UnreadableRecord, ...]:
    """The first of them."""
    return (*known, *found)[:LISTED_RECORDS]


def add_counts(counts: Sequence[Mapping[str, int]]) -> Mapping[str, int]:
    """How many records each master key sealed, of all kinds together."""
    total: dict[str, int] = {}
    for one in counts:
        for master_key_id, count in one.items():
            total[master_key_id] = total.get(master_key_id, 0) + count
    return dict(sorted(total.items()))
