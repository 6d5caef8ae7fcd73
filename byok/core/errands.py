"""What a customer allows beside, for as long as an errand takes. Pure.

In role mode it is an inline policy of its own beside what `byok.core.provisioning` prints, so that taking it
back is one call; in key-policy mode it is statements with names of their own.

A move to another KMS key is none: part of what it needs must stay afterwards (`byok.core.move_rights`).
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from byok.core import policies
from byok.core.arns import KmsKeyArn, RoleArn
from byok.core.key_export import export_associated_data
from byok.core.model import Connection, Key
from byok.core.provisioning import PolicyFormat
from byok.errors import InvalidInput


class ErrandKind(StrEnum):
    """The errands."""

    EXPORT = "export"


@dataclass(frozen=True, slots=True)
class RoleAddition:
    """An inline policy of its own for a customer's role; ``region`` is that of the KMS key."""

    role: RoleArn
    policy_name: str
    policy: policies.PolicyDocument
    region: str

    @property
    def role_name(self) -> str:
        """The role's name as IAM's operations take it: without its path."""
        return self.role.name.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class KeyAddition:
    """Statements for the policy of a KMS key."""

    kms_key_arn: KmsKeyArn
    statements: Sequence[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Errand:
    """All that a customer adds.

    Beside a ``role``, ``key`` is needed only where the policy of the KMS key leaves nothing to the account's
    IAM; in key-policy mode it is all there is.
    """

    kind: ErrandKind
    tenant_name: str
    role: RoleAddition | None
    key: KeyAddition


def export_errand(connection: Connection, key: Key, vendor_role: RoleArn | None) -> Errand:
    """What the export of a key needs.

    ``vendor_role``: who uses the KMS key in key-policy mode; not needed in role mode.

    Raises:
        InvalidInput: it is needed, and not known.
    """
    arn, role = connection.kms_key_arn, connection.role_arn
    bound_to = export_associated_data(connection.tenant_id, key.id).encode()
    statement = policies.export_statement(str(arn), bound_to)
    if role is None:
        if vendor_role is None:
            raise InvalidInput("in key-policy mode the policy names the vendor's role: it is not known")
        added = KeyAddition(arn, [policies.for_vendor(statement, vendor_role)])
        return Errand(ErrandKind.EXPORT, connection.tenant_name, None, added)
    policy = {"Version": policies.POLICY_VERSION, "Statement": [statement]}
    return Errand(
        ErrandKind.EXPORT,
        connection.tenant_name,
        RoleAddition(role, f"byok-{ErrandKind.EXPORT}", policy, arn.region),
        KeyAddition(arn, [policies.for_role(statement, str(role))]),
    )


def render_errand(errand: Errand, form: PolicyFormat) -> str:
    """The document, ending in a newline.

    Raises:
        InvalidInput: neither JSON nor a script.
    """
    if form is PolicyFormat.JSON:
        return json.dumps(errand_documents(errand), indent=2) + "\n"
    if form is PolicyFormat.CLI:
        return _script(errand)
    raise InvalidInput(
        f"what an errand needs for minutes is not printed as {form}",
        remedy="--format json, or cli: a script that adds it, and takes it back",
    )


def errand_documents(errand: Errand) -> Mapping[str, Any]:
    """The policy documents by name."""
    of_key = [_key_json(errand.key)]
    if errand.role is None:
        return {"key_policy_statements": of_key}
    return {
        "role_name": errand.role.role_name,
        "inline_policy_name": errand.role.policy_name,
        "inline_policy": errand.role.policy,
        "key_policy_statements_without_iam": of_key,
    }


def _key_json(addition: KeyAddition) -> dict[str, Any]:
    return {"kms_key_arn": str(addition.kms_key_arn), "statements": list(addition.statements)}


_ARTICLES = {ErrandKind.EXPORT: "an export"}


def _script(errand: Errand) -> str:
    if errand.role is None:
        needs_jq, body = "# It needs jq.\n", _script_for_key(errand.key)
    else:
        needs_jq, body = "", _script_for_role(errand.role, errand.key)
    return f"""\
#!/usr/bin/env bash
# Allows {_ARTICLES[errand.kind]} for tenant {errand.tenant_name}: "add" before it, "remove" after.
{needs_jq}# Read it, then run it with an administrator's credentials of your account.
set -euo pipefail
step="${{1:?usage: $0 add|remove}}"
{body}"""


def _script_for_role(role: RoleAddition, without_iam: KeyAddition) -> str:
    where = f"--region {role.region} --role-name {shlex.quote(role.role_name)}"
    return f"""
case "$step" in
add)
  aws iam put-role-policy {where} --policy-name {role.policy_name} \\
    --policy-document '{json.dumps(role.policy, indent=2)}'
  echo "Only if the policy of the KMS key leaves nothing to the account's IAM, add to it for as long:"
  echo '{json.dumps([_key_json(without_iam)], indent=2)}'
  ;;
remove)
  aws iam delete-role-policy {where} --policy-name {role.policy_name}
  ;;
*)
  echo "usage: $0 add|remove" >&2
  exit 2
  ;;
esac
"""


def _script_for_key(addition: KeyAddition) -> str:
    return f"""
without='.Statement |= map(select(.Sid as $sid | all($ours[]; .Sid != $sid)))'
case "$step" in
add) filter="$without | .Statement += \\$ours" ;;
remove) filter=$without ;;
*)
  echo "usage: $0 add|remove" >&2
  exit 2
  ;;
esac

change() {{
  local region before after
  region=$(cut -d: -f4 <<<"$1")
  before=$(aws kms get-key-policy --region "$region" --key-id "$1" --policy-name default \\
    --query Policy --output text)
  after=$(jq --argjson ours "$2" "$filter" <<<"$before")
  aws kms put-key-policy --region "$region" --key-id "$1" --policy-name default --policy "$after"
}}

change {addition.kms_key_arn} '{json.dumps(list(addition.statements), indent=2)}'
"""
