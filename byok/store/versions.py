"""The table of key versions."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.types import TypeEngine

from byok.core.lifecycle import VERSION_LIFECYCLE
from byok.core.model import Check, KeyVersion, VersionEvent, VersionState
from byok.errors import LostRace, UnknownVersion
from byok.store import schema
from byok.store.batches import insert_all, parameters, rows_of, table_of
from byok.store.rows import from_checks, from_version, to_version
from byok.store.translate import translated_errors

_versions, _rotations = schema.key_versions, schema.rotations
_second_wrappings = schema.kms_key_move_wrappings

_TIME_OF = {
    VersionState.ACTIVE: "activated_at",
    VersionState.RETIRED: "retired_at",
    VersionState.COMPROMISED: "retired_at",
    VersionState.REJECTED: "ended_at",
    VersionState.DESTROYED: "ended_at",
}


class VersionTable:
    """Implements `byok.ports.Versions`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def add(self, versions: Sequence[KeyVersion]) -> None:
        with translated_errors():
            insert_all(self._connection, _versions, [from_version(version) for version in versions])

    def get(self, key_id: UUID, number: int) -> KeyVersion:
        wanted = sa.literal(number, sa.BigInteger)  # a forged token may name a number beyond the column's
        row = self._connection.execute(
            sa.select(_versions).where(_versions.c.key_id == key_id, _versions.c.number == wanted)
        ).one_or_none()
        if row is None:
            raise UnknownVersion(
                f"the key has no version {number}", remedy="byok key show TENANT KEY lists them"
            )
        return to_version(row)

    def list(self, key_id: UUID) -> Sequence[KeyVersion]:
        query = sa.select(_versions).where(_versions.c.key_id == key_id).order_by(_versions.c.number)
        return [to_version(row) for row in self._connection.execute(query)]

    def list_orphans(self, limit: int) -> Sequence[KeyVersion]:
        query = (
            sa.select(_versions)
            .join(_rotations, _rotations.c.id == _versions.c.rotation_id)
            .where(_versions.c.state == VersionState.PENDING, _rotations.c.finished_at.is_not(None))
            .limit(limit)
            .with_for_update(of=_versions, skip_locked=True)
        )
        return [to_version(row) for row in self._connection.execute(query)]

    def find_active(self, key_id: UUID) -> KeyVersion | None:
        row = self._connection.execute(
            sa.select(_versions).where(_versions.c.key_id == key_id, _versions.c.state == VersionState.ACTIVE)
        ).one_or_none()
        return None if row is None else to_version(row)

    def list_since_active(self, key_ids: Sequence[UUID]) -> Mapping[UUID, Sequence[KeyVersion]]:
        keys = parameters([{"key_id": key_id} for key_id in key_ids])
        found: dict[UUID, list[KeyVersion]] = {key_id: [] for key_id in key_ids}
        for row in self._connection.execute(_SINCE_ACTIVE, keys).all():
            found[row.key_id].append(to_version(row))
        return found

    def set_validated(self, versions: Sequence[KeyVersion], at: datetime) -> None:
        self._update(
            versions,
            validated_at=[max(at, version.changed_at) for version in versions],
            checks=[from_checks(version.checks) for version in versions],
            fingerprint=[version.fingerprint for version in versions],
            canary=[version.canary for version in versions],
        )

    def set_checks(self, version: KeyVersion, checks: Sequence[Check]) -> None:
        self._update([version], checks=[from_checks(tuple(checks))])

    def transition(self, versions: Sequence[KeyVersion], event: VersionEvent, at: datetime) -> None:
        for state in {version.state for version in versions}:
            self._transition([version for version in versions if version.state is state], state, event, at)

    def _transition(
        self, versions: Sequence[KeyVersion], state: VersionState, event: VersionEvent, at: datetime
    ) -> None:
        to = VERSION_LIFECYCLE.after(state, event)
        time_of = _TIME_OF[to]
        values: dict[str, Sequence[object]] = {
            "state": [to] * len(versions),
            time_of: [_time(version, time_of, at) for version in versions],
        }
        if to is VersionState.DESTROYED:
            values |= dict.fromkeys(("encrypted_key", "iv", "master_key_id"), [None] * len(versions))
        self._update(versions, **values)
        if to in (VersionState.DESTROYED, VersionState.REJECTED):
            self._forget_second_wrappings(versions)

    def _forget_second_wrappings(self, versions: Sequence[KeyVersion]) -> None:
        """Nothing is to bring a version back that is gone, whatever its tenant is moving to."""
        gone = [(version.key_id, version.number) for version in versions]
        self._connection.execute(
            _second_wrappings.delete().where(
                sa.tuple_(_second_wrappings.c.key_id, _second_wrappings.c.number).in_(gone),
                _second_wrappings.c.encrypted_key.is_not(None),
            )
        )

    def _update(self, versions: Sequence[KeyVersion], **values: Sequence[object]) -> None:
        """Write columns of versions that are in the state they are said to be in, or of none."""
        rows = [
            {"key_id": version.key_id, "number": version.number, "from_state": version.state}
            | {f"new_{name}": column[place] for name, column in values.items()}
            for place, version in enumerate(versions)
        ]
        with translated_errors():
            changed = self._connection.execute(_update_of(*values), parameters(rows)).rowcount
        if changed != len(versions):
            one = versions[0]
            raise LostRace(
                f"version {one.number} is not {one.state} any more"
                if len(versions) == 1
                else f"of {len(versions)} versions, {len(versions) - changed} are not what they were any more"
            )


def _time(version: KeyVersion, time_of: str, at: datetime) -> datetime:
    """A version is retired but once; and no time runs backwards, even where the clock does."""
    if time_of == "retired_at" and version.retired_at is not None:
        return version.retired_at
    return max(at, version.changed_at)


@cache
def _update_of(*names: str) -> sa.Update:
    """Of versions by key, number and state, these columns."""
    types: dict[str, TypeEngine[Any]] = {
        "key_id": sa.Uuid(), "number": sa.Integer(), "from_state": sa.Text()
    }  # fmt: skip
    new = table_of(types | {f"new_{name}": _versions.c[name].type for name in names})
    return (
        _versions.update()
        .where(
            _versions.c.key_id == new.c.key_id,
            _versions.c.number == new.c.number,
            _versions.c.state == new.c.from_state,
        )
        .values({name: new.c[f"new_{name}"] for name in names})
    )


def _since_active() -> sa.Select[Any]:
    """Of keys, their active versions and those after, without the reports, which are long."""
    active, keys = _versions.alias("active"), rows_of(_versions, "key_id")
    since = (
        sa.select(active.c.number)
        .where(active.c.key_id == keys.c.key_id, active.c.state == VersionState.ACTIVE)
        .scalar_subquery()
    )
    columns = [column for column in _versions.c if column is not _versions.c.checks]
    return (
        sa.select(*columns, sa.literal([], _versions.c.checks.type).label("checks"))
        .join_from(
            keys,
            _versions,
            sa.and_(_versions.c.key_id == keys.c.key_id, _versions.c.number >= sa.func.coalesce(since, 1)),
        )
        .order_by(_versions.c.number)
    )


_SINCE_ACTIVE = _since_active()
