"""A tenant's move from one KMS key to another (`byok tenant migrate`): its states and its progress. Pure.

Every version is wrapped under the new KMS key, beside the wrapping that is in use. When none is without that
second wrapping, all change over at once. Then each key is rotated, so that new data is under secrets that the
old KMS key never wrapped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import ClassVar
from uuid import UUID

from byok.core.lifecycle import StateMachine
from byok.core.model import Connection, SealedBox


class MoveState(StrEnum):
    """How a move stands. The first two are open: at most one open move a tenant."""

    WRAPPING = "wrapping"  # versions get their second wrappings; all goes on under the old KMS key
    HELD = "held"  # all have one; somebody is to say commit, or roll back
    COMMITTED = "committed"  # all goes on under the new KMS key; keys are being rotated
    DONE = "done"  # no key encrypts under a secret that the old KMS key wrapped
    ROLLED_BACK = "rolled-back"  # the second wrappings are forgotten


class MoveEvent(StrEnum):
    """What happens to a move."""

    HOLD = "hold"
    RELEASE = "release"
    COMMIT = "commit"
    FINISH = "finish"
    ROLL_BACK = "roll-back"


class WaitCause(StrEnum):
    """Why a move does not go on; that decides who has to do something."""

    OUTAGE = "outage"  # something can't be reached: goes on by itself
    STOP = "stop"  # the tenant is not active: goes on with it
    REFUSAL = "refusal"  # a right is missing: the customer has to give it
    TROUBLE = "trouble"  # a record does not open, or the like: somebody has to look


MOVE_LIFECYCLE = StateMachine(
    "move",
    {
        (MoveState.WRAPPING, MoveEvent.HOLD): MoveState.HELD,
        (MoveState.HELD, MoveEvent.RELEASE): MoveState.WRAPPING,
        (MoveState.WRAPPING, MoveEvent.RELEASE): MoveState.WRAPPING,  # it is not to be held any more
        (MoveState.WRAPPING, MoveEvent.COMMIT): MoveState.COMMITTED,
        (MoveState.COMMITTED, MoveEvent.FINISH): MoveState.DONE,
        (MoveState.WRAPPING, MoveEvent.ROLL_BACK): MoveState.ROLLED_BACK,
        (MoveState.HELD, MoveEvent.ROLL_BACK): MoveState.ROLLED_BACK,
    },
)
OPEN_STATES = frozenset({MoveState.WRAPPING, MoveState.HELD})
WORKING_STATES = frozenset({MoveState.WRAPPING, MoveState.COMMITTED})


@dataclass(frozen=True, slots=True)
class Wait:
    """Why a move does not go on, and what to do about it."""

    cause: WaitCause
    why: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class KmsKeyMove:
    """A tenant's move from one connection to another.

    ``shared``: other tenants may have the target's KMS key or role, too. ``hold``: stop before the commit.
    ``batch`` grows with every claim, and fences off earlier ones. ``failures``: batches in a row that came to
    nothing, for the reason in ``wait``.
    """

    ENDED_STATES: ClassVar[frozenset[MoveState]] = frozenset({MoveState.DONE, MoveState.ROLLED_BACK})

    id: UUID
    state: MoveState
    source: Connection
    target: Connection
    requested_by: str
    requested_at: datetime
    shared: bool = False
    hold: bool = False
    batch: int = 0
    failures: int = 0
    wait: Wait | None = None
    committed_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def tenant_id(self) -> UUID:
        """Whose move it is."""
        return self.source.tenant_id

    @property
    def is_open(self) -> bool:
        """Whether it can still be rolled back."""
        return self.state in OPEN_STATES

    @property
    def is_crossing(self) -> bool:
        """Whether no one principal may use both KMS keys in one region: then the secrets come by a Decrypt
        under the old connection and an Encrypt under the new one. Else by ReEncrypt, within KMS."""
        old, new = self.source, self.target
        return old.role_arn != new.role_arn or old.kms_key_arn.region != new.kms_key_arn.region


@dataclass(frozen=True, slots=True)
class SecondWrapping:
    """A version's secret, wrapped under a move's new KMS key and sealed, after it was unwrapped once for a
    proof."""

    move_id: UUID
    key_id: UUID
    number: int
    sealed_wrapped_key: SealedBox
    kms_request_id: str
    kms_key_material_id: str | None
    validated_at: datetime


@dataclass(frozen=True, slots=True)
class Sharing:
    """Other tenants that are connected to a connection's KMS key or role, or on their way to it, by name."""

    kms_key: tuple[str, ...] = ()
    role: tuple[str, ...] = ()


def connections_of(current: Connection | None, moves: Sequence[KmsKeyMove]) -> Sequence[Connection]:
    """All connections that a tenant ever had, or was on its way to: the current one first."""
    named = [one for move in moves for one in (move.source, move.target)]
    return list(dict.fromkeys([*([] if current is None else [current]), *named]))


@dataclass(frozen=True, slots=True)
class MoveProgress:
    """How many versions with a wrapped key are under which KMS key, not counting rejected ones, which were
    never used; ``sharing`` is who has the old connection, too.

    ``keys_to_rotate``: after the commit, keys that still encrypt under a secret that the old one wrapped.
    """

    is_committed: bool
    under_old: int
    under_both: int
    under_new: int
    keys_to_rotate: int
    sharing: Sharing = Sharing()

    @property
    def versions(self) -> int:
        """All of them."""
        return self.under_old + self.under_both + self.under_new

    @property
    def old_key_may_go(self) -> bool:
        """Whether nothing rests on the old KMS key any more."""
        return self.is_committed and not (self.under_old or self.under_both or self.sharing.kms_key)
