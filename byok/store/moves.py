"""The tables of moves between KMS keys, and of the second wrappings."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from byok.core.arns import KmsKeyArn, RoleArn
from byok.core.model import Connection, Key, KeyVersion, TenantState, VersionState
from byok.core.moves import (
    MOVE_LIFECYCLE,
    WORKING_STATES,
    KmsKeyMove,
    MoveEvent,
    MoveProgress,
    MoveState,
    SecondWrapping,
    Sharing,
    Wait,
    WaitCause,
)
from byok.errors import LostRace, NotReady
from byok.store import schema
from byok.store.batches import parameters, rows_of
from byok.store.claims import lock_waking, unclaimed
from byok.store.rows import to_key, to_version
from byok.store.translate import error_of, translated_errors

_moves, _wrappings = schema.kms_key_moves, schema.kms_key_move_wrappings
_keys, _tenants, _versions, _rotations = schema.keys, schema.tenants, schema.key_versions, schema.rotations
_RECORD = ("encrypted_key", "iv", "master_key_id")
_COLUMNS = ("move_id", "key_id", "number", *_RECORD, "kms_request_id", "kms_key_material_id", "validated_at")
_NAMED = 10  # of the tenants that share a KMS key

_IN_KEY = _keys.c.id == _versions.c.key_id  # keys refer to versions, too
# What a secret of some use is in: not those that are gone, or were never used.
_LIVING = _versions.c.state.not_in((VersionState.DESTROYED, VersionState.REJECTED))


class MoveTable:
    """Implements `byok.ports.Moves`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def add(self, move: KmsKeyMove, wake_at: datetime) -> None:
        values = _from_move(move)
        if not move.shared:
            self._refuse_taken(move, "kms_key_arn", values["to_kms_key_arn"])
            self._refuse_taken(move, "role_arn", values["to_role_arn"])
        with translated_errors():
            self._connection.execute(_moves.insert().values(values | {"wake_at": wake_at}))

    def _refuse_taken(self, move: KmsKeyMove, column: str, arn: object) -> None:
        another = _tenants.c.id != move.tenant_id
        taken = sa.exists().where(_tenants.c[column] == arn, another, schema.NOT_SHARED)
        if arn is not None and self._connection.execute(sa.select(taken)).scalar_one():
            raise error_of(f"uq_tenants_{column}")

    def find_latest(self, tenant_id: UUID) -> KmsKeyMove | None:
        row = self._connection.execute(_latest_first(tenant_id).limit(1)).one_or_none()
        return None if row is None else _to_move(row)

    def list(self, tenant_id: UUID) -> Sequence[KmsKeyMove]:
        return [_to_move(row) for row in self._connection.execute(_latest_first(tenant_id))]

    def find_sharing(self, connection: Connection) -> Sharing:
        role = connection.role_arn
        return Sharing(
            self._who_has("kms_key_arn", connection.kms_key_arn, connection.tenant_id),
            () if role is None else self._who_has("role_arn", role, connection.tenant_id),
        )

    def _who_has(self, column: str, arn: KmsKeyArn | RoleArn, but: UUID) -> tuple[str, ...]:
        on_its_way = sa.exists().where(
            _moves.c.tenant_id == _tenants.c.id, _moves.c[f"to_{column}"] == str(arn), schema.OPEN_MOVE
        )
        found = (
            sa.select(_tenants.c.name)
            .where(
                _tenants.c.id != but,
                _tenants.c.state != TenantState.OFFBOARDED,
                sa.or_(_tenants.c[column] == str(arn), on_its_way),
            )
            .order_by(_tenants.c.name)
            .limit(_NAMED)
        )
        return tuple(self._connection.execute(found).scalars())

    def lock(self, move_id: UUID) -> KmsKeyMove:
        query = _with_tenant().where(_moves.c.id == move_id).with_for_update(of=_moves)
        row = self._connection.execute(query).one_or_none()
        if row is None:
            raise NotReady(f"there is no move {move_id}", remedy="byok tenant migrate TENANT --status")
        return _to_move(row)

    def progress(self, move: KmsKeyMove) -> MoveProgress:
        is_new = _versions.c.kms_key_arn == str(move.target.kms_key_arn)
        has_both = sa.exists().where(_second_of(move), _wrappings.c.encrypted_key.is_not(None))
        counted = sa.select(
            sa.func.count().filter(~is_new, ~has_both).label("under_old"),
            sa.func.count().filter(~is_new, has_both).label("under_both"),
            sa.func.count().filter(is_new).label("under_new"),
        ).where(_is_of(move), _LIVING)
        row = self._connection.execute(counted.join_from(_versions, _keys, _IN_KEY)).one()
        to_rotate = sa.select(sa.func.count()).select_from(_to_rotate(move).subquery())
        return MoveProgress(
            move.committed_at is not None,
            *row,
            keys_to_rotate=(
                self._connection.execute(to_rotate).scalar_one() if move.state is MoveState.COMMITTED else 0
            ),
            sharing=self.find_sharing(move.source),
        )

    def claim(
        self, move_id: UUID, batch: int | None, now: datetime, duration: timedelta
    ) -> KmsKeyMove | None:
        until = now + duration
        claimed = self._connection.execute(
            _moves.update()
            .where(
                _moves.c.id == move_id,
                schema.WORKING_MOVE,
                unclaimed(_moves, now, duration),
                sa.true() if batch is None else _moves.c.batch == batch,
            )
            .values(claimed_until=until, wake_at=until, batch=_moves.c.batch + 1)
        )
        return self._get(move_id) if claimed.rowcount else None

    def _get(self, move_id: UUID) -> KmsKeyMove:
        return _to_move(self._connection.execute(_with_tenant().where(_moves.c.id == move_id)).one())

    def renew(self, move: KmsKeyMove, until: datetime) -> None:
        self._update(move, {"claimed_until": until, "wake_at": until})

    def release(self, move: KmsKeyMove, wake_at: datetime, wait: Wait | None) -> KmsKeyMove:
        failures = 0 if wait is None else move.failures + 1
        values = {"claimed_until": None, "wake_at": wake_at, "failures": failures}
        return self._update(move, values | _from_wait(wait))

    def transition(self, move: KmsKeyMove, event: MoveEvent, at: datetime) -> KmsKeyMove:
        to = MOVE_LIFECYCLE.after(move.state, event)
        values: dict[str, Any] = {
            "state": to,
            "claimed_until": None,
            "wake_at": at if to in WORKING_STATES else None,
            "finished_at": at if to in KmsKeyMove.ENDED_STATES else None,
            "hold": move.hold and event is not MoveEvent.RELEASE,
            "failures": 0,
        }
        if event is MoveEvent.COMMIT:
            values["committed_at"] = at
        return self._update(move, values | _from_wait(None))

    def _update(self, move: KmsKeyMove, values: dict[str, Any]) -> KmsKeyMove:
        """Compare the state and the batch, and swap."""
        changed = self._connection.execute(
            _moves.update()
            .where(_moves.c.id == move.id, _moves.c.state == move.state, _moves.c.batch == move.batch)
            .values(values)
        )
        if not changed.rowcount:
            raise LostRace(f"move {move.id} is at another batch or state by now", remedy="ask again")
        return self._get(move.id)

    def list_unwrapped(self, move: KmsKeyMove, master_key_id: str, limit: int) -> Sequence[KeyVersion]:
        has_second = sa.exists().where(_second_of(move), _wrappings.c.master_key_id == master_key_id)
        query = (
            sa.select(_versions)
            .join_from(_versions, _keys, _IN_KEY)
            .where(_is_of(move), _LIVING, ~has_second)
            .order_by(_versions.c.key_id, _versions.c.number)
            .limit(limit)
        )
        return [to_version(row) for row in self._connection.execute(query)]

    def put_wrappings(self, wrappings: Sequence[SecondWrapping]) -> None:
        new = rows_of(_wrappings, *_COLUMNS)
        # Locked against whoever destroys a version, and then looked at again: what is destroyed stays so.
        living = (
            sa.select(*new.c)
            .join_from(
                new,
                _versions,
                sa.and_(_versions.c.key_id == new.c.key_id, _versions.c.number == new.c.number),
            )
            .where(_LIVING)
            .with_for_update(read=True, of=_versions)
        )
        statement = insert(_wrappings).from_select(list(_COLUMNS), living)
        kept = {name: statement.excluded[name] for name in _COLUMNS[3:]}
        self._connection.execute(
            statement.on_conflict_do_update(index_elements=["move_id", "key_id", "number"], set_=kept),
            parameters([_from_wrapping(one) for one in wrappings]),
        )

    def swap(self, move: KmsKeyMove) -> int:
        # Of many thousands it takes longer than statements of every day may.
        self._connection.execute(sa.text("SET LOCAL statement_timeout = '60s'"))
        taken_over = (*_RECORD, "kms_request_id", "kms_key_material_id")
        swapped = self._connection.execute(
            _versions.update()
            .where(_second_of(move), _wrappings.c.encrypted_key.is_not(None), _LIVING)
            .values({name: _wrappings.c[name] for name in taken_over})
            .values(kms_key_arn=str(move.target.kms_key_arn))
        ).rowcount
        self._connection.execute(
            _wrappings.update().where(_wrappings.c.move_id == move.id).values(dict.fromkeys(_RECORD))
        )
        return swapped

    def forget_wrappings(self, move: KmsKeyMove) -> None:
        self._connection.execute(_wrappings.delete().where(_wrappings.c.move_id == move.id))

    def lock_keys_to_rotate(self, move: KmsKeyMove, limit: int) -> Sequence[Key]:
        under_way = sa.exists().where(_rotations.c.key_id == _keys.c.id, schema.OPEN_ROTATION)
        query = (
            _to_rotate(move)
            .where(~under_way)
            .order_by(sa.func.random())  # some may fail each time: they are not to stand before the others
            .limit(limit)
            .with_for_update(of=_keys, skip_locked=True, key_share=True)
        )
        return [to_key(row) for row in self._connection.execute(query)]

    def lock_waking(
        self, now: datetime, limit: int, next_wake_at: datetime, latest_wake_at: datetime
    ) -> Sequence[KmsKeyMove]:
        waking = lock_waking(_moves, schema.WORKING_MOVE, now, limit, latest_wake_at)
        ids = self._connection.execute(
            _moves.update().where(_moves.c.id.in_(waking)).values(wake_at=next_wake_at).returning(_moves.c.id)
        ).scalars()
        found = self._connection.execute(_with_tenant().where(_moves.c.id.in_(ids.all())))
        return [_to_move(row) for row in found]


