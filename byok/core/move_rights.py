"""What a customer's policies must say during a move, and what it takes away after the commit. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from byok.core.arns import RoleArn
from byok.core.findings import Cause, Finding
from byok.core.model import Connection
from byok.core.moves import KmsKeyMove, Sharing
from byok.core.policies import (
    CROSSING_ACTION,
    UNNEEDED_ACTIONS,
    for_vendor,
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
    in_new = [*key_policy_statements(vendor, tenant_id), for_vendor(new, vendor)]
    found = [Provision(_place(target), in_new, is_whole=False)]
    if not move.is_crossing:
        found.append(Provision(_place(source), [for_vendor(old, vendor)], is_whole=False))
    return found


def command(move: KmsKeyMove) -> str:
    """The command that asks for this move, and no other."""
    role = move.target.role_arn
    how = "--mode key-policy" if role is None else f"--role-arn {role}"
    return f"byok tenant migrate {move.source.tenant_name} --kms-key-arn {move.target.kms_key_arn} {how}"


def removals(move: KmsKeyMove, sharing: Sharing) -> Sequence[str]:
    """What the customer may take away once the move is committed, but for the old KMS key itself.

    ``sharing`` is who has the old connection, too: what it needs stays.
    """
    source, target = move.source, move.target
    errand = f"from {_place(target)}: the statement ByokMigrationTarget"
    if not move.is_crossing:
        own = f"from {_place(source)}: the statement ByokMigrationSource"
        return [errand, own, _old_access(move, sharing)]
    return [errand, _old_access(move, sharing)]


def _old_access(move: KmsKeyMove, sharing: Sharing) -> str:
    source = move.source
    of_this_tenant = f"that names tenant {source.tenant_id}"
    if source.role_arn is None:
        if sharing.kms_key:
            return f"from {_place(source)}: the statement ByokUseWithContext {of_this_tenant}, no other"
        return f"from {_place(source)}: the statements ByokUseWithContext and ByokLook"
    if source.role_arn != move.target.role_arn:
        if sharing.role:
            names = ", ".join(sharing.role)
            return (
                f"from {_place(source)}, which stays for {names}: the statement ByokUseWithContext"
                f" {of_this_tenant}"
            )
        return f"the role {source.role_arn}"
    if sharing.kms_key:
        place = f"the resources of the statement ByokUseWithContext {of_this_tenant}, no other"
    else:
        place = "the resources of ByokUseWithContext and ByokLook"
    return f"from {_place(source)}: {source.kms_key_arn} among {place}"


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
