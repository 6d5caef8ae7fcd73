"""``byok master-key``: make one, rotate them, see how they stand, check a backup of the ring."""

import secrets
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn

from byok.cli.output import AsJson, actor, console, error_console, print_json, show_state, show_time, table
from byok.cli.services import open_runtime, open_services
from byok.core.arns import KmsKeyArn
from byok.core.resealing import Reseal, ResealState
from byok.errors import InvalidInput, LostRace, SealBroken

if TYPE_CHECKING:
    from byok.services.ring import RingReview, Sealed
    from byok.services.ring_status import RingStanding, Standing
    from byok.wiring import Services

app = typer.Typer(help="The vendor's own master keys.", no_args_is_help=True)

_LOOK_SECONDS = 0.5
_COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    TextColumn("{task.completed:.0f} of {task.total:.0f} records"),
    TextColumn("{task.fields[note]}"),
)


@app.command(
    epilog="Example: [bold]export BYOK_MASTER_KEYS=$(byok master-key generate)[/]; wrapped by a KMS key of"
    " the vendor's: [bold]byok master-key generate --kms-key-arn arn:aws:kms:eu-west-1:111122223333:key/…[/]"
)
def generate(
    key_id: Annotated[str | None, typer.Option("--id", metavar="ID", help="Name of the key.")] = None,
    kms_key_arn: Annotated[
        str | None,
        typer.Option(
            "--kms-key-arn", metavar="ARN", help="The vendor's own KMS key that is to wrap it; none: plain."
        ),
    ] = None,
) -> None:
    """Print a new master key as an entry of BYOK_MASTER_KEYS. Keep it where you keep secrets.

    With --kms-key-arn its plaintext never leaves KMS, and the entry is of no use without that KMS key.
    """
    from byok.crypto.ring_entries import format_entry, format_wrapped_entry, is_key_id

    name = key_id or f"mk-{secrets.token_hex(4)}"
    if not is_key_id(name):
        raise InvalidInput(
            f"{name!r} names no master key", remedy="use lower case letters, digits and hyphens"
        )
    if kms_key_arn is None:
        typer.echo(format_entry(name, secrets.token_bytes(32)))
        return
    from byok.kms.master_keys import VendorKms
    from byok.wiring.kms_settings import load_kms_settings

    arn = KmsKeyArn.parse(kms_key_arn)
    wrapped_key = VendorKms(load_kms_settings().kms_endpoint_url).generate(name, arn)
    typer.echo(format_wrapped_entry(name, arn, wrapped_key))


