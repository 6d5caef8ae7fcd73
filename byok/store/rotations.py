"""The tables of rotations and of the requests for them: who asked, who works on it, how it ended."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from byok.core.dispatch import InFlight
from byok.core.lifecycle import ROTATION_LIFECYCLE
from byok.core.model import (
    OpenWork,
    RequestOutcome,
    Rotation,
    RotationEvent,
    RotationReason,
    RotationState,
    TenantState,
)
from byok.errors import LostRace, UnknownRotation
from byok.store import schema
from byok.store.batches import any_of, parameters, rows_of
from byok.store.claims import lock_waking, unclaimed
from byok.store.rows import to_rotation

_rotations, _requests = schema.rotations, schema.rotation_requests
_keys, _tenants = schema.keys, schema.tenants
_FINISHED = (RotationState.DONE, RotationState.FAILED)
# The open rotation that stands in a new one's way can be finished before we read it. Again and again?
_JOIN_ATTEMPTS = 10
_LATEST_FIRST = _rotations.c.id.desc()  # ids are in order of time
_LOOKED_AT = 10_000  # open rotations among which the stuck ones are sought


class RotationTable:
    """Implements `byok.ports.Rotations`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def schedule(self, rotations: Sequence[Rotation], wake_at: datetime) -> Sequence[Rotation]:
        names = ("id", "key_id", "reason", "state", "requested_by", "requested_at")
        new = rows_of(_rotations, *names)
        # The keys are looked at again under their locks: one may have been rotated since it was found due.
        due = (
            sa.select(*new.c, sa.literal(wake_at))
            .join_from(new, _keys, _keys.c.id == new.c.key_id)
            .where(_keys.c.next_rotation_at <= new.c.requested_at)
        )
        rows = self._connection.execute(
            insert(_rotations)
            .from_select([*names, "wake_at"], due)
            .on_conflict_do_nothing()
            .returning(_rotations.c.id),
            parameters([{name: getattr(one, name) for name in names} for one in rotations]),
        )
        recorded = set(rows.scalars())
        return [rotation for rotation in rotations if rotation.id in recorded]

    def request(
        self, rotation: Rotation, idempotency_key: str, wake_at: datetime
    ) -> tuple[Rotation, RequestOutcome]:
        if not self._add_request(rotation, idempotency_key):
            return self._requested_before(rotation.key_id, idempotency_key), RequestOutcome.REPEATED
        for _ in range(_JOIN_ATTEMPTS):
            if self._add(rotation, wake_at):
                return rotation, RequestOutcome.NEW
            earlier = self._find(_rotations.c.key_id == rotation.key_id, schema.OPEN_ROTATION)
            if earlier is not None:
                self._answer_with(earlier, idempotency_key)
                return earlier, RequestOutcome.JOINED
        raise LostRace("rotations of this key end as fast as one can ask", remedy="ask again")

    def _add_request(self, rotation: Rotation, idempotency_key: str) -> bool:
        """The primary key decides between two of the same idempotency key: the second waits, and sees."""
        statement = (
            insert(_requests)
            .values(
                key_id=rotation.key_id,
                idempotency_key=idempotency_key,
                rotation_id=rotation.id,
                reason=rotation.reason,
                requested_by=rotation.requested_by,
                requested_at=rotation.requested_at,
            )
            .on_conflict_do_nothing()
            .returning(_requests.c.key_id)
        )
        return self._connection.execute(statement).one_or_none() is not None

    def _requested_before(self, key_id: UUID, idempotency_key: str) -> Rotation:
        row = self._connection.execute(
            sa.select(_rotations)
            .join(_requests, _requests.c.rotation_id == _rotations.c.id)
            .where(_requests.c.key_id == key_id, _requests.c.idempotency_key == idempotency_key)
        ).one()
        return to_rotation(row)

    def _answer_with(self, rotation: Rotation, idempotency_key: str) -> None:
        self._connection.execute(
            _requests.update()
            .where(_requests.c.key_id == rotation.key_id, _requests.c.idempotency_key == idempotency_key)
            .values(rotation_id=rotation.id)
        )

    def _add(self, rotation: Rotation, wake_at: datetime) -> bool:
        """Insert, unless the key has an open rotation: the partial unique index says so."""
        statement = (
            insert(_rotations)
            .values(
                id=rotation.id,
                key_id=rotation.key_id,
                reason=rotation.reason,
                state=rotation.state,
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
            raise _unknown(rotation_id)
        return found

    def get_work(self, rotation_id: UUID) -> OpenWork:
        rows = self._works(_rotations.c.id == rotation_id, limit=1)
        if not rows:
            raise _unknown(rotation_id)
        return rows[0]

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

    def list_latest(self, limit: int) -> Sequence[OpenWork]:
        return self._works(sa.true(), limit=limit)

    def list_failed(self, limit: int) -> Sequence[OpenWork]:
        later = _rotations.alias("later")
        superseded = sa.exists().where(
            later.c.key_id == _rotations.c.key_id, later.c.requested_at > _rotations.c.requested_at
        )
        # Of a tenant that left nothing is tried again.
        stays = _tenants.c.state != TenantState.OFFBOARDED
        failed = sa.and_(_rotations.c.state == RotationState.FAILED, stays)
        return self._works(failed, ~superseded, limit=limit, order=_rotations.c.finished_at.desc())

    def list_stuck(self, requested_before: datetime, limit: int) -> Sequence[OpenWork]:
        # Cut off before it is sorted: so many are open only while they wait their turn, and all are old then.
        some = sa.select(_rotations.c.id).where(schema.OPEN_ROTATION).limit(_LOOKED_AT).subquery()
        stuck = sa.and_(
            _rotations.c.id.in_(sa.select(some.c.id)), _rotations.c.requested_at < requested_before
        )
        return self._works(stuck, limit=limit, order=_rotations.c.requested_at)

    def _works(
        self,
        *conditions: sa.ColumnElement[bool],
        limit: int,
        order: sa.ColumnElement[Any] = _LATEST_FIRST,
    ) -> Sequence[OpenWork]:
        query = (
            sa.select(_rotations, _tenants.c.name.label("tenant"), _keys.c.name.label("key"))
            .join(_keys, _keys.c.id == _rotations.c.key_id)
            .join(_tenants, _tenants.c.id == _keys.c.tenant_id)
            .where(*conditions)
            .order_by(order)
            .limit(limit)
        )
        return [_to_work(row) for row in self._connection.execute(query)]

    def lock_open(self, key_id: UUID) -> Rotation | None:
        query = sa.select(_rotations).where(_rotations.c.key_id == key_id, schema.OPEN_ROTATION)
        row = self._connection.execute(query.with_for_update()).one_or_none()
        return None if row is None else to_rotation(row)

    def set_reason(self, rotation: Rotation, reason: RotationReason) -> Rotation:
        row = self._connection.execute(
            _rotations.update()
            .where(_rotations.c.id == rotation.id, schema.OPEN_ROTATION)
            .values(reason=reason)
            .returning(_rotations)
        ).one_or_none()
        if row is None:
            raise LostRace(f"rotation {rotation.id} ended just now", remedy="ask again")
        return to_rotation(row)

    def claim(self, rotation_ids: Sequence[UUID], now: datetime, duration: timedelta) -> Sequence[Rotation]:
        until = now + duration
        rows = self._connection.execute(
            _rotations.update()
            .where(
                any_of(_rotations.c.id, rotation_ids),
                schema.OPEN_ROTATION,
                unclaimed(_rotations, now, duration),
            )
            .values(claimed_until=until, wake_at=until, attempts=_rotations.c.attempts + 1)
            .returning(_rotations)
        )
        return [to_rotation(row) for row in rows.all()]

    def renew(self, rotations: Sequence[Rotation], until: datetime) -> None:
        held = [(rotation.id, rotation.attempts) for rotation in rotations]
        self._connection.execute(
            _rotations.update()
            .where(
                sa.tuple_(_rotations.c.id, _rotations.c.attempts).in_(held),
                _rotations.c.claimed_until.is_not(None),
                schema.OPEN_ROTATION,
            )
            .values(claimed_until=until, wake_at=until)
        )

    def release(self, rotation: Rotation, wake_at: datetime, failure: str, *, deferred: bool = False) -> None:
        self._connection.execute(
            _rotations.update()
            .where(
                _rotations.c.id == rotation.id,
                _rotations.c.attempts == rotation.attempts,
                schema.OPEN_ROTATION,
            )
            .values(
                claimed_until=None,
                wake_at=wake_at,
                failure=failure,
                deferrals=_rotations.c.deferrals + int(deferred),
            )
        )

    def transition(
        self, rotations: Sequence[Rotation], event: RotationEvent, at: datetime, *, failure: str | None = None
    ) -> Sequence[Rotation]:
        changed: list[Rotation] = []
        for state in {rotation.state for rotation in rotations}:
            to = ROTATION_LIFECYCLE.after(state, event)
            values: dict[str, object] = {"state": to}
            if to in _FINISHED:
                values |= {"finished_at": at, "wake_at": None, "claimed_until": None, "failure": failure}
            changed += self._swap([one for one in rotations if one.state is state], state, values)
        return changed

    def _swap(
        self, rotations: Sequence[Rotation], state: RotationState, values: Mapping[str, object]
    ) -> Sequence[Rotation]:
        new = rows_of(_rotations, "id", "version_number")
        rows = self._connection.execute(
            _rotations.update()
            .where(_rotations.c.id == new.c.id, _rotations.c.state == state)
            .values(version_number=new.c.version_number, **values)
            .returning(_rotations),
            parameters([{"id": one.id, "version_number": one.version_number} for one in rotations]),
        )
        return [to_rotation(row) for row in rows.all()]

    def lock_waking(
        self,
        now: datetime,
        limit: int,
        next_wake_at: datetime,
        latest_wake_at: datetime,
        *,
        begun_only: bool = False,
    ) -> Sequence[OpenWork]:
        waking = lock_waking(_rotations, schema.OPEN_ROTATION, now, limit, latest_wake_at)
        if begun_only:
            waking = waking.where(_rotations.c.attempts > 0)
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
        return [_to_work(row) for row in rows]

    def count_in_flight(self) -> Mapping[UUID, InFlight]:
        waits = sa.and_(_rotations.c.claimed_until.is_(None), _rotations.c.attempts > 0)
        query = (
            sa.select(
                _keys.c.tenant_id,
                sa.func.count().label("open"),
                sa.func.count().filter(waits).label("waiting"),
            )
            .join_from(_rotations, _keys)
            .where(schema.OPEN_ROTATION)
            .group_by(_keys.c.tenant_id)
        )
        return {row.tenant_id: InFlight(row.open, row.waiting) for row in self._connection.execute(query)}


def _unknown(rotation_id: UUID) -> UnknownRotation:
    return UnknownRotation(f"there is no rotation {rotation_id}", remedy="byok rotation list shows them")


def _to_work(row: sa.Row[tuple[object, ...]]) -> OpenWork:
    return OpenWork(row.tenant, row.key, to_rotation(row))
