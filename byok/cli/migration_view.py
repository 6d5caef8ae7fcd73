"""Moves to another KMS key as ``byok tenant migrate`` shows them: to people, to machines, and under way."""

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, Progress, TextColumn

from byok.cli.output import console, error_console, print_json, show_state, show_time
from byok.core.arns import RoleArn
from byok.core.model import Connection
from byok.core.move_rights import provisions, removals
from byok.core.moves import KmsKeyMove, MoveProgress, MoveState, Wait, WaitCause
from byok.errors import ByokError, TenantNotActive, ValidationFailed

if TYPE_CHECKING:
    from byok.services.moves import MoveStatus

_LOOK_SECONDS = 0.5
_PROGRESS = (
    TextColumn("{task.description}"),
    BarColumn(),
    TextColumn("{task.completed:.0f} of {task.total:.0f} versions"),
)


def wait_for(look: "Callable[[], MoveStatus]") -> "MoveStatus":
    """Watch a move until it is committed, held or given up.

    Raises:
        ValidationFailed, TenantNotActive: it waits for somebody to do something; it is still open.
    """
    with Progress(*_PROGRESS, console=error_console, transient=True) as progress:
        bar = progress.add_task("", total=1)
        while (found := look()).move.state is MoveState.WRAPPING:
            move, seen = found.move, found.progress
            waits = f", waits: {move.wait.why}" if move.wait else ""
            progress.update(
                bar,
                description=f"wrapping under {move.target.kms_key_arn.key_id}{waits}",
                completed=seen.under_both,
                total=max(seen.versions, 1),
            )
            if move.wait is not None and move.wait.cause is not WaitCause.OUTAGE:
                raise _waits(move.wait)
            time.sleep(_LOOK_SECONDS)
    return found


def _waits(wait: Wait) -> ByokError:
    kind = TenantNotActive if wait.cause is WaitCause.STOP else ValidationFailed
    then = "then it goes on by itself within a minute, or at once with the same command"
    return kind(f"the move waits, and can be rolled back: {wait.why}", remedy=f"{wait.remedy}; {then}")


def print_provisions(move: KmsKeyMove, vendor_role: RoleArn | None, *, as_json: bool) -> None:
    """What the customer's policies must say until the commit."""
    found = provisions(move, vendor_role)
    if as_json:
        print_json(
            [{"place": one.place, "whole": one.is_whole, "statements": one.statements} for one in found]
        )
        return
    for one in found:
        how = "is, until the commit" if one.is_whole else "needs beside what is there, until the commit"
        console.print(f"{one.place} {how}:", style="bold", soft_wrap=True)
        shown = {"Version": "2012-10-17", "Statement": one.statements} if one.is_whole else one.statements
        console.print(json.dumps(shown, indent=2), markup=False, soft_wrap=True)


def print_end(found: "MoveStatus") -> None:
    """What a move came to, and what comes next."""
    move, seen, name = found.move, found.progress, found.move.source.tenant_name
    if move.state is MoveState.HELD:
        console.print(
            f"{seen.under_both} versions of [bold]{name}[/] are under both KMS keys; all use the old one"
        )
        console.print(
            f"next: byok tenant migrate {name} --commit, or byok tenant migrate {name} --rollback",
            style="dim",
        )
        return
    console.print(
        f"tenant [bold]{name}[/] is under {move.target.kms_key_arn}: {seen.under_new} versions",
        soft_wrap=True,
    )
    _print_removals(move, seen)
    console.print(show_old_key(move, seen), soft_wrap=True)
    if seen.keys_to_rotate:
        console.print(
            f"{seen.keys_to_rotate} keys are being rotated: new data is to be under secrets that the old KMS"
            " key never wrapped",
            soft_wrap=True,
        )


def _print_removals(move: KmsKeyMove, seen: MoveProgress) -> None:
    console.print("the customer may remove now:")
    for removal in removals(move, seen.sharing):
        console.print(f"  {removal}", soft_wrap=True)


def print_status(found: "MoveStatus") -> None:
    """A move, a line for each thing: ARNs stay whole."""
    move, seen = found.move, found.progress
    how = (
        "Decrypt and Encrypt: no one principal may use both" if move.is_crossing else "ReEncrypt, within KMS"
    )
    rows = [
        ("state", show_state(move.state)),
        ("from", _show(move.source)),
        ("to", _show(move.target)),
        ("how", how),
        ("requested", f"{show_time(move.requested_at)} by {move.requested_by}"),
        ("versions under the old KMS key alone", str(seen.under_old)),
        ("versions under both", str(seen.under_both)),
        ("versions under the new KMS key alone", str(seen.under_new)),
        ("keys still to be rotated", str(seen.keys_to_rotate)),
        ("committed", show_time(move.committed_at)),
        ("old KMS key", show_old_key(move, seen)),
    ]
    if move.wait is not None:
        rows.append((f"waits ({move.wait.cause})", f"{move.wait.why} → {move.wait.remedy}"))
    console.print(f"move of {move.source.tenant_name}", style="bold")
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        console.print(f"{name:<{width}}  {value}", soft_wrap=True)
    if move.committed_at is not None:
        _print_removals(move, seen)


def show_old_key(move: KmsKeyMove, seen: MoveProgress) -> str:
    """Whether the old KMS key may go, in words."""
    key = move.source.kms_key_arn
    if seen.old_key_may_go:
        return (
            f"the old KMS key may go: no version rests on {key}; a backup of the database, or an export of a"
            " key, from before the commit can't be read without it"
        )
    if seen.sharing.kms_key:
        return f"keep the old KMS key: {', '.join(seen.sharing.kms_key)} use {key}, too"
    return f"keep the old KMS key: the tenant, and {seen.under_old + seen.under_both} versions, rest on {key}"


def _show(connection: Connection) -> str:
    role = connection.role_arn
    return f"{connection.kms_key_arn}, {'key-policy mode' if role is None else role}"


def status_json(found: "MoveStatus") -> dict[str, Any]:
    """A move for machines."""
    move, seen = found.move, found.progress
    wait = move.wait
    return {
        "tenant": move.source.tenant_name,
        "move": move.id,
        "state": move.state,
        "from": _connection_json(move.source),
        "to": _connection_json(move.target),
        "crossing": move.is_crossing,
        "hold": move.hold,
        "requested_by": move.requested_by,
        "requested_at": move.requested_at,
        "versions_under_old": seen.under_old,
        "versions_under_both": seen.under_both,
        "versions_under_new": seen.under_new,
        "keys_to_rotate": seen.keys_to_rotate,
        "old_key_may_go": seen.old_key_may_go,
        "old_key_used_by": list(seen.sharing.kms_key),
        "old_role_used_by": list(seen.sharing.role),
        "waits": wait and {"cause": wait.cause, "why": wait.why, "remedy": wait.remedy},
        "committed_at": move.committed_at,
        "finished_at": move.finished_at,
        "customer_removes": list(removals(move, seen.sharing)) if move.committed_at is not None else [],
    }


def _connection_json(connection: Connection) -> dict[str, str | None]:
    role = connection.role_arn
    return {"kms_key_arn": str(connection.kms_key_arn), "role_arn": None if role is None else str(role)}
