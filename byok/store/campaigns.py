"""The tables of re-encryption: what is registered, and how each campaign over it stands."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from byok.core.model import RotationReason, RotationState, TenantState
from byok.core.reencryption import (
    CAMPAIGN_LIFECYCLE,
    OPEN_STATES,
    Campaign,
    CampaignEvent,
    CampaignState,
    CampaignWork,
    PauseCause,
    Target,
    VersionCounts,
    add_counts,
    count_below,
)
from byok.errors import CampaignOpen, LostRace, UnknownCampaign, UnknownTarget
from byok.store import schema
from byok.store.campaign_rows import from_campaign, from_target, to_campaign, to_target
from byok.store.claims import lock_waking, unclaimed
from byok.store.translate import translated_errors

_targets, _campaigns = schema.reencryption_targets, schema.reencryption_campaigns
_keys, _tenants, _rotations = schema.keys, schema.tenants, schema.rotations
_JOIN_ATTEMPTS = 10  # the open campaign that is in a new one's way can end before we read it


class TargetTable:
    """Implements `byok.ports.Targets`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def add(self, target: Target) -> None:
        with translated_errors():
            self._connection.execute(_targets.insert().values(from_target(target)))

    def get(self, target_id: UUID) -> Target:
        row = self._connection.execute(
            sa.select(_targets).where(_targets.c.id == target_id, _targets.c.unregistered_at.is_(None))
        ).one_or_none()
        if row is None:
            raise UnknownTarget(
                f"there is no target {target_id}", remedy="byok reencrypt targets TENANT KEY shows them"
            )
        return to_target(row)

    def list(self, key_id: UUID) -> Sequence[Target]:
        query = (
            sa.select(_targets)
            .where(_targets.c.key_id == key_id, _targets.c.unregistered_at.is_(None))
            .order_by(_targets.c.schema_name, _targets.c.table_name)
        )
        return [to_target(row) for row in self._connection.execute(query)]

    def unregister(self, target: Target, at: datetime) -> None:
        # The row's lock orders this and whoever starts a campaign, which locks it for its foreign key.
        self._connection.execute(sa.select(_targets.c.id).where(_targets.c.id == target.id).with_for_update())
        under_way = sa.exists().where(_campaigns.c.target_id == target.id, schema.OPEN_CAMPAIGN)
        if self._connection.execute(sa.select(under_way)).scalar_one():
            raise CampaignOpen(
                f"a campaign over {target.shape.name} is under way",
                remedy="wait for it, or byok reencrypt cancel CAMPAIGN",
            )
        self._connection.execute(
            _targets.update().where(_targets.c.id == target.id).values(unregistered_at=at)
        )

    def lock_owed(self, limit: int) -> Sequence[tuple[Target, int]]:
        replaced_by = (
            sa.select(sa.func.max(_rotations.c.version_number))
            .where(
                _rotations.c.key_id == _targets.c.key_id,
                _rotations.c.reason == RotationReason.COMPROMISE,
                _rotations.c.state == RotationState.DONE,
            )
            .scalar_subquery()
        )
        seen_to = sa.exists().where(
            _campaigns.c.target_id == _targets.c.id,
            sa.or_(_campaigns.c.to_version >= replaced_by, _campaigns.c.state.in_(OPEN_STATES)),
        )
        rows = self._connection.execute(
            sa.select(_targets, replaced_by.label("version_number"))
            .where(_targets.c.unregistered_at.is_(None), replaced_by.is_not(None), ~seen_to)
            .limit(limit)
            .with_for_update(of=_targets, skip_locked=True)
        )
        return [(to_target(row), row.version_number) for row in rows]


