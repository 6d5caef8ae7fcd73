"""The table of tenants' ways out."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from byok.core.offboarding import (
    OFFBOARDING_LIFECYCLE,
    Offboarding,
    OffboardingEvent,
    OffboardingState,
    Signed,
)
from byok.errors import LostRace
from byok.store import schema
from byok.store.translate import translated_errors

_offboardings = schema.offboardings
_TIME_OF = {
    OffboardingState.CANCELLED: "cancelled_at",
    OffboardingState.SHREDDING: "shredding_at",
    OffboardingState.SHREDDED: "shredded_at",
}


class OffboardingTable:
    """Implements `byok.ports.Offboardings`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def add(self, offboarding: Offboarding) -> None:
        with translated_errors():
            self._connection.execute(
                _offboardings.insert().values(
                    id=offboarding.id,
                    tenant_id=offboarding.tenant_id,
                    state=offboarding.state,
                    requested_by=offboarding.requested_by,
                    requested_at=offboarding.requested_at,
                    reason=offboarding.reason,
                    shred_after=offboarding.shred_after,
                    stop_id=offboarding.stop_id,
                    shredding_at=offboarding.shredding_at,
                    shredded_at=offboarding.shredded_at,
                )
            )

    def find(self, tenant_id: UUID) -> Offboarding | None:
        query = sa.select(_offboardings).where(_offboardings.c.tenant_id == tenant_id, schema.NOT_CANCELLED)
        row = self._connection.execute(query).one_or_none()
        return None if row is None else _to_offboarding(row)

    def lock(self, offboarding_id: UUID) -> Offboarding:
        query = sa.select(_offboardings).where(_offboardings.c.id == offboarding_id).with_for_update()
        return _to_offboarding(self._connection.execute(query).one())

    def transition(
        self,
        offboarding: Offboarding,
        event: OffboardingEvent,
        at: datetime,
        *,
        certificate: Signed | None = None,
    ) -> Offboarding:
        to = OFFBOARDING_LIFECYCLE.after(offboarding.state, event)
        values: dict[str, object] = {"state": to}
        if to in _TIME_OF:
            # No time runs backwards, even where the clock does.
            values[_TIME_OF[to]] = max(at, offboarding.shredding_at or at)
        if certificate is not None:
            values["certificate"] = dict(certificate)
        row = self._connection.execute(
            _offboardings.update()
            .where(_offboardings.c.id == offboarding.id, _offboardings.c.state == offboarding.state)
            .values(values)
            .returning(_offboardings)
        ).one_or_none()
        if row is None:
            raise LostRace("somebody else is further with this tenant's leaving")
        return _to_offboarding(row)

    def set_access_statement(self, offboarding: Offboarding, statement: Signed) -> None:
        self._connection.execute(
            _offboardings.update()
            .where(_offboardings.c.id == offboarding.id)
            .values(access_statement=dict(statement))
        )

    def list_due(self, now: datetime, limit: int) -> Sequence[Offboarding]:
        query = (
            sa.select(_offboardings)
            .where(schema.UNFINISHED, _offboardings.c.shred_after <= now)
            .order_by(sa.func.random())  # some may fail each time: they are not to stand before the others
            .limit(limit)
        )
        return [_to_offboarding(row) for row in self._connection.execute(query)]


def _to_offboarding(row: sa.Row[Any]) -> Offboarding:
    return Offboarding(**(dict(row._mapping) | {"state": OffboardingState(row.state)}))
