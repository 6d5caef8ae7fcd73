"""The table of rotations: requests, claims and outcomes."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from byok.core.lifecycle import check_transition
from byok.core.model import Rotation, RotationState
from byok.errors import LostRace, UnknownRotation
from byok.store import schema
from byok.store.rows import to_rotation

_rotations, _keys, _tenants = schema.rotations, schema.keys, schema.tenants
_FINISHED = (RotationState.DONE, RotationState.FAILED)


class RotationTable:
    """Implements `byok.ports.Rotations`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def add(self, rotation: Rotation, wake_at: datetime) -> bool:
        statement = (
            insert(_rotations)
            .values(
                id=rotation.id,
                key_id=rotation.key_id,
                reason=rotation.reason,
                state=rotation.state,
                idempotency_key=rotation.idempotency_key,
                requested_by=rotation.requested_by,
                requested_at=rotation.requested_at,
                wake_at=wake_at,
            )
            .on_conflict_do_nothing()
            .returning(_rotations.c.id)
        )
        return self._connection.execute(statement).one_or_none() is not None

    def get(self, rotation_id: UUID) -> Rotation:
        found = self._find(_rotations.c.id == rotation_id)
        if found is None:
            raise UnknownRotation(f"there is no rotation {rotation_id}")
        return found

    def find(self, key_id: UUID, idempotency_key: str) -> Rotation | None:
        return self._find(_rotations.c.key_id == key_id, _rotations.c.idempotency_key == idempotency_key)

    def find_open(self, key_id: UUID) -> Rotation | None:
        return self._find(_rotations.c.key_id == key_id, schema.OPEN_ROTATION)

    def _find(self, *conditions: sa.ColumnElement[bool] | sa.TextClause) -> Rotation | None:
        row = self._connection.execute(sa.select(_rotations).where(*conditions)).one_or_none()
        return None if row is None else to_rotation(row)

    def list(self, key_id: UUID, limit: int) -> Sequence[Rotation]:
        query = (
            sa.select(_rotations)
            .where(_rotations.c.key_id == key_id)
            .order_by(_rotations.c.requested_at.desc(), _rotations.c.id.desc())
            .limit(limit)
        )
        return [to_rotation(row) for row in self._connection.execute(query)]

    def claim(self, rotation_id: UUID, now: datetime, until: datetime) -> Rotation | None:
        unclaimed = sa.or_(_rotations.c.claimed_until.is_(None), _rotations.c.claimed_until <= now)
        row = self._connection.execute(
            _rotations.update()
            .where(_rotations.c.id == rotation_id, schema.OPEN_ROTATION, unclaimed)
            .values(claimed_until=until, wake_at=until, attempts=_rotations.c.attempts + 1)
            .returning(_rotations)
        ).one_or_none()
        return None if row is None else to_rotation(row)

    def release(self, rotation: Rotation, wake_at: datetime, failure: str) -> None:
        self._connection.execute(
            _rotations.update()
            .where(
                _rotations.c.id == rotation.id,
                _rotations.c.attempts == rotation.attempts,
                schema.OPEN_ROTATION,
            )
            .values(claimed_until=None, wake_at=wake_at, failure=failure)
        )

    def transition(
        self,
        rotation: Rotation,
        to: RotationState,
        at: datetime,
        *,
        version_number: int | None = None,
        failure: str | None = None,
    ) -> Rotation:
        check_transition(rotation.state, to)
        values: dict[str, object] = {"state": to}
        if version_number is not None:
            values["version_number"] = version_number
        if to in _FINISHED:
            values |= {"finished_at": at, "wake_at": None, "claimed_until": None, "failure": failure}
        row = self._connection.execute(
            _rotations.update()
            .where(_rotations.c.id == rotation.id, _rotations.c.state == rotation.state)
            .values(values)
            .returning(_rotations)
        ).one_or_none()
        if row is None:
            raise LostRace(f"rotation {rotation.id} is not {rotation.state} any more")
        return to_rotation(row)

    def lock_waking(
        self, now: datetime, limit: int, next_wake_at: datetime
    ) -> Sequence[tuple[str, str, Rotation]]:
        waking = (
            sa.select(_rotations.c.id)
            .where(schema.OPEN_ROTATION, _rotations.c.wake_at <= now)
            .order_by(_rotations.c.wake_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        rows = self._connection.execute(
            _rotations.update()
            .where(
                _rotations.c.id.in_(waking),
                _keys.c.id == _rotations.c.key_id,
                _tenants.c.id == _keys.c.tenant_id,
            )
            .values(wake_at=next_wake_at)
            .returning(_rotations, _tenants.c.name.label("tenant"), _keys.c.name.label("key"))
        )
        return [(row.tenant, row.key, to_rotation(row)) for row in rows]

    def count_by_state(self) -> Mapping[RotationState, int]:
        query = sa.select(_rotations.c.state, sa.func.count()).group_by(_rotations.c.state)
        return {RotationState(state): count for state, count in self._connection.execute(query)}
