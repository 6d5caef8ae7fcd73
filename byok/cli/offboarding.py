"""``byok tenant offboard`` and ``certificate``: how a tenant leaves, and what proves it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from byok.cli.certificate_view import access_page, certificate_page
from byok.cli.output import (
    AsJson,
    TenantName,
    actor,
    console,
    error_console,
    parse_duration,
    print_json,
    show_state,
    show_time,
    write_json,
)
from byok.cli.services import open_services
from byok.cli.stops import Patience, show_stop, stop_json, stop_progress
from byok.core.offboarding import DEFAULT_RETENTION, Offboarding, Signed
from byok.errors import InvalidInput, NotReady, ValidationFailed

if TYPE_CHECKING:
    from byok.services.offboarding import Departure
    from byok.wiring import Services

Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        metavar="FILE",
        help="Write the signed JSON there; the readable page, if FILE ends in .md.",
        dir_okay=False,
    ),
]
_COLUMNS = (TextColumn("keys shredded"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())


def offboard(
    tenant: TenantName,
    reason: Annotated[
        str | None, typer.Option("--reason", metavar="TEXT", help="Why it leaves; the certificate shows it.")
    ] = None,
    retention_days: Annotated[
        int,
        typer.Option(
            "--retention-days", metavar="N", help="Days for which its wrapped keys are kept: 30, if not said."
        ),
    ] = DEFAULT_RETENTION.days,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Take it back: prove its access, and let it go on.")
    ] = False,
    finish: Annotated[
        bool, typer.Option("--finish", help="Its day has come: destroy now, not at the next sweep.")
    ] = False,
    check_access: Annotated[
        bool,
        typer.Option("--check-access", help="It has left: try whether it has shut us out, and sign that."),
    ] = False,
    output: Output = None,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    wait: Patience = "15s",
    as_json: AsJson = False,
) -> None:
    """Let a tenant leave: stop it now, destroy its wrapped keys after the retention, certify that.

    Until then --cancel takes it back. Nothing is destroyed before the longest lease has ended, whatever the
    retention. The sweeper destroys; --finish does not wait for it. --output goes with --finish and
    --check-access.
    """
    if sum((cancel, finish, check_access, reason is not None)) != 1:
        raise InvalidInput(
            "say why it leaves, or what to do with one that does",
            remedy="one of --reason TEXT, --cancel, --finish, --check-access",
        )
    if output is not None and not (finish or check_access):
        raise InvalidInput(
            "there is nothing to write yet", remedy="--output goes with --finish or --check-access"
        )
    patience = parse_duration(wait)  # before anything is stopped: the exit code says what happened
    with open_services() as services:
        if cancel:
            _cancel(services, tenant, as_json=as_json)
        elif finish:
            _finish(services, tenant, output, as_json=as_json)
        elif check_access:
            _check_access(services, tenant, output, as_json=as_json)
        else:
            assert reason is not None
            if retention_days == 0 and not yes:
                _confirm(tenant)
            _begin(services, tenant, reason, timedelta(days=retention_days), patience, as_json=as_json)


def certificate(
    tenant: TenantName,
    access: Annotated[
        bool, typer.Option("--access", help="The latest statement of --check-access instead.")
    ] = False,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Print the shred certificate of a tenant that has left, as it was signed.

    What it says for machines (--json) is what byok report verify checks; the page is made from it.
    """
    with open_services() as services:
        offboarding = services.offboardings.show(tenant).offboarding
    document = offboarding.access_statement if access else offboarding.certificate
    if document is None:
        raise NotReady(
            f"there is no such document of tenant {tenant!r} yet", remedy=_next_step(tenant, offboarding)
        )
    _hand_over(document, access_page if access else certificate_page, output, as_json=as_json)


def _begin(
    services: "Services",
    tenant: str,
    reason: str,
    retention: timedelta,
    patience: timedelta,
    *,
    as_json: bool,
) -> None:
    departure = services.offboardings.begin(tenant, reason, retention=retention, actor=actor())
    stop = departure.stop
    if stop is not None:
        with stop_progress() as seen:
            stop = services.offboardings.wait_for(stop, patience, seen)
    if as_json:
        print_json(
            {
                "tenant": tenant,
                "state": departure.tenant.state,
                "offboarding": offboarding_json(departure),
                "stop": stop and stop_json(stop),
            }
        )
        return
    console.print(f"tenant [bold]{tenant}[/] leaves; it is {show_state(departure.tenant.state)}")
    if stop is not None:
        console.print(show_stop(stop), soft_wrap=True)
    console.print(_next_step(tenant, departure.offboarding), soft_wrap=True)


