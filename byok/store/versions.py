"""The table of key versions."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa

from byok.core.lifecycle import VERSION_LIFECYCLE
from byok.core.model import Check, KeyVersion, VersionEvent, VersionState
from byok.errors import LostRace, UnknownVersion
from byok.store import schema
from byok.store.rows import from_checks, from_version, to_version
from byok.store.translate import translated_errors

_versions, _rotations = schema.key_versions, schema.rotations

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

    def add(self, version: KeyVersion) -> None:
        with translated_errors():
            self._connection.execute(_versions.insert().values(from_version(version)))

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

    def set_validated(
        self, version: KeyVersion, at: datetime, checks: Sequence[Check], fingerprint: bytes, canary: bytes
    ) -> None:
        self._update(
            version,
            validated_at=max(at, version.changed_at),
            checks=from_checks(tuple(checks)),
            fingerprint=fingerprint,
            canary=canary,
        )

    def set_checks(self, version: KeyVersion, checks: Sequence[Check]) -> None:
        self._update(version, checks=from_checks(tuple(checks)))

    def transition(self, version: KeyVersion, event: VersionEvent, at: datetime) -> None:
        to = VERSION_LIFECYCLE.after(version.state, event)
        values: dict[str, object] = {"state": to}
        if getattr(version, _TIME_OF[to]) is None:  # a version is retired but once
            # No time runs backwards, even where the clock does.
            values[_TIME_OF[to]] = max(at, version.changed_at)
        if to is VersionState.DESTROYED:
            values |= {"encrypted_key": None, "iv": None, "master_key_id": None}
        self._update(version, **values)

    def _update(self, version: KeyVersion, **values: object) -> None:
        with translated_errors():
            changed = self._connection.execute(
                _versions.update()
                .where(
                    _versions.c.key_id == version.key_id,
                    _versions.c.number == version.number,
                    _versions.c.state == version.state,
                )
                .values(values)
            ).rowcount
        if changed != 1:
            raise LostRace(f"version {version.number} is not {version.state} any more")