@app.command(epilog="Example: [bold]byok master-key rotate[/], after [bold]byok master-key status[/]")
def rotate(
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for the end, with a progress bar.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Have the workers seal all records under the ring's first key. Both keys open meanwhile.

    Refused while a living process lacks that key. Interrupt it as you like: the workers go on.
    """
    with open_services() as services:
        asked = services.reseals.start(requested_by=actor())
        if not asked.workers:
            error_console.print(
                f"no living worker seals under {asked.reseal.master_key_id} yet: it begins when one does",
                soft_wrap=True,
            )
        reseal = _wait_for(services, asked.reseal) if wait else asked.reseal
    if as_json:
        print_json(_reseal_json(reseal) | {"new": asked.is_new, "workers": asked.workers})
    else:
        _print_reseal(reseal)
    _raise_failure(reseal)


def _wait_for(services: "Services", reseal: Reseal) -> Reseal:
    with Progress(*_COLUMNS, console=error_console, transient=True) as progress:
        bar = progress.add_task("", total=1, note="")
        while reseal.is_running:
            done = reseal.tally.resealed
            progress.update(
                bar,
                description=f"under {reseal.master_key_id}, pass {reseal.pass_number}",
                completed=done,
                total=max(reseal.total, done, 1),
                note=_show_wait(reseal),
            )
            time.sleep(_LOOK_SECONDS)
            reseal = services.reseals.get(reseal.id)
    return reseal


def _show_wait(reseal: Reseal) -> str:
    reason = reseal.failure or reseal.waits_for
    return f"waits: {reason}" if reason else ""


def _raise_failure(reseal: Reseal) -> None:
    if reseal.state is ResealState.FAILED:
        raise SealBroken(
            f"reseal {reseal.id}: {reseal.failure}",
            remedy="byok master-key status names them; docs/runbook.md, seal-broken",
        )
    if reseal.state is ResealState.SUPERSEDED:
        raise LostRace(f"reseal {reseal.id} was superseded: {reseal.failure}")


@app.command(epilog="Example: [bold]byok master-key status --json[/]")
def status(as_json: AsJson = False) -> None:
    """Show what each master key sealed, which processes have it, and whether it may be removed now."""
    with open_services() as services:
        standing = services.ring_status.read()
    if as_json:
        print_json(_standing_json(standing))
        return
    console.print(
        table(
            f"master keys: {standing.first} seals; living processes: {standing.processes}",
            ("master key", "records", "may it seal?", "may it be removed?"),
            [_row(one, standing) for one in standing.keys],
        )
    )
    if standing.reseal is not None:
        _print_reseal(standing.reseal)


def _row(one: "Standing", standing: "RingStanding") -> tuple[str, ...]:
    sealed = one.sealed
    if not sealed.is_in_ring:
        may_seal = "[red]not in this ring[/]"
    elif one.lacking:
        may_seal = "[red]no[/]: not in the ring of\n" + "\n".join(one.lacking)
    else:
        may_seal = "[green]it does[/]" if sealed.master_key_id == standing.first else "[green]yes[/]"
    tried = f"\n{sealed.opened} of {sealed.tried} tried open" if sealed.tried else ""
    removable = "[green]yes[/]" if one.keep is None else f"no: {one.keep}"
    return sealed.master_key_id, f"{sealed.records}{tried}", may_seal, removable


def _print_reseal(reseal: Reseal) -> None:
    console.print(
        f"reseal {reseal.id} under {reseal.master_key_id}: {show_state(reseal.state)},"
        f" {reseal.tally.resealed} records; {show_time(reseal.requested_at)}, {reseal.requested_by}"
    )
    if reseal.is_running and (note := _show_wait(reseal)):
        console.print(note)
    for one in reseal.unreadable_records:
        console.print(f"[red]does not open[/] {one.kind} {one.place}: {one.why}")


@app.command(
    epilog="Example: [bold]gpg -d ring.gpg | byok master-key check - --all[/], against a restored database"
)
def check(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The ring to check; - reads standard input.")],
    every: Annotated[
        bool, typer.Option("--all", help="Try every record; left out: a few of each master key.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check a ring, such as a backup's, against the records, without installing it.

    Exit code 7: some record would not open.
    """
    from byok.services.ring import RingReview
    from byok.wiring.master_keys import parse_ring

    text = _read(file)
    with open_runtime() as runtime:
        review = RingReview(runtime.store, parse_ring(text, runtime.settings))
        reviewed = _try_all(review) if every else review.review()
    if as_json:
        print_json([_sealed_json(one) for one in reviewed])
    else:
        columns = ("master key", "in the ring", "records", "open of those tried")
        console.print(table(f"records and {file}", columns, [_show_sealed(one) for one in reviewed]))
    _raise_unopened(reviewed)


def _try_all(review: "RingReview") -> "Sequence[Sealed]":
    columns = (TextColumn("{task.completed:.0f} records"),)
    with Progress(*columns, console=error_console, transient=True) as progress:
        bar = progress.add_task("", total=None)
        return review.try_all(lambda count: progress.advance(bar, count))


def _show_sealed(one: "Sealed") -> tuple[str, ...]:
    is_in_ring = "yes" if one.is_in_ring else "[red]no[/]"
    return one.master_key_id, is_in_ring, str(one.records), f"{one.opened} of {one.tried}"


def _read(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text()
    except OSError as error:
        raise InvalidInput(f"{file} can't be read: {error.strerror}") from error
    except UnicodeDecodeError:
        # from None: the cause holds what was read, which may be a key
        raise InvalidInput(f"{file} is no text", remedy="decrypt the backup first: gpg -d FILE |") from None


def _raise_unopened(reviewed: "Sequence[Sealed]") -> None:
    shut = [one.master_key_id for one in reviewed if not one.is_in_ring or one.opened < one.tried]
    if shut:
        raise SealBroken(
            f"with this ring not all records under {', '.join(shut)} open",
            remedy="it is not the ring that sealed them, or not whole: docs/master-keys.md#loss",
        )


def _sealed_json(one: "Sealed") -> dict[str, Any]:
    return {
        "master_key": one.master_key_id,
        "in_ring": one.is_in_ring,
        "records": one.records,
        "tried": one.tried,
        "opened": one.opened,
    }


def _standing_json(standing: "RingStanding") -> dict[str, Any]:
    return {
        "first": standing.first,
        "processes": standing.processes,
        "keys": [
            _sealed_json(one.sealed)
            | {
                "may_seal": one.may_seal,
                "lacking": list(one.lacking),
                "sealing": list(one.sealing),
                "may_be_removed": one.keep is None,
                "keep": one.keep,
            }
            for one in standing.keys
        ],
        "reseal": None if standing.reseal is None else _reseal_json(standing.reseal),
    }


def _reseal_json(reseal: Reseal) -> dict[str, Any]:
    return {
        "reseal": reseal.id,
        "master_key": reseal.master_key_id,
        "state": reseal.state,
        "total": reseal.total,
        "resealed": reseal.tally.resealed,
        "conflicts": reseal.tally.conflicts,
        "unreadable": reseal.this_pass.unreadable,
        "unreadable_records": [
            {"kind": one.kind, "place": str(one.place), "why": one.why} for one in reseal.unreadable_records
        ],
        "passes": reseal.pass_number,
        "waits_for": reseal.waits_for,
        "failure": reseal.failure,
        "requested_by": reseal.requested_by,
        "requested_at": reseal.requested_at,
        "finished_at": reseal.finished_at,
    }
