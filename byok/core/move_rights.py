"""What a customer's policies must say during a move, and what it takes away after the commit. Pure."""

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
    key_policy_statements,
    migration_source_statement,
    migration_target_statement,
    role_permissions,
)

_SOME_ROLE = RoleArn("aws", "VENDOR-ACCOUNT", "VENDOR-ROLE")  # to be filled in


@dataclass(frozen=True, slots=True)
class Provision:
    """Statements, and the policy that they belong to. ``is_whole``: they are all that is to stand there."""

    place: str
    statements: list[dict[str, Any]]
    is_whole: bool

    @property
    def of_the_errand(self) -> list[str]:
        """The names of those that the move alone needs."""
        return [one["Sid"] for one in self.statements if one["Sid"].startswith("ByokMigration")]


def provisions(move: KmsKeyMove, vendor_role: RoleArn | None) -> Sequence[Provision]:
    """What the customer's policies must say until the commit, for both KMS keys: what byok always needs, and
    what the move needs beside.

    ``vendor_role`` is whom statements in a key policy let in; None leaves a word in its place.
    """
    source, target, tenant_id = move.source, move.target, move.tenant_id
    old_key, new_key = str(source.kms_key_arn), str(target.kms_key_arn)
    old = migration_source_statement(old_key, tenant_id)
    new = migration_target_statement(new_key, tenant_id, is_crossing=move.is_crossing)
    errand = [new] if move.is_crossing else [old, new]
    if target.role_arn is not None:
        # A role that is kept must not lose the old KMS key before the commit.
        keys = [old_key, new_key] if target.role_arn == source.role_arn else new_key
        always = role_permissions(keys, tenant_id)["Statement"]
        return [Provision(_place(target), [*always, *errand], is_whole=True)]
    vendor = vendor_role or _SOME_ROLE
    in_new = [*key_policy_statements(vendor, tenant_id), _in_key_policy(new, vendor)]
    found = [Provision(_place(target), in_new, is_whole=False)]
    if not move.is_crossing:
        found.append(Provision(_place(source), [_in_key_policy(old, vendor)], is_whole=False))
    return found


def _in_key_policy(statement: dict[str, Any], vendor_role: RoleArn) -> dict[str, Any]:
    principal = {"AWS": f"arn:{vendor_role.partition}:iam::{vendor_role.account}:root"}
    only_worker = {"ArnEquals": {"aws:PrincipalArn": str(vendor_role)}}
    condition = only_worker | statement["Condition"]
    return {**statement, "Principal": principal, "Resource": "*", "Condition": condition}


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
    # Who added a policy for the move must not just delete it: the new KMS key may stand there alone.
    at_once = (
        f"or all of it at once: what byok tenant policy {source.tenant_name} --kms-key-arn"
        f" {target.kms_key_arn} prints takes the place of all policies of the role"
    )
    if move.is_crossing:
        return [errand, old, at_once]
    return [errand, f"from {_place(source)}: the statement ByokMigrationSource", old, at_once]


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
