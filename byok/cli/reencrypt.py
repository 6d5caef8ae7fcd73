"""``byok reencrypt``: targets and campaigns."""

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer
from rich.progress import BarColumn, Progress, TextColumn

from byok.cli.fields import Key
from byok.cli.output import (
    AsJson,
    TenantName,
    actor,
    console,
    error_console,
    print_json,
    show_state,
    show_time,
    table,
)
from byok.cli.services import open_services
from byok.core.reencryption import (
    Campaign,
    CampaignState,
    CampaignWork,
    PauseCause,
    Phase,
    Target,
    TargetColumn,
    VersionCounts,
)
from byok.errors import CampaignFailed, InvalidInput

if TYPE_CHECKING:
    from byok.services.campaigns import Started
    from byok.wiring import Services

app = typer.Typer(
    help="Re-encryption: the application's rows, under the active version.", no_args_is_help=True
)

CampaignId = Annotated[str, typer.Argument(metavar="CAMPAIGN", help="The campaign's id.")]
TargetId = Annotated[str, typer.Argument(metavar="TARGET", help="The target's id.")]
AllowUnreadable = Annotated[
    bool, typer.Option("--allow-unreadable", help="Go on although some values don't open; they are listed.")
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the end, with a progress bar.")]

_LOOK_SECONDS = 0.5
_PROGRESS = (
    TextColumn("{task.description}"),
    BarColumn(),
    TextColumn("{task.completed:.0f} of {task.total:.0f} rows"),
    TextColumn("{task.fields[pace]}"),
)


@app.command(
    epilog="Example: [bold]byok reencrypt register acme pii --table crm.users --primary-key id"
    " --column 'email=users.email:{id}'[/]"
)
def register(
    tenant: TenantName,
    key: Key,
    table_name: Annotated[
        str, typer.Option("--table", metavar="TABLE", help="The table, with its schema if need be.")
    ],
    primary_key: Annotated[
        str, typer.Option("--primary-key", metavar="COLUMN", help="One unique integer, text or uuid column.")
    ],
    columns: Annotated[
        list[str],
        typer.Option(
            "--column",
            metavar="COLUMN=TEMPLATE",
            help="A bytea column of tokens, and the context that services use; more than once.",
        ),
    ],
    tenant_filter: Annotated[
        str | None,
        typer.Option(
            "--where",
            metavar="COLUMN=VALUE",
            help="Which rows are the tenant's, where the table holds those of many.",
        ),
    ] = None,
    allow_unreadable: AllowUnreadable = False,
    as_json: AsJson = False,
) -> None:
    """Register a table whose rows hold tokens of a key, after opening its first hundred rows for a try."""
    with open_services() as services:
        made = services.targets.register(
            tenant,
            key,
            table=table_name,
            primary_key=primary_key,
            columns=[TargetColumn.parse(text) for text in columns],
            tenant=_parse_filter(tenant_filter),
            actor=actor(),
            allow_unreadable=allow_unreadable,
        )
    if as_json:
        print_json(_target_json(made.target) | {"tried": made.sampled, "unreadable": len(made.unreadable)})
        return
    console.print(f"target {made.target.id}: {made.target.shape.name}, {made.sampled} values tried")
    for row in made.unreadable:
        console.print(f"[red]does not open[/] {row.column} of {row.row_id}")


@app.command()
def targets(tenant: TenantName, key: Key, as_json: AsJson = False) -> None:
    """List the tables that are registered for a key."""
    with open_services() as services:
        found = services.targets.list(tenant, key)
    if as_json:
        print_json([_target_json(target) for target in found])
        return
    rows = [
        (
            str(target.id),
            target.shape.name,
            target.shape.primary_key,
            "\n".join(f"{one.name}={one.template}" for one in target.shape.columns),
            _show_filter(target),
        )
        for target in found
    ]
    console.print(
        table(f"targets of {tenant}/{key}", ("target", "table", "primary key", "columns", "where"), rows)
    )


@app.command()
def unregister(target: TargetId) -> None:
    """Forget a target; its campaigns stay as evidence."""
    with open_services() as services:
        forgotten = services.targets.unregister(_parse(target, "target"), actor=actor())
    console.print(f"{forgotten.shape.name} is registered no more")


@app.command(epilog="Example: [bold]byok reencrypt start acme pii --rows-per-second 2000 --wait[/]")
def start(
    tenant: TenantName,
    key: Key,
    target: Annotated[
        str | None, typer.Option("--target", metavar="TARGET", help="This target alone; left out: all.")
    ] = None,
    rows_per_second: Annotated[
        int | None, typer.Option(min=1, help="So many rows are rewritten a second at most, by all workers.")
    ] = None,
    allow_unreadable: AllowUnreadable = False,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Bring the rows of a key's targets under its active version."""
    with open_services() as services:
        started = services.campaigns.start(
            tenant,
            key,
            requested_by=actor(),
            target_id=None if target is None else _parse(target, "target"),
            rows_per_second=rows_per_second,
            allow_unreadable=allow_unreadable,
        )
        works = [one.work for one in started]
        if wait:
            works = [_wait_for(services, work) for work in works]
    if as_json:
        print_json([_work_json(work) | {"new": one.is_new} for work, one in zip(works, started, strict=True)])
    else:
        _print_started(works, started)
    _raise_failure(works if wait else [])


@app.command()
def status(
    campaign: Annotated[
        str | None, typer.Argument(metavar="[CAMPAIGN]", help="One campaign; left out: the latest.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 20,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show the campaign's progress until it ends.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show campaigns, or one with its evidence."""
    if campaign is None and watch:
        raise InvalidInput("--watch needs a campaign", remedy="byok reencrypt status shows them")
    with open_services() as services:
        if campaign is None:
            works = list(services.campaigns.latest(limit))
        else:
            works = [services.campaigns.get(_parse(campaign, "campaign"))]
        if watch:
            works = [_wait_for(services, work) for work in works]
    if as_json:
        told = [_work_json(work) for work in works]
        print_json(told if campaign is None else told[0])
    elif campaign is None:
        console.print(table("campaigns", _COLUMNS, [_row(work) for work in works]))
    else:
        _print_one(works[0])


@app.command()
def pause(campaign: CampaignId) -> None:
    """Stop a campaign after the page it is at."""
    with open_services() as services:
        work = services.campaigns.pause(_parse(campaign, "campaign"), actor=actor())
    _print_state(work)


@app.command()
def resume(campaign: CampaignId) -> None:
    """Let a paused campaign go on where it was."""
    with open_services() as services:
        work = services.campaigns.resume(_parse(campaign, "campaign"), actor=actor())
    _print_state(work)


@app.command()
def cancel(campaign: CampaignId) -> None:
    """End a campaign. What it has rewritten stays rewritten, the rest stays as it is."""
    with open_services() as services:
        work = services.campaigns.cancel(_parse(campaign, "campaign"), actor=actor())
    _print_state(work)


# --- waiting --------------------------------------------------------------------------------------


def _wait_for(services: "Services", work: CampaignWork) -> CampaignWork:
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


def _raise_failure(works: list[CampaignWork]) -> None:
    """A command that was told to wait ends as its campaign did."""
    for work in works:
        if work.campaign.state is CampaignState.FAILED:
            raise CampaignFailed(
                f"campaign {work.campaign.id} failed: {work.campaign.failure}",
                remedy=f"byok reencrypt status {work.campaign.id} names the rows",
            )


# --- printing -------------------------------------------------------------------------------------

_COLUMNS = ("campaign", "tenant", "key", "table", "state", "phase", "rows", "rewritten", "requested", "why")


def _row(work: CampaignWork) -> tuple[str, ...]:
    campaign = work.campaign
    return (
        str(campaign.id),
        work.tenant,
        work.key,
        work.target.shape.name,
        show_state(campaign.state),
        f"pass {campaign.pass_number}, {campaign.phase}" if campaign.is_open else "–",
        str(campaign.rows),
        str(campaign.tally.rewritten),
        show_time(campaign.requested_at),
        campaign.failure or "",
    )


def _print_one(work: CampaignWork) -> None:
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


def _print_started(works: Sequence[CampaignWork], started: "Sequence[Started]") -> None:
    for work, one in zip(works, started, strict=True):
        note = "" if one.is_new else "  (joined: a campaign that was open already serves this, too)"
        console.print(
            f"campaign {work.campaign.id}: {work.target.shape.name} {show_state(work.campaign.state)}{note}"
        )


def _print_state(work: CampaignWork) -> None:
    console.print(f"campaign {work.campaign.id} is {show_state(work.campaign.state)}")


def _show_filter(target: Target) -> str:
    mine = target.shape.tenant_filter
    return "–" if mine is None else f"{mine.column}={mine.value}"


def _target_json(target: Target) -> dict[str, Any]:
    return {
        "target": target.id,
        "table": target.shape.name,
        "primary_key": target.shape.primary_key,
        "columns": {one.name: one.template for one in target.shape.columns},
        "where": None if target.shape.tenant_filter is None else _show_filter(target),
        "registered_by": target.registered_by,
        "registered_at": target.registered_at,
    }


def _work_json(work: CampaignWork) -> dict[str, Any]:
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


def _parse_filter(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    column, _, value = text.partition("=")
    if not column or not value:
        raise InvalidInput(f"{text!r} chooses no rows", remedy="write COLUMN=VALUE, such as tenant_id=acme")
    return column, value


def _parse(text: str, what: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        remedy = "byok reencrypt status shows campaigns, byok reencrypt targets TENANT KEY targets"
        raise InvalidInput(f"{text!r} is not the id of a {what}", remedy=remedy) from None
