"""What a customer adds to its policies for a move, and what it takes away after the commit. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from byok.core.arns import RoleArn
from byok.core.findings import Cause, Finding
from byok.core.model import Connection
from byok.core.moves import KmsKeyMove
from byok.core.policies import (
    CROSSING_ACTION,
    UNNEEDED_ACTIONS,
    migration_source_statement,
    migration_target_statement,
)


@dataclass(frozen=True, slots=True)
class Addition:
    """A statement, and the policy that it belongs to."""

    place: str
    statement: dict[str, Any]


def additions(move: KmsKeyMove, vendor_role: RoleArn | None) -> Sequence[Addition]:
    """What a move needs beside what byok always needs of both connections.

    ``vendor_role`` is whom statements in a key policy let in; None leaves a word in its place.
    """
    source, target = move.source, move.target
    old = migration_source_statement(str(source.kms_key_arn), move.tenant_id)
    new = migration_target_statement(
        str(target.kms_key_arn), move.tenant_id, is_crossing=move.is_crossing
    )  # fmt: skip
    needed = [(target, new)] if move.is_crossing else [(source, old), (target, new)]
    return [_placed(connection, statement, vendor_role) for connection, statement in needed]


def _placed(connection: Connection, statement: dict[str, Any], vendor_role: RoleArn | None) -> Addition:
    if connection.role_arn is not None:
        return Addition(f"the role {connection.role_arn}", statement)
    account = "VENDOR-ACCOUNT" if vendor_role is None else vendor_role.account
    partition = connection.kms_key_arn.partition
    only_worker = {"ArnEquals": {"aws:PrincipalArn": str(vendor_role or "VENDOR-ROLE-ARN")}}
    in_key_policy = {
        **statement,
        "Principal": {"AWS": f"arn:{partition}:iam::{account}:root"},
        "Resource": "*",
        "Condition": only_worker | statement["Condition"],
    }
    return Addition(f"the policy of the KMS key {connection.kms_key_arn}", in_key_policy)


def removals(move: KmsKeyMove) -> Sequence[str]:
    """What the customer may take away once the move is committed, but for the old KMS key itself."""
    source, target = move.source, move.target
    errand = f"from {_place(target)}: the statement ByokMigrationTarget"
    if source.role_arn is None:
        statements = "ByokUseWithContext and ByokLook" + ("" if move.is_crossing else ", ByokMigrationSource")
        return [errand, f"from {_place(source)}: the statements {statements}"]
    if source.role_arn != target.role_arn:
        return [errand, f"the role {source.role_arn}"]
    resource = f"{source.kms_key_arn} among the resources of ByokUseWithContext and ByokLook"
    old = f"from {_place(source)}: {resource}"
    if move.is_crossing:
        return [errand, old]
    return [errand, f"from {_place(source)}: the statement ByokMigrationSource", old]


def _place(connection: Connection) -> str:
    if connection.role_arn is None:
        return f"the policy of the KMS key {connection.kms_key_arn}"
    return f"the policy of the role {connection.role_arn}"


def is_of_the_errand(finding: Finding, move: KmsKeyMove) -> bool:
    """Whether a finding about the target says no more than that it may do what the move itself needs."""
    others = [action for action in UNNEEDED_ACTIONS if action != CROSSING_ACTION]
    return (
        move.is_crossing
        and finding.cause is Cause.TOO_MANY_RIGHTS
        and not any(action in finding.explanation for action in others)
    )
