"""``byok reencrypt``: register tables, start and steer campaigns."""

from typing import Annotated

import typer

from byok.cli.campaigns import (
    campaigns_table,
    print_campaign,
    print_started,
    print_state,
    raise_failure,
    target_json,
    targets_table,
    wait_for,
    work_json,
)
from byok.cli.output import AsJson, KeyName, TenantName, actor, console, parse_id, print_json
from byok.cli.services import open_services
from byok.core.reencryption import TargetColumn
from byok.errors import InvalidInput

app = typer.Typer(
    help="Re-encryption: the application's rows, under the active version.", no_args_is_help=True
)

CampaignId = Annotated[str, typer.Argument(metavar="CAMPAIGN", help="The campaign's id.")]
TargetId = Annotated[str, typer.Argument(metavar="TARGET", help="The target's id.")]
AllowUnreadable = Annotated[
    bool, typer.Option("--allow-unreadable", help="Go on although some values don't open; they are listed.")
]
_LISTED = "byok reencrypt status shows campaigns, byok reencrypt targets TENANT KEY targets"
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the end, with a progress bar.")]


@app.command(
    epilog="Example: [bold]byok reencrypt register acme pii --table crm.users --primary-key id"
    " --column 'email=users.email:{id}'[/]"
)
def register(
    tenant: TenantName,
    key: KeyName,
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
        print_json(target_json(made.target) | {"tried": made.sampled, "unreadable": len(made.unreadable)})
        return
    tried = f"{made.sampled} values tried" if made.sampled else "no value to try: the templates are unproven"
    console.print(f"target {made.target.id}: {made.target.shape.name}, {tried}")
    for row in made.unreadable:
        console.print(f"[red]does not open[/] {row.column} of {row.row_id}")


@app.command(epilog="Example: [bold]byok reencrypt targets acme pii[/]")
def targets(tenant: TenantName, key: KeyName, as_json: AsJson = False) -> None:
    """List the tables that are registered for a key."""
    with open_services() as services:
        found = services.targets.list(tenant, key)
    if as_json:
        print_json([target_json(target) for target in found])
        return
    console.print(targets_table(f"targets of {tenant}/{key}", found))


@app.command(epilog="Example: [bold]byok reencrypt unregister 01a2… [/]")
def unregister(target: TargetId, as_json: AsJson = False) -> None:
    """Forget a target; its campaigns stay as evidence."""
    with open_services() as services:
        forgotten = services.targets.unregister(parse_id(target, "target", _LISTED), actor=actor())
    if as_json:
        print_json(target_json(forgotten))
        return
    console.print(f"{forgotten.shape.name} is registered no more")


@app.command(epilog="Example: [bold]byok reencrypt start acme pii --rows-per-second 2000 --wait[/]")
def start(
    tenant: TenantName,
    key: KeyName,
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
            target_id=None if target is None else parse_id(target, "target", _LISTED),
            rows_per_second=rows_per_second,
            allow_unreadable=allow_unreadable,
        )
        works = [one.work for one in started]
        if wait:
            works = [wait_for(services, work) for work in works]
    if as_json:
        print_json([work_json(work) | {"new": one.is_new} for work, one in zip(works, started, strict=True)])
    else:
        print_started(works, started)
    raise_failure(works if wait else [])


@app.command(epilog="Example: [bold]byok reencrypt status 01a2… --watch[/]")
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
            works = [services.campaigns.get(parse_id(campaign, "campaign", _LISTED))]
        if watch:
            works = [wait_for(services, work) for work in works]
    if as_json:
        told = [work_json(work) for work in works]
        print_json(told if campaign is None else told[0])
    elif campaign is None:
        console.print(campaigns_table(works))
    else:
        print_campaign(works[0])


@app.command(epilog="Example: [bold]byok reencrypt pause 01a2… [/]")
def pause(campaign: CampaignId, as_json: AsJson = False) -> None:
    """Stop a campaign after the page it is at."""
    with open_services() as services:
        work = services.campaigns.pause(parse_id(campaign, "campaign", _LISTED), actor=actor())
    print_state(work, as_json=as_json)


@app.command(epilog="Example: [bold]byok reencrypt resume 01a2… [/]")
def resume(campaign: CampaignId, as_json: AsJson = False) -> None:
    """Let a paused campaign go on where it was."""
    with open_services() as services:
        work = services.campaigns.resume(parse_id(campaign, "campaign", _LISTED), actor=actor())
    print_state(work, as_json=as_json)


@app.command(epilog="Example: [bold]byok reencrypt cancel 01a2… [/]")
def cancel(campaign: CampaignId, as_json: AsJson = False) -> None:
    """End a campaign. What it has rewritten stays rewritten, the rest stays as it is."""
    with open_services() as services:
        work = services.campaigns.cancel(parse_id(campaign, "campaign", _LISTED), actor=actor())
    print_state(work, as_json=as_json)


def _parse_filter(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    column, _, value = text.partition("=")
    if not column or not value:
        raise InvalidInput(f"{text!r} chooses no rows", remedy="write COLUMN=VALUE, such as tenant_id=acme")
    return column, value