def _cancel(services: "Services", tenant: str, *, as_json: bool) -> None:
    with console.status("asking AWS …"):
        found = services.offboardings.cancel(tenant, actor=actor())
    if as_json:
        print_json({"tenant": tenant, "state": found.state})
        return
    console.print(f"tenant [bold]{tenant}[/] stays: it is {show_state(found.state)}, its access was proven")


def _finish(services: "Services", tenant: str, output: Path | None, *, as_json: bool) -> None:
    with _bar() as seen:
        document = services.offboardings.finish(tenant, actor=actor(), progress=seen)
    report = document["report"]
    if as_json or output is not None:
        _hand_over(document, certificate_page, output, as_json=as_json)
    else:
        count = sum(len(key["versions"]) for key in report["keys"])
        console.print(f"tenant [bold]{tenant}[/] has left: no wrapped key is left of its versions ({count})")
        console.print(f"next: byok tenant certificate {tenant} --output FILE", style="dim")
    if failed := [proof["name"] for proof in report["proofs"] if not proof["passed"]]:
        raise ValidationFailed(
            f"the certificate of tenant {tenant!r} says that a check failed: {', '.join(failed)}",
            remedy=f"byok tenant certificate {tenant} shows what was seen",
        )


def _check_access(services: "Services", tenant: str, output: Path | None, *, as_json: bool) -> None:
    with console.status("asking AWS …"):
        document = services.offboardings.check_access(tenant, actor=actor())
    _hand_over(document, access_page, output, as_json=as_json)
    if not document["report"]["shut_out"]:
        raise ValidationFailed(
            f"the customer of tenant {tenant!r} still lets us in",
            remedy=f"byok tenant certificate {tenant} lists what it is to remove; AWS needs a minute for it",
        )


def _hand_over(
    document: Signed, page: Callable[[Mapping[str, Any]], str], output: Path | None, *, as_json: bool
) -> None:
    """Print a signed document, or write it to a file."""
    if output is None:
        if as_json:
            print_json(document)
        else:
            typer.echo(page(document), nl=False)
        return
    if output.suffix == ".md":
        try:
            output.write_text(page(document))
        except OSError as error:
            raise InvalidInput(f"{output} can't be written: {error.strerror}") from error
    else:
        write_json(output, document)
    if as_json:
        print_json({"kind": document["kind"], "file": str(output)})
    else:
        console.print(f"{document['kind']}: {output}", soft_wrap=True)


def _confirm(tenant: str) -> None:
    question = (
        f"Without retention {tenant} can be taken back only until its longest lease has ended. Then what is"
        " encrypted under its keys is lost. Type the tenant's name to go on"
    )
    if typer.prompt(question, err=True) != tenant:
        raise InvalidInput("this is not the tenant's name: nothing was done")


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    with Progress(*_COLUMNS, console=error_console, transient=True) as progress:
        bar = progress.add_task("", total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)


def _next_step(tenant: str, offboarding: Offboarding) -> str:
    """Where a tenant's leaving stands, and what can be done, in a line."""
    if offboarding.certificate is not None:
        return f"it has left; byok tenant offboard {tenant} --check-access"
    if offboarding.shredding_at is None:
        return (
            f"its wrapped keys are destroyed after {show_time(offboarding.shred_after)}; "
            f"until then: byok tenant offboard {tenant} --cancel"
        )
    return f"its wrapped keys are being destroyed; byok tenant offboard {tenant} --finish"


def show_departure(departure: "Departure") -> str:
    """How far a tenant is on its way out, in a line."""
    return f"{departure.offboarding.state}: {_next_step(departure.tenant.name, departure.offboarding)}"


def offboarding_json(departure: "Departure") -> dict[str, Any]:
    """A tenant's way out for machines."""
    one = departure.offboarding
    return {
        "state": one.state,
        "reason": one.reason,
        "requested_by": one.requested_by,
        "requested_at": one.requested_at,
        "shred_after": one.shred_after,
        "shredding_at": one.shredding_at,
        "shredded_at": one.shredded_at,
        "certified": one.certificate is not None,
    }