def _is_of(move: KmsKeyMove) -> sa.ColumnElement[bool]:
    return _keys.c.tenant_id == move.tenant_id


def _second_of(move: KmsKeyMove) -> sa.ColumnElement[bool]:
    """The second wrapping of a version."""
    return sa.and_(
        _wrappings.c.move_id == move.id,
        _wrappings.c.key_id == _versions.c.key_id,
        _wrappings.c.number == _versions.c.number,
    )


def _to_rotate(move: KmsKeyMove) -> sa.Select[Any]:
    """Keys whose active version has a secret that the old KMS key once wrapped."""
    return (
        sa.select(_keys)
        .join_from(_keys, _versions, _IN_KEY)
        .join(_wrappings, _second_of(move))
        .where(_is_of(move), _versions.c.state == VersionState.ACTIVE)
    )


def _latest_first(tenant_id: UUID) -> sa.Select[Any]:
    latest = _moves.c.requested_at.desc(), _moves.c.id.desc()
    return _with_tenant().where(_moves.c.tenant_id == tenant_id).order_by(*latest)


def _with_tenant() -> sa.Select[Any]:
    return sa.select(_moves, _tenants.c.external_id, _tenants.c.name.label("tenant_name")).join_from(
        _moves, _tenants
    )


def _to_move(row: sa.Row[Any]) -> KmsKeyMove:
    def connection(key: str, role: str | None) -> Connection:
        role_arn = None if role is None else RoleArn.parse(role)
        return Connection(
            row.tenant_id, KmsKeyArn.parse(key), row.external_id, role_arn, tenant_name=row.tenant_name
        )

    waits = row.wait_cause is not None
    return KmsKeyMove(
        id=row.id,
        state=MoveState(row.state),
        source=connection(row.from_kms_key_arn, row.from_role_arn),
        target=connection(row.to_kms_key_arn, row.to_role_arn),
        requested_by=row.requested_by,
        requested_at=row.requested_at,
        shared=row.shares_connection,
        hold=row.hold,
        batch=row.batch,
        failures=row.failures,
        wait=Wait(WaitCause(row.wait_cause), row.wait_why, row.wait_remedy) if waits else None,
        committed_at=row.committed_at,
        finished_at=row.finished_at,
    )


