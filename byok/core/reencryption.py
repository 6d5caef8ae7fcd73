"""Re-encryption of rows: targets, campaigns, and what a campaign does next. Pure.

A campaign walks over one target, page by page in the order of the primary key. It counts the values of
each version, rewrites those under old ones, waits until no process can write under an old one any more,
and counts again. Rows that were written under an old version meanwhile are found by that count, and it
rewrites once more.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from byok.core.lifecycle import StateMachine
from byok.errors import InvalidInput

MAX_PASSES = 20  # so often something wrote under an old version again: it will not stop by itself
LISTED_ROWS = 100  # of those that don't open, named in the campaign
NO_TOKEN = 0  # counted under this number: what is no token, or of a version that the key does not have

_PLACEHOLDER = re.compile(r"\{[^{}]*\}")
_ID = "{id}"


class ColumnKind(StrEnum):
    """What a primary key, or the column that names a tenant, may be."""

    INTEGER = "integer"
    TEXT = "text"
    UUID = "uuid"


class CampaignState(StrEnum):
    """How a campaign stands. The first two are open: at most one open campaign a target."""

    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"  # counted: no value is under an older version
    CANCELLED = "cancelled"
    FAILED = "failed"


class CampaignEvent(StrEnum):
    """What happens to a campaign."""

    PAUSE = "pause"
    RESUME = "resume"
    FINISH = "finish"
    CANCEL = "cancel"
    FAIL = "fail"


class Phase(StrEnum):
    """What a campaign is at. Each phase walks over the whole table once."""

    COUNT_BEFORE = "count-before"
    REWRITE = "rewrite"
    COUNT_AFTER = "count-after"


class PauseCause(StrEnum):
    """Who paused a campaign; that decides how it goes on."""

    REQUEST = "request"  # goes on when somebody says resume
    STOP = "stop"  # the tenant is stopped: goes on with it


CAMPAIGN_LIFECYCLE = StateMachine(
    "campaign",
    {
        (CampaignState.RUNNING, CampaignEvent.PAUSE): CampaignState.PAUSED,
        (CampaignState.PAUSED, CampaignEvent.RESUME): CampaignState.RUNNING,
        (CampaignState.RUNNING, CampaignEvent.FINISH): CampaignState.DONE,
        (CampaignState.RUNNING, CampaignEvent.CANCEL): CampaignState.CANCELLED,
        (CampaignState.PAUSED, CampaignEvent.CANCEL): CampaignState.CANCELLED,
        (CampaignState.RUNNING, CampaignEvent.FAIL): CampaignState.FAILED,
    },
)
OPEN_STATES = frozenset({CampaignState.RUNNING, CampaignState.PAUSED})


@dataclass(frozen=True, slots=True)
class TargetColumn:
    """A column of tokens, and the template of the context that its services use."""

    name: str
    template: str

    @classmethod
    def parse(cls, text: str) -> "TargetColumn":
        """Parse ``COLUMN=TEMPLATE``, such as ``email=users.email:{id}``.

        Raises:
            InvalidInput: it is not that, or the template has another placeholder than ``{id}``.
        """
        name, _, template = text.partition("=")
        if not name or not template:
            raise InvalidInput(
                f"{text!r} is not a column with its context",
                remedy="write COLUMN=TEMPLATE, such as email=users.email:{id}",
            )
        strange = [found for found in _PLACEHOLDER.findall(template) if found != _ID]
        if strange:
            raise InvalidInput(
                f"the template of column {name!r} has the unknown placeholder {strange[0]}",
                remedy="{id} is the primary key's text; nothing else is filled in",
            )
        return cls(name, template)

    def context(self, row_id: str) -> bytes:
        """The context of this column's value in a row, as UTF-8."""
        return self.template.replace(_ID, row_id).encode()


@dataclass(frozen=True, slots=True)
class TenantFilter:
    """Which rows of a table that holds those of many tenants are one tenant's."""

    column: str
    kind: ColumnKind
    value: str


@dataclass(frozen=True, slots=True)
class TableShape:
    """The part of an application's table that holds tokens of one key; without a filter, all of it."""

    schema: str
    table: str
    primary_key: str
    primary_key_kind: ColumnKind
    columns: tuple[TargetColumn, ...]
    tenant_filter: TenantFilter | None = None

    @property
    def name(self) -> str:
        """Schema and table, for people."""
        return f"{self.schema}.{self.table}"


