"""The table of signed checkpoints."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from byok.core.audit import ChainPlace
from byok.core.checkpoints import Checkpoint, SignedCheckpoint
from byok.store import schema
from byok.store.audit import read_whole

_checkpoints = schema.signed_checkpoints


class SignedCheckpointTable:
    """Implements `byok.ports.SignedCheckpoints`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def add(self, signed: SignedCheckpoint) -> None:
        checkpoint = signed.checkpoint
        self._connection.execute(
            _checkpoints.insert().values(
                tenant_id=checkpoint.tenant_id,
                number=checkpoint.number,
                sequence=checkpoint.place.sequence,
                hash=checkpoint.place.hash,
                at=checkpoint.at,
                master_key_id=signed.master_key_id,
                public_key=signed.public_key,
                signature=signed.signature,
            )
        )

    def find_latest(self, tenant_id: UUID) -> SignedCheckpoint | None:
        query = sa.select(_checkpoints).where(_checkpoints.c.tenant_id == tenant_id)
        latest = self._read(query.order_by(_checkpoints.c.number.desc()).limit(1))
        return latest[0] if latest else None

    def list_after(self, tenant_id: UUID, number: int, limit: int) -> Sequence[SignedCheckpoint]:
        query = sa.select(_checkpoints).where(
            _checkpoints.c.tenant_id == tenant_id, _checkpoints.c.number > number
        )
        return self._read(query.order_by(_checkpoints.c.number).limit(limit))

    def _read(self, query: sa.Select[Any]) -> Sequence[SignedCheckpoint]:
        return read_whole(self._connection, query, _to_checkpoint, _checkpoints.c.number, "checkpoint")


def _to_checkpoint(row: sa.Row[Any]) -> SignedCheckpoint:
    return SignedCheckpoint(
        Checkpoint(row.tenant_id, row.number, ChainPlace(row.sequence, row.hash), row.at),
        row.master_key_id,
        row.public_key,
        row.signature,
    )