def _from_move(move: KmsKeyMove) -> dict[str, Any]:
    """The row of a new move, without its time to wake."""
    source, target = move.source, move.target
    return {
        "id": move.id,
        "tenant_id": move.tenant_id,
        "state": move.state,
        "from_kms_key_arn": str(source.kms_key_arn),
        "from_role_arn": source.role_arn and str(source.role_arn),
        "to_kms_key_arn": str(target.kms_key_arn),
        "to_role_arn": target.role_arn and str(target.role_arn),
        "shares_connection": move.shared,
        "hold": move.hold,
        "requested_by": move.requested_by,
        "requested_at": move.requested_at,
        "batch": move.batch,
        "failures": move.failures,
    }


def _from_wait(wait: Wait | None) -> dict[str, str | None]:
    names = ("wait_cause", "wait_why", "wait_remedy")
    if wait is None:
        return dict.fromkeys(names)
    return dict(zip(names, (wait.cause, wait.why, wait.remedy), strict=True))


def _from_wrapping(wrapping: SecondWrapping) -> dict[str, object]:
    box = wrapping.sealed_wrapped_key
    return {
        "move_id": wrapping.move_id,
        "key_id": wrapping.key_id,
        "number": wrapping.number,
        "encrypted_key": box.body,
        "iv": box.iv,
        "master_key_id": box.master_key_id,
        "kms_request_id": wrapping.kms_request_id,
        "kms_key_material_id": wrapping.kms_key_material_id,
        "validated_at": wrapping.validated_at,
    }