@dataclass(frozen=True, slots=True)
class Target:
    """Where tokens of a key are stored, as somebody registered it."""

    id: UUID
    key_id: UUID
    shape: TableShape
    registered_by: str
    registered_at: datetime
    unregistered_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class UnreadableRow:
    """A value that does not open: its column and its row's primary key, never the value."""

    column: str
    row_id: str


@dataclass(frozen=True, slots=True)
class Tally:
    """What one pass came upon: rows, and values that don't open.

    ``conflicts`` are rows that somebody else wrote, or was writing, between our read and our write.
    """

    seen: int = 0
    rewritten: int = 0
    conflicts: int = 0
    unreadable: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.seen + other.seen,
            self.rewritten + other.rewritten,
            self.conflicts + other.conflicts,
            self.unreadable + other.unreadable,
        )


VersionCounts = Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Campaign:
    """The job that brings one target's values under ``to_version`` or a newer one.

    ``batch`` grows with every claim: a message, or a worker, of an earlier one counts for nothing.
    ``cursor`` is the last primary key that this phase has done with. ``tally`` is of the whole campaign,
    ``this_pass`` of the pass under way; ``before`` and ``after`` count values by version.
    """

    id: UUID
    target_id: UUID
    state: CampaignState
    to_version: int
    requested_by: str
    requested_at: datetime
    phase: Phase = Phase.COUNT_BEFORE
    pass_number: int = 0
    cursor: str | None = None
    batch: int = 0
    rows_per_second: int | None = None
    allow_unreadable: bool = False
    rows: int = 0
    tally: Tally = Tally()
    this_pass: Tally = Tally()
    unreadable_rows: tuple[UnreadableRow, ...] = ()
    before: VersionCounts = field(default_factory=dict)
    after: VersionCounts = field(default_factory=dict)
    failures: int = 0
    failure: str | None = None
    pause_cause: PauseCause | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is work left to do."""
        return self.state in OPEN_STATES

    @property
    def remaining(self) -> int:
        """How many values the last count found under versions below ``to_version``."""
        return count_below(self.after, self.to_version)


@dataclass(frozen=True, slots=True)
class CampaignWork:
    """A campaign with what it works on, and the names of that."""

    campaign: Campaign
    target: Target
    tenant: str
    key: str


class Verdict(StrEnum):
    """What follows from the count after a pass."""

    FINISH = "finish"
    AGAIN = "again"
    UNREADABLE = "unreadable"
    GIVE_UP = "give-up"


def count_below(counts: VersionCounts, version_number: int) -> int:
    """How many values are under an older version, or no tokens."""
    return sum(count for number, count in counts.items() if number < version_number)


def add_counts(left: VersionCounts, right: VersionCounts) -> dict[int, int]:
    """Both counts together."""
    return {number: left.get(number, 0) + right.get(number, 0) for number in sorted({*left, *right})}


def known_counts(counts: VersionCounts, newest: int) -> dict[int, int]:
    """The counts with numbers that the key does not have, which nobody vouches for, under `NO_TOKEN`."""
    known: dict[int, int] = {}
    for number, count in counts.items():
        place = number if 1 <= number <= newest else NO_TOKEN
        known[place] = known.get(place, 0) + count
    return known


def judge(campaign: Campaign, active_number: int) -> Verdict:
    """What follows when everything has been counted after a pass.

    A campaign ends where it began: if the key was rotated meanwhile, it goes on to the newer version. It is
    done when nothing is left, or nothing but values that a whole quiet pass could not open, if whoever
    started it accepts those.
    """
    if active_number > campaign.to_version:
        return Verdict.AGAIN
    if campaign.remaining == 0:
        return Verdict.FINISH
    quiet = not campaign.this_pass.rewritten and not campaign.this_pass.conflicts
    if quiet and campaign.remaining <= campaign.this_pass.unreadable:
        return Verdict.FINISH if campaign.allow_unreadable else Verdict.UNREADABLE
    return Verdict.AGAIN if campaign.pass_number < MAX_PASSES else Verdict.GIVE_UP


def list_unreadable(
    known: Sequence[UnreadableRow], found: Sequence[UnreadableRow]
) -> tuple[UnreadableRow, ...]:
    """The rows to name in a campaign: each once, and the first `LISTED_ROWS` only."""
    return tuple(dict.fromkeys([*known, *found]))[:LISTED_ROWS]
