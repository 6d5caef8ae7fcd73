"""``byok tenant migrate``: a customer moves to another KMS key."""

from typing import TYPE_CHECKING, Annotated

import typer

from byok.cli.connections import KmsKeyOption, RoleOption
from byok.cli.migration_view import (
    print_end,
    print_provisions,
    print_status,
    status_json,
    wait_for,
)
from byok.cli.output import AsJson, TenantName, actor, console, print_json
from byok.cli.services import open_runtime
from byok.core.arns import RoleArn
from byok.core.moves import MoveState
from byok.core.provisioning import AccessMode
from byok.errors import InvalidInput, LostRace

if TYPE_CHECKING:
    from byok.services.moves import MoveStatus
    from byok.wiring import Runtime


def migrate(
    tenant: TenantName,
    kms_key_arn: KmsKeyOption = None,
    role_arn: RoleOption = None,
    mode: Annotated[
        AccessMode | None,
        typer.Option("--mode", help="A role, or the new key's own policy; left out: as before."),
    ] = None,
    shared: Annotated[
        bool, typer.Option("--shared", help="Another tenant may have the new KMS key or role, too.")
    ] = False,
    policy: Annotated[
        bool, typer.Option("--policy", help="Change nothing; print the statements that the move needs.")
    ] = False,
    hold: Annotated[bool, typer.Option("--hold", help="Stop before the commit.")] = False,
    commit: Annotated[bool, typer.Option("--commit", help="Commit the move that is held.")] = False,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Give up the move that is not committed.")
    ] = False,
    status: Annotated[
        bool, typer.Option("--status", help="Show the latest move, and whether the old KMS key may go.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Move a customer to another KMS key, and perhaps another role, account, region or mode.

    Every version is wrapped under the new KMS key, too; then all change over at once, and each key is
    rotated. Services go on all the while. Until the commit --rollback undoes it. The workers do it: this
    command shows how far they are, and may be interrupted and called again.
    """
    asked = [commit, rollback, status, kms_key_arn is not None]
    if sum(asked) != 1:
        raise InvalidInput(
            "it is not clear what to do",
            remedy="say one of --kms-key-arn ARN, --commit, --rollback and --status",
        )
    with open_runtime() as runtime:
        moves = runtime.services.moves
        if kms_key_arn is not None:
            if policy:
                vendor = runtime.settings.vendor_role_arn
                planned = moves.plan(tenant, kms_key_arn=kms_key_arn, role_arn=role_arn, mode=mode)
                print_provisions(planned, None if vendor is None else RoleArn.parse(vendor), as_json=as_json)
                return
            with console.status("asking AWS …"):
                moves.request(
                    tenant, kms_key_arn=kms_key_arn, role_arn=role_arn, mode=mode, shared=shared, hold=hold,
                    actor=actor(),
                )  # fmt: skip
        elif commit:
            moves.release(tenant, actor=actor())
        elif rollback:
            moves.roll_back(tenant, actor=actor())
        found = _look(runtime, tenant, wait=not (rollback or status))
    was_given_up = found.move.state is MoveState.ROLLED_BACK
    if as_json:
        print_json(status_json(found))
    elif status or was_given_up:
        print_status(found)
    else:
        print_end(found)
    if was_given_up and not (rollback or status):
        raise LostRace(
            f"somebody rolled the move of tenant {tenant!r} back meanwhile", remedy="ask who, or again"
        )


def _look(runtime: "Runtime", tenant: str, *, wait: bool) -> "MoveStatus":
    moves = runtime.services.moves
    if wait:
        return wait_for(lambda: moves.status(tenant))
    return moves.status(tenant)