class CampaignTable:
    """Implements `byok.ports.Campaigns`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def start(self, campaign: Campaign, wake_at: datetime) -> tuple[Campaign, bool]:
        statement = (
            insert(_campaigns)
            .values(from_campaign(campaign) | {"wake_at": wake_at})
            .on_conflict_do_nothing()
            .returning(_campaigns)
        )
        for _ in range(_JOIN_ATTEMPTS):
            row = self._connection.execute(statement).one_or_none()
            if row is not None:
                return to_campaign(row), True
            is_open = (_campaigns.c.target_id == campaign.target_id, schema.OPEN_CAMPAIGN)
            row = self._connection.execute(sa.select(_campaigns).where(*is_open)).one_or_none()
            if row is not None:
                return to_campaign(row), False
        raise LostRace("campaigns over this target end as fast as one can ask", remedy="ask again")

    def get(self, campaign_id: UUID) -> CampaignWork:
        works = self._works(_campaigns.c.id == campaign_id, limit=1)
        if not works:
            raise _unknown(campaign_id)
        return works[0]

    def lock(self, campaign_id: UUID) -> Campaign:
        row = self._connection.execute(
            sa.select(_campaigns).where(_campaigns.c.id == campaign_id).with_for_update()
        ).one_or_none()
        if row is None:
            raise _unknown(campaign_id)
        return to_campaign(row)

    def list_latest(self, limit: int) -> Sequence[CampaignWork]:
        return self._works(sa.true(), limit=limit)

    def find_proven(self, target_id: UUID) -> int | None:
        rows = self._connection.execute(
            sa.select(_campaigns)
            .where(_campaigns.c.target_id == target_id)
            .order_by(_campaigns.c.requested_at.desc(), _campaigns.c.id.desc())
        )
        counted_since: VersionCounts = {}
        for campaign in map(to_campaign, rows):
            if campaign.state is CampaignState.DONE and not campaign.remaining:
                is_refuted = count_below(counted_since, campaign.to_version) > 0
                return None if is_refuted else campaign.to_version
            counted_since = add_counts(counted_since, add_counts(campaign.before, campaign.after))
        return None

    def _works(self, *conditions: sa.ColumnElement[bool] | sa.TextClause, limit: int) -> list[CampaignWork]:
        names = _tenants.c.name.label("tenant_name"), _keys.c.name.label("key_name")
        rows = self._connection.execute(
            sa.select(_campaigns, *names)
            .join(_targets, _targets.c.id == _campaigns.c.target_id)
            .join(_keys, _keys.c.id == _targets.c.key_id)
            .join(_tenants, _tenants.c.id == _keys.c.tenant_id)
            .where(*conditions)
            .order_by(_campaigns.c.requested_at.desc(), _campaigns.c.id.desc())
            .limit(limit)
        ).all()
        of_rows = sa.select(_targets).where(_targets.c.id.in_({row.target_id for row in rows}))
        targets = {row.id: to_target(row) for row in self._connection.execute(of_rows)}
        return [
            CampaignWork(to_campaign(row), targets[row.target_id], row.tenant_name, row.key_name)
            for row in rows
        ]

    def claim(
        self, campaign_id: UUID, batch: int | None, now: datetime, duration: timedelta
    ) -> Campaign | None:
        until = now + duration
        wanted = sa.true() if batch is None else _campaigns.c.batch == batch
        row = self._connection.execute(
            _campaigns.update()
            .where(
                _campaigns.c.id == campaign_id,
                _campaigns.c.state == CampaignState.RUNNING,
                unclaimed(_campaigns, now, duration),
                wanted,
            )
            .values(
                claimed_until=until,
                wake_at=until,
                batch=_campaigns.c.batch + 1,
                started_at=sa.func.coalesce(_campaigns.c.started_at, now),
            )
            .returning(_campaigns)
        ).one_or_none()
        return None if row is None else to_campaign(row)

    def advance(self, campaign: Campaign, until: datetime) -> Campaign:
        values = from_campaign(replace(campaign, failures=0, failure=None))
        return self._update(campaign, values | {"claimed_until": until, "wake_at": until})

    def release(self, campaign: Campaign, wake_at: datetime, failure: str | None) -> Campaign:
        values: dict[str, Any] = {"claimed_until": None, "wake_at": wake_at}
        if failure is not None:
            values |= {"failure": failure, "failures": _campaigns.c.failures + 1}
        return self._update(campaign, values)

    def transition(
        self,
        campaign: Campaign,
        event: CampaignEvent,
        at: datetime,
        *,
        failure: str | None = None,
        pause_cause: PauseCause | None = None,
    ) -> Campaign:
        to = CAMPAIGN_LIFECYCLE.after(campaign.state, event)
        values: dict[str, Any] = {
            "state": to,
            "claimed_until": None,
            "wake_at": at if to is CampaignState.RUNNING else None,
            "finished_at": None if to in OPEN_STATES else at,
            "pause_cause": pause_cause,
            "failure": failure,
        }
        return self._update(campaign, values)

    def _update(self, campaign: Campaign, values: dict[str, Any]) -> Campaign:
        """Compare the state and the batch, and swap."""
        row = self._connection.execute(
            _campaigns.update()
            .where(
                _campaigns.c.id == campaign.id,
                _campaigns.c.state == campaign.state,
                _campaigns.c.batch == campaign.batch,
            )
            .values(values)
            .returning(_campaigns)
        ).one_or_none()
        if row is None:
            raise LostRace(f"campaign {campaign.id} is at another batch or state by now")
        return to_campaign(row)

    def lock_waking(
        self, now: datetime, limit: int, next_wake_at: datetime, latest_wake_at: datetime
    ) -> Sequence[Campaign]:
        waking = lock_waking(
            _campaigns, _campaigns.c.state == CampaignState.RUNNING, now, limit, latest_wake_at
        )
        rows = self._connection.execute(
            _campaigns.update()
            .where(_campaigns.c.id.in_(waking))
            .values(wake_at=next_wake_at)
            .returning(_campaigns)
        )
        return [to_campaign(row) for row in rows]

    def lock_stopped(self, limit: int) -> Sequence[tuple[UUID, Campaign]]:
        rows = self._connection.execute(
            sa.select(_campaigns, _tenants.c.id.label("tenant_id"))
            .join(_targets, _targets.c.id == _campaigns.c.target_id)
            .join(_keys, _keys.c.id == _targets.c.key_id)
            .join(_tenants, _tenants.c.id == _keys.c.tenant_id)
            .where(_campaigns.c.pause_cause == PauseCause.STOP, _tenants.c.state == TenantState.ACTIVE)
            .order_by(_tenants.c.id)
            .limit(limit)
            .with_for_update(of=_campaigns, skip_locked=True)
        )
        return [(row.tenant_id, to_campaign(row)) for row in rows]


def _unknown(campaign_id: UUID) -> UnknownCampaign:
    return UnknownCampaign(f"there is no campaign {campaign_id}", remedy="byok reencrypt status shows them")
