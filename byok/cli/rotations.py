"""``byok rotation``: list, show, retry."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding

from byok.cli.output import AsJson, actor, console, parse_id, print_json, show_state, show_time, table
from byok.cli.services import open_services
from byok.core.model import OpenWork, RequestOutcome, Rotation

app = typer.Typer(help="Rotations: what was asked for, and how it went.", no_args_is_help=True)

RotationId = Annotated[str, typer.Argument(metavar="ROTATION", help="The rotation's id.")]

_LISTED = "byok rotation list shows them"


@app.command("list", epilog="Example: [bold]byok rotation list --failed[/]")
def list_(
    failed: Annotated[
        bool, typer.Option("--failed", help="Only those that failed, and whose key did not rotate since.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the latest rotations of all keys."""
    with open_services() as services:
        works = services.observer.rotations(failed=failed, limit=limit)
    if as_json:
        print_json([_work_json(work) for work in works])
        return
    title = "failed rotations" if failed else "rotations"
    console.print(_listed(title, works))


@app.command(epilog="Example: [bold]byok rotation show 01a2…[/]")
def show(rotation: RotationId, as_json: AsJson = False) -> None:
    """Show one rotation."""
    with open_services() as services:
        work = services.observer.rotation(parse_id(rotation, "rotation", _LISTED))
    if as_json:
        print_json(_work_json(work))
        return
    told = [(name, "–" if value is None else str(value)) for name, value in _work_json(work).items()]
    console.print(table(f"rotation {work.rotation.id}", ("what", "how it stands"), told))


@app.command(epilog="Example: [bold]byok rotation retry 01a2… [/]")
def retry(rotation: RotationId, as_json: AsJson = False) -> None:
    """Ask again for what a failed rotation was to do. Asked twice, it is done once."""
    with open_services() as services:
        requested = services.requests.retry(parse_id(rotation, "rotation", _LISTED), requested_by=actor())
    if as_json:
        print_json(rotation_json(requested.rotation) | {"outcome": requested.outcome})
        return
    print_requested(requested.rotation, requested.outcome)


def print_requested(rotation: Rotation, outcome: RequestOutcome) -> None:
    """One line on what became of a request."""
    note = {
        RequestOutcome.NEW: "",
        RequestOutcome.JOINED: "  (joined: a rotation that was open already serves this request, too)",
        RequestOutcome.REPEATED: "  (repeated: the same idempotency key asked before)",
    }[outcome]
    version = f", version {rotation.version_number}" if rotation.version_number else ""
    console.print(f"rotation {rotation.id}: {show_state(rotation.state)}{version}{note}")


def rotation_json(rotation: Rotation) -> dict[str, Any]:
    """A rotation for machines."""
    return {
        "rotation": rotation.id,
        "state": rotation.state,
        "reason": rotation.reason,
        "requested_by": rotation.requested_by,
        "requested_at": rotation.requested_at,
        "version": rotation.version_number,
        "attempts": rotation.attempts,
        "failure": rotation.failure,
        "finished_at": rotation.finished_at,
    }


def _work_json(work: OpenWork) -> dict[str, Any]:
    return {"tenant": work.tenant, "key": work.key} | rotation_json(work.rotation)


def _listed(title: str, works: Sequence[OpenWork]) -> RenderableType:
    """Lines instead of columns, so that an id stays whole at 80 of them."""
    lines: list[RenderableType] = [f"[bold]{title}[/]"]
    for work in works:
        rotation = work.rotation
        tries = "1 try" if rotation.tries == 1 else f"{rotation.tries} tries"
        lines += [
            f"{rotation.id}  {show_state(rotation.state)}  {work.tenant}/{work.key}",
            Padding(f"[dim]{rotation.reason}, {show_time(rotation.requested_at)}, {tries}[/]", (0, 0, 0, 2)),
        ]
        if rotation.failure is not None:
            lines.append(Padding(escape(rotation.failure), (0, 0, 0, 2)))
    return Group(*lines, *(() if works else ("none",)))
