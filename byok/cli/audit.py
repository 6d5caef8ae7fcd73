"""``byok audit``: the audit log, and whether it is what was written."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from byok.cli.output import AsJson, TenantName, console, error_console, print_json, show_time, table
from byok.cli.services import open_services
from byok.core.model import AuditEvent
from byok.errors import AuditChainBroken, InvalidInput

if TYPE_CHECKING:
    from byok.wiring import Services

audit_app = typer.Typer(help="The audit log.", no_args_is_help=True)

_COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    TextColumn("{task.completed:,.0f} events"),
    TimeRemainingColumn(),
)
_SHOWN = 10  # broken chains; where there are more, somebody looks at all of them


@audit_app.command("log", epilog="Example: [bold]byok audit log acme[/]")
def audit_log(
    tenant: TenantName,
    as_json: AsJson = False,
) -> None:
    """Show what happened to a tenant and its keys, and who did it."""
    with open_services() as services:
        events = services.registry.audit_log(tenant)
    if as_json:
        print_json([_event_json(event) for event in events])
        return
    rows = [
        (
            str(event.sequence),
            show_time(event.at),
            event.actor,
            event.action,
            ", ".join(f"{name} {value}" for name, value in event.details.items() if value not in (None, "")),
        )
        for event in events
    ]
    console.print(table(f"audit log of {tenant}", ("#", "when", "who", "what", "details"), rows))


@audit_app.command("verify", epilog="Example: [bold]byok audit verify acme[/]")
def audit_verify(
    tenant: Annotated[str | None, typer.Argument(metavar="[TENANT]", help="The tenant's name.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="The chains of all tenants.")] = False,
    as_json: AsJson = False,
) -> None:
    """Verify a tenant's hash chain, or all, from the first event to the last."""
    if (tenant is None) is not everything:
        raise InvalidInput("name a tenant, or say --all", remedy="byok tenant list shows the tenants")
    with open_services() as services:
        if tenant is None:
            _verify_all(services, as_json=as_json)
            return
        chain = services.auditor.chain(tenant)
        with _bar(tenant, chain.length) as on_page:
            count = services.auditor.verify(chain, on_page)
    if as_json:
        print_json({"tenant": tenant, "events": count, "intact": True})
    else:
        console.print(f"{count} events, [green]the chain is intact[/]")


def _verify_all(services: "Services", *, as_json: bool) -> None:
    """Go on behind a broken chain: which ones are broken is what one wants to know.

    Raises:
        AuditChainBroken: naming the first of them.
    """
    tenants = events = broken = 0
    shown: list[str] = []
    with _bar("all tenants", None) as on_page:
        for chain in services.auditor.chains():
            tenants += 1
            try:
                events += services.auditor.verify(chain, on_page)
            except AuditChainBroken as error:
                broken += 1
                shown += [f"{chain.tenant}: {error.message}"] if broken <= _SHOWN else []
    if broken:
        raise AuditChainBroken(f"{broken} of {tenants} chains are broken: {'; '.join(shown)}")
    if as_json:
        print_json({"tenants": tenants, "events": events, "intact": True})
    else:
        console.print(f"{tenants} tenants, {events} events, [green]all chains are intact[/]")


@contextmanager
def _bar(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    with Progress(*_COLUMNS, console=error_console, transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda count: progress.advance(task, count)


def _event_json(event: AuditEvent) -> dict[str, Any]:
    return {
        "sequence": event.sequence,
        "at": event.at,
        "actor": event.actor,
        "action": event.action,
        "details": event.details,
        "previous_hash": event.previous_hash.hex(),
        "hash": event.hash.hex(),
    }
