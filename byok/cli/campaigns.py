"""Campaigns and targets as ``byok reencrypt`` shows them: to people, to machines, and while they run."""

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from byok.cli.output import console, error_console, print_json, show_state, show_time, table
from byok.core.reencryption import (
    Campaign,
    CampaignState,
    CampaignWork,
    PauseCause,
    Phase,
    Target,
    VersionCounts,
)
from byok.errors import CampaignFailed

if TYPE_CHECKING:
    from byok.services.campaigns import Started
    from byok.wiring import Services

_LOOK_SECONDS = 0.5
_PROGRESS = (
    TextColumn("{task.description}"),
    BarColumn(),
    TextColumn("{task.completed:.0f} of {task.total:.0f} rows"),
    TextColumn("{task.fields[pace]}"),
)


def wait_for(services: "Services", work: CampaignWork) -> CampaignWork:
    """Watch a campaign to its end; one that somebody paused is not waited for."""
    began, before = time.monotonic(), work.campaign.this_pass.seen
    with Progress(*_PROGRESS, console=error_console, transient=True) as progress:
        bar = progress.add_task(work.target.shape.name, total=1, pace="")
        while work.campaign.is_open and work.campaign.pause_cause is not PauseCause.REQUEST:
            campaign = work.campaign
            done = campaign.this_pass.seen if campaign.phase is Phase.REWRITE else campaign.rows
            pace = (campaign.this_pass.seen - before) / max(time.monotonic() - began, _LOOK_SECONDS)
            progress.update(
                bar,
                description=f"{work.target.shape.name}: {_show_phase(campaign)}",
                completed=done,
                total=max(campaign.rows, 1),
                pace=_show_pace(pace, campaign.rows - done),
            )
            time.sleep(_LOOK_SECONDS)
            work = services.campaigns.get(campaign.id)
            if work.campaign.pass_number != campaign.pass_number:
                began, before = time.monotonic(), 0
    return work


def _show_phase(campaign: Campaign) -> str:
    if campaign.state is CampaignState.PAUSED:
        return f"paused: {campaign.failure}"
    waits = f", waits: {campaign.failure}" if campaign.failure else ""
    return f"pass {campaign.pass_number}, {campaign.phase}{waits}"


def _show_pace(rows_per_second: float, rows_left: int) -> str:
    if rows_per_second < 1 or rows_left <= 0:
        return ""
    return f"{rows_per_second:.0f}/s, {timedelta(seconds=round(rows_left / rows_per_second))} left"


def raise_failure(works: Sequence[CampaignWork]) -> None:
    """A command that was told to wait ends as its campaign did."""
    for work in works:
        if work.campaign.state is CampaignState.FAILED:
            raise CampaignFailed(
                f"campaign {work.campaign.id} failed: {work.campaign.failure}",
                remedy=f"byok reencrypt status {work.campaign.id} says more; mend that, and start another",
            )


def targets_table(title: str, targets: Sequence[Target]) -> Table:
    """Registered tables; each column with its context."""
    return table(title, ("target", "what it is"), [(str(one.id), _show_shape(one)) for one in targets])


def _show_shape(target: Target) -> str:
    shape = target.shape
    lines = [f"{shape.name}, primary key {shape.primary_key}"]
    if shape.tenant_filter is not None:
        lines.append(f"where {_show_filter(target)}")
    return "\n".join(lines + [f"{column.name}={column.template}" for column in shape.columns])


def campaigns_table(works: Sequence[CampaignWork]) -> Table:
    """Campaigns, three lines each: they are to fit 80 columns."""
    rows = [
        (
            f"{work.campaign.id}\n{show_time(work.campaign.requested_at)}\n{work.campaign.requested_by}",
            f"{work.tenant}/{work.key}\n{work.target.shape.name}",
            _show_progress(work.campaign),
        )
        for work in works
    ]
    return table("campaigns", ("campaign", "key and table", "how it stands"), rows)


