"""What the services need of the moves in PostgreSQL."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from byok.core.model import Connection, Key, KeyVersion
from byok.core.moves import KmsKeyMove, MoveEvent, MoveProgress, SecondWrapping, Sharing, Wait


class Moves(Protocol):
    """The tables kms_key_moves and kms_key_move_wrappings."""

    def add(self, move: KmsKeyMove, wake_at: datetime) -> None:
        """Raises KmsKeyTaken, RoleTaken, MoveOpen: the tenant has an open one."""

    def find_latest(self, tenant_id: UUID) -> KmsKeyMove | None:
        """The latest move of a tenant, whatever its state."""

    def list(self, tenant_id: UUID) -> Sequence[KmsKeyMove]:
        """All moves of a tenant, the latest first."""

    def find_sharing(self, connection: Connection) -> Sharing:
        """Which other tenants have a connection's KMS key or role, or are on their way to it; not those that
        have left. The first ten of each."""

    def lock(self, move_id: UUID) -> KmsKeyMove:
        """A move's row, locked until the transaction ends. Raises NotReady: there is none."""

    def progress(self, move: KmsKeyMove) -> MoveProgress:
        """How far a move has come."""

    def claim(
        self, move_id: UUID, batch: int | None, now: datetime, duration: timedelta
    ) -> KmsKeyMove | None:
        """Claim a move for one worker and count the batch up; None if there is nothing to do for it, another
        worker has it, or it is not at ``batch`` any more."""

    def renew(self, move: KmsKeyMove, until: datetime) -> None:
        """Hold on to a claim. Raises LostRace: another worker has it by now, or its state is another."""

    def release(self, move: KmsKeyMove, wake_at: datetime, wait: Wait | None) -> KmsKeyMove:
        """Give a claim back; the sweeper publishes the move again at ``wake_at``. ``wait``: why the batch
        came to nothing; None: it went well. Raises LostRace."""

    def transition(self, move: KmsKeyMove, event: MoveEvent, at: datetime) -> KmsKeyMove:
        """Compare and swap state and batch. Raises IllegalTransition, LostRace."""

    def list_unwrapped(self, move: KmsKeyMove, master_key_id: str, limit: int) -> Sequence[KeyVersion]:
        """Versions of the move's tenant with a wrapped key that was ever of use, or may be, and no second
        wrapping that this master key sealed."""

    def put_wrappings(self, wrappings: Sequence[SecondWrapping]) -> None:
        """Keep second wrappings, but of versions that were destroyed or rejected meanwhile."""

    def swap(self, move: KmsKeyMove) -> int:
        """Put the second wrappings in the place of the first ones, which are then gone; how many."""

    def forget_wrappings(self, move: KmsKeyMove) -> None:
        """Remove the second wrappings."""

    def lock_keys_to_rotate(self, move: KmsKeyMove, limit: int) -> Sequence[Key]:
        """Keys, locked, that still encrypt under a secret that the old KMS key wrapped, and have no open
        rotation."""

    def lock_waking(
        self, now: datetime, limit: int, next_wake_at: datetime, latest_wake_at: datetime
    ) -> Sequence[KmsKeyMove]:
        """Moves that nobody works on any more; see `Rotations.lock_waking`."""
