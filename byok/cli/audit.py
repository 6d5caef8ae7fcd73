"""``byok audit``: the audit log, and whether it is what was written."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from byok.cli.output import (
    AsJson,
    TenantName,
    console,
    error_console,
    parse_duration,
    print_json,
    print_json_list,
    show_foreign,
    show_time,
)
from byok.cli.reports import decode_public_key
from byok.cli.services import open_runtime
from byok.core.audit import AuditChain
from byok.core.checkpoints import KeptCheckpoint
from byok.core.model import AuditEvent
from byok.crypto.checkpoints import read_checkpoint
from byok.crypto.reports import PURPOSE, read_report
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


@audit_app.command("log", epilog="Example: [bold]byok audit log acme --last 20[/]")
def audit_log(
    tenant: TenantName,
    last: Annotated[int | None, typer.Option(min=1, help="No more than so many, the latest.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="WHEN", help="From then on: 7d ago, or 2026-06-01T12:00Z.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what happened to a tenant and its keys, and who did it."""
    with open_runtime() as runtime:
        auditor = runtime.services.auditor
        start = None if since is None else parse_since(since, runtime.store.now())
        pages = auditor.log(auditor.chain(tenant), last=last, since=start)
        if as_json:
            print_json_list(_event_json(event) for page in pages for event in page)
            return
        console.print(f"audit log of {tenant}", style="bold")
        for page in pages:
            for event in page:
                _print_event(event)


def parse_since(text: str, now: datetime) -> datetime:
    """The time that ``7d`` ago, ``2026-06-01`` or ``2026-06-01T12:00Z`` is; without a zone in UTC.

    Raises:
        InvalidInput: none of these.
    """
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return now - parse_duration(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _print_event(event: AuditEvent) -> None:
    """In lines instead of columns, so that ids and ARNs stay whole: they are looked for elsewhere."""
    details = ", ".join(f"{name} {value}" for name, value in event.details.items() if value not in (None, ""))
    told = f"{event.action}  by {event.actor}"
    heading = f"{event.sequence:>4}  {show_time(event.at)}  {show_foreign(told)}"
    console.print(heading, soft_wrap=True)
    if details:
        console.print(f"      {show_foreign(details)}", style="dim", soft_wrap=True)


@audit_app.command(
    "verify",
    epilog="Example: [bold]byok audit verify acme[/]; against what the customer kept: "
    "[bold]byok audit verify acme --checkpoint june.json --checkpoint july.json[/]",
)
def audit_verify(
    tenant: Annotated[str | None, typer.Argument(metavar="[TENANT]", help="The tenant's name.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="The chains of all tenants.")] = False,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(exists=True, dir_okay=False, help="A signed checkpoint that somebody kept; repeatable."),
    ] = None,
    trust: Annotated[
        list[str] | None,
        typer.Option(
            metavar="BASE64", help="A public key of a master key that is in the ring no more; repeatable."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Verify a tenant's hash chain, or all, from the first event to the last, and by signed checkpoints."""
    if (tenant is None) is not everything:
        raise InvalidInput("name a tenant, or say --all", remedy="byok tenant list shows the tenants")
    if everything and checkpoint:
        raise InvalidInput("checkpoints are of one tenant", remedy="name it in place of --all")
    trusted = [decode_public_key(text) for text in trust or ()]
    with open_runtime() as runtime:
        services = runtime.services
        if tenant is None:
            _verify_all(services, trusted, as_json=as_json)
            return
        found = services.auditor.chain(tenant)
        signers = [*trusted, *runtime.master_keys.signing_keys(PURPOSE).values()]
        kept = [_read_kept(file, found, signers) for file in checkpoint or ()]
        with progress_bar(tenant, found.length) as on_page:
            verified = services.auditor.verify(found, on_page, kept=kept, trusted=trusted)
    if as_json:
        print_json(
            {
                "tenant": tenant,
                "events": verified.last.sequence,
                "checkpoints": verified.checkpoints,
                "unknown_signers": verified.unknown_signers,
                "kept": len(kept),
                "intact": True,
            }
        )
        return
    agrees = f" and agrees with {', '.join(one.name for one in kept)}" if kept else ""
    console.print(
        f"{counted(verified.last.sequence, verified.checkpoints)}, [green]the chain is intact[/]{agrees}",
        soft_wrap=True,
    )
    _warn_of_unknown(verified.unknown_signers)


def _read_kept(file: Path, found: AuditChain, trusted: Collection[bytes]) -> KeptCheckpoint:
    kept = KeptCheckpoint(file.name, read_checkpoint(read_report(file.read_bytes()), trusted))
    if kept.checkpoint.tenant_id != found.tenant_id:
        raise InvalidInput(
            f"{file} is of another tenant, {kept.checkpoint.tenant_id}",
            remedy="byok tenant show TENANT --json shows a tenant's id",
        )
    return kept


def counted(events: int, checkpoints: int) -> str:
    """How much a log holds, in words."""
    told = f"{events} events"
    return f"{told}, {checkpoints} checkpoint{'s' if checkpoints > 1 else ''}" if checkpoints else told


def _warn_of_unknown(count: int) -> None:
    if count:
        console.print(
            f"of the checkpoints, {count} by keys that left the ring: --trust PUBLIC-KEY, if you kept it",
            style="yellow",
        )


def _verify_all(services: "Services", trusted: Collection[bytes], *, as_json: bool) -> None:
    """Go on behind a broken chain: which ones are broken is what one wants to know.

    Raises:
        AuditChainBroken: naming the first of them.
    """
    tenants = events = checkpoints = unknown = broken = 0
    shown: list[str] = []
    with progress_bar("all tenants", None) as on_page:
        for chain in services.auditor.chains():
            tenants += 1
            try:
                verified = services.auditor.verify(chain, on_page, trusted=trusted)
            except AuditChainBroken as error:
                broken += 1
                shown += [f"{chain.tenant}: {error.message}"] if broken <= _SHOWN else []
                continue
            events += verified.last.sequence
            checkpoints += verified.checkpoints
            unknown += verified.unknown_signers
    if broken:
        raise AuditChainBroken(f"{broken} of {tenants} chains are broken: {'; '.join(shown)}")
    if as_json:
        print_json(
            {
                "tenants": tenants,
                "events": events,
                "checkpoints": checkpoints,
                "unknown_signers": unknown,
                "intact": True,
            }
        )
        return
    console.print(f"{tenants} tenants, {counted(events, checkpoints)}, [green]all chains are intact[/]")
    _warn_of_unknown(unknown)


@contextmanager
def progress_bar(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on standard error that is told how many more events were read."""
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