def _show_progress(campaign: Campaign) -> str:
    lines = [show_state(campaign.state), f"{campaign.tally.rewritten} rewritten"]
    if campaign.is_open:
        lines.insert(1, f"pass {campaign.pass_number}, {campaign.phase}")
    if campaign.failure:
        lines.append(campaign.failure)
    return "\n".join(lines)


def print_campaign(work: CampaignWork) -> None:
    """A campaign with its evidence."""
    campaign = work.campaign
    rows = [
        ("table", f"{work.target.shape.name} of {work.tenant}/{work.key}"),
        ("state", show_state(campaign.state) + (f": {campaign.failure}" if campaign.failure else "")),
        ("to version", str(campaign.to_version)),
        ("values before", _show_counts(campaign.before)),
        ("values after", _show_counts(campaign.after)),
        ("rows", str(campaign.rows)),
        ("passes", str(campaign.pass_number)),
        ("rewritten", str(campaign.tally.rewritten)),
        ("conflicts", f"{campaign.tally.conflicts} rows that somebody else wrote at that moment"),
        ("unreadable", _show_unreadable(campaign)),
        ("asked for", f"{show_time(campaign.requested_at)} by {campaign.requested_by}"),
        ("finished", show_time(campaign.finished_at)),
    ]
    console.print(table(f"campaign {campaign.id}", ("what", "how it stands"), rows))


def _show_counts(counts: VersionCounts) -> str:
    names = {0: "no token"}
    return ", ".join(f"{names.get(number, f'version {number}')}: {n}" for number, n in counts.items()) or "–"


def _show_unreadable(campaign: Campaign) -> str:
    listed = ", ".join(f"{row.column} of {row.row_id}" for row in campaign.unreadable_rows)
    return f"{campaign.this_pass.unreadable}" + (f": {listed}" if listed else "")


def print_started(works: Sequence[CampaignWork], started: "Sequence[Started]") -> None:
    """One line a campaign on what became of a request."""
    for work, one in zip(works, started, strict=True):
        note = "" if one.is_new else "  (joined: a campaign that was open already serves this, too)"
        console.print(
            f"campaign {work.campaign.id}: {work.target.shape.name} {show_state(work.campaign.state)}{note}"
        )


def print_state(work: CampaignWork, *, as_json: bool) -> None:
    """What became of a campaign that was steered."""
    if as_json:
        print_json(work_json(work))
        return
    console.print(f"campaign {work.campaign.id} is {show_state(work.campaign.state)}")


def _show_filter(target: Target) -> str:
    mine = target.shape.tenant_filter
    return "–" if mine is None else f"{mine.column}={mine.value}"


def target_json(target: Target) -> dict[str, Any]:
    """A target for machines."""
    return {
        "target": target.id,
        "table": target.shape.name,
        "primary_key": target.shape.primary_key,
        "columns": {one.name: one.template for one in target.shape.columns},
        "where": None if target.shape.tenant_filter is None else _show_filter(target),
        "registered_by": target.registered_by,
        "registered_at": target.registered_at,
    }


def work_json(work: CampaignWork) -> dict[str, Any]:
    """A campaign for machines."""
    campaign = work.campaign
    return {
        "campaign": campaign.id,
        "tenant": work.tenant,
        "key": work.key,
        "target": work.target.id,
        "table": work.target.shape.name,
        "state": campaign.state,
        "phase": campaign.phase,
        "to_version": campaign.to_version,
        "rows": campaign.rows,
        "passes": campaign.pass_number,
        "rewritten": campaign.tally.rewritten,
        "conflicts": campaign.tally.conflicts,
        "unreadable": campaign.this_pass.unreadable,
        "unreadable_rows": [{"column": row.column, "id": row.row_id} for row in campaign.unreadable_rows],
        "before": dict(campaign.before),
        "after": dict(campaign.after),
        "rows_per_second": campaign.rows_per_second,
        "pause_cause": campaign.pause_cause,
        "failure": campaign.failure,
        "requested_by": campaign.requested_by,
        "requested_at": campaign.requested_at,
        "finished_at": campaign.finished_at,
    }
