"""Rows of targets and campaigns, and back."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row

from byok.core.reencryption import (
    Campaign,
    CampaignState,
    ColumnKind,
    PauseCause,
    Phase,
    TableShape,
    Tally,
    Target,
    TargetColumn,
    TenantFilter,
    UnreadableRow,
    VersionCounts,
)


def to_target(row: Row[Any]) -> Target:
    """A row of ``reencryption_targets``."""
    shape = TableShape(
        schema=row.schema_name,
        table=row.table_name,
        primary_key=row.primary_key,
        primary_key_kind=ColumnKind(row.primary_key_kind),
        columns=tuple(TargetColumn(one["name"], one["template"]) for one in row.columns),
        tenant_filter=(
            None
            if row.tenant_column is None
            else TenantFilter(row.tenant_column, ColumnKind(row.tenant_column_kind), row.tenant_value)
        ),
    )
    return Target(row.id, row.key_id, shape, row.registered_by, row.registered_at, row.unregistered_at)


def from_target(target: Target) -> dict[str, object]:
    """The row of a target."""
    shape, mine = target.shape, target.shape.tenant_filter
    return {
        "id": target.id,
        "key_id": target.key_id,
        "schema_name": shape.schema,
        "table_name": shape.table,
        "primary_key": shape.primary_key,
        "primary_key_kind": shape.primary_key_kind,
        "columns": [{"name": column.name, "template": column.template} for column in shape.columns],
        "tenant_column": mine and mine.column,
        "tenant_column_kind": mine and mine.kind,
        "tenant_value": mine and mine.value,
        "registered_by": target.registered_by,
        "registered_at": target.registered_at,
        "unregistered_at": target.unregistered_at,
    }


def to_campaign(row: Row[Any]) -> Campaign:
    """A row of ``reencryption_campaigns``."""
    return Campaign(
        id=row.id,
        target_id=row.target_id,
        state=CampaignState(row.state),
        to_version=row.to_version,
        requested_by=row.requested_by,
        requested_at=row.requested_at,
        phase=Phase(row.phase),
        pass_number=row.pass_number,
        cursor=row.cursor,
        batch=row.batch,
        rows_per_second=row.rows_per_second,
        allow_unreadable=row.allow_unreadable,
        rows=row.row_count,
        tally=Tally(row.seen, row.rewritten, row.conflicts, row.unreadable),
        this_pass=Tally(row.pass_seen, row.pass_rewritten, row.pass_conflicts, row.pass_unreadable),
        unreadable_rows=tuple(UnreadableRow(one["column"], one["id"]) for one in row.unreadable_rows),
        before=_to_counts(row.before),
        after=_to_counts(row.after),
        failures=row.failures,
        failure=row.failure,
        pause_cause=None if row.pause_cause is None else PauseCause(row.pause_cause),
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def from_campaign(campaign: Campaign) -> dict[str, object]:
    """The row of a campaign, without its claim and its time to wake."""
    tally, this_pass = campaign.tally, campaign.this_pass
    return {
        "id": campaign.id,
        "target_id": campaign.target_id,
        "state": campaign.state,
        "to_version": campaign.to_version,
        "requested_by": campaign.requested_by,
        "requested_at": campaign.requested_at,
        "phase": campaign.phase,
        "pass_number": campaign.pass_number,
        "cursor": campaign.cursor,
        "batch": campaign.batch,
        "rows_per_second": campaign.rows_per_second,
        "allow_unreadable": campaign.allow_unreadable,
        "row_count": campaign.rows,
        "seen": tally.seen,
        "rewritten": tally.rewritten,
        "conflicts": tally.conflicts,
        "unreadable": tally.unreadable,
        "pass_seen": this_pass.seen,
        "pass_rewritten": this_pass.rewritten,
        "pass_conflicts": this_pass.conflicts,
        "pass_unreadable": this_pass.unreadable,
        "unreadable_rows": [{"column": one.column, "id": one.row_id} for one in campaign.unreadable_rows],
        "before": _from_counts(campaign.before),
        "after": _from_counts(campaign.after),
        "failures": campaign.failures,
        "failure": campaign.failure,
        "pause_cause": campaign.pause_cause,
        "started_at": campaign.started_at,
        "finished_at": campaign.finished_at,
    }


def _to_counts(stored: Mapping[str, int]) -> dict[int, int]:
    return {int(number): count for number, count in stored.items()}


def _from_counts(counts: VersionCounts) -> dict[str, int]:
    return {str(number): count for number, count in counts.items()}
