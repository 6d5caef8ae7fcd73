"""What a customer's security team runs to let us in, in the form that it likes best. Pure.

Policies stand in every form as the same JSON, so that they can be compared with what AWS shows later. The
KMS key's ARN may be left open, as a parameter: the vendor need not know it to send the document.
"""

import json
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from byok.core import policies
from byok.core.arns import KmsKeyArn, RoleArn
from byok.errors import InvalidInput


class PolicyFormat(StrEnum):
    """The forms."""

    JSON = "json"
    CLOUDFORMATION = "cloudformation"
    TERRAFORM = "terraform"
    CLI = "cli"


class AccessMode(StrEnum):
    """How the customer lets us in."""

    ROLE = "role"  # a role in its account, with an external id
    KEY_POLICY = "key-policy"  # statements in the KMS key's own policy


@dataclass(frozen=True, slots=True)
class Provisioning:
    """All that the documents say. ``kms_key_arn`` is None where the customer fills it in."""

    tenant_name: str
    tenant_id: UUID
    external_id: str
    vendor_role: RoleArn
    kms_key_arn: KmsKeyArn | None = None

    @property
    def role_name(self) -> str:
        """The name of the customer's role, of at most 64 characters."""
        return f"byok-{self.tenant_name}"[:64]

    def trust_policy(self) -> policies.PolicyDocument:
        """Who may assume the customer's role."""
        return policies.trust_policy(self.vendor_role, self.external_id)

    def statements(self) -> list[dict[str, Any]]:
        """What to add to the key policy in key-policy mode."""
        return policies.key_policy_statements(self.vendor_role, self.tenant_id)

    def statements_without_iam(self, role: str) -> list[dict[str, Any]]:
        """What to add to a key policy that, unlike the default one, leaves nothing to the account's IAM."""
        return policies.role_key_policy_statements(role, self.tenant_id)

    @property
    def role_arn(self) -> str:
        """The ARN of the customer's role, as far as its account is known."""
        account = "ACCOUNT-ID" if self.kms_key_arn is None else self.kms_key_arn.account
        return f"arn:{self.vendor_role.partition}:iam::{account}:role/{self.role_name}"


def render(what: Provisioning, form: PolicyFormat, mode: AccessMode) -> str:
    """The document, ending in a newline.

    Raises:
        InvalidInput: JSON for a role needs the KMS key's ARN.
    """
    return _RENDERERS[form, mode](what)


def documents(what: Provisioning, mode: AccessMode) -> Mapping[str, Any]:
    """The policy documents by name.

    Raises:
        InvalidInput: for a role, the KMS key's ARN is needed.
    """
    if mode is AccessMode.KEY_POLICY:
        return {"key_policy_statements": what.statements()}
    if what.kms_key_arn is None:
        raise InvalidInput("JSON for a role needs the ARN of the KMS key", remedy="add --kms-key-arn ARN")
    return {
        "role_name": what.role_name,
        "role_trust_policy": what.trust_policy(),
        "role_permissions_policy": policies.role_permissions(str(what.kms_key_arn), what.tenant_id),
        "key_policy_statements_without_iam": what.statements_without_iam(what.role_arn),
    }


_WITHOUT_IAM = "Only where the KMS key's policy leaves nothing to the account's IAM: add these to it."


def _json(what: Provisioning, mode: AccessMode) -> str:
    return json.dumps(documents(what, mode), indent=2) + "\n"


def _indented(document: Any, spaces: int) -> str:  # noqa: ANN401  # JSON
    """JSON that goes on at this depth; its first line is not indented."""
    return textwrap.indent(json.dumps(document, indent=2), " " * spaces).lstrip()


def _cloudformation_role(what: Provisioning) -> str:
    default = f"\n    Default: {what.kms_key_arn}" if what.kms_key_arn else ""
    permissions = policies.role_permissions({"Ref": "KmsKeyArn"}, what.tenant_id)
    without_iam = json.dumps(what.statements_without_iam(what.role_arn), indent=2)
    return f"""\
AWSTemplateFormatVersion: "2010-09-09"
Description: Lets {what.vendor_role.account} use one KMS key for tenant {what.tenant_name}, and nothing else
Parameters:
  KmsKeyArn:
    Type: String
    Description: ARN of a symmetric KMS key in this account and region{default}
    AllowedPattern: "arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{{12}}:key/[a-z0-9-]+"
Resources:
  Role:
    Type: AWS::IAM::Role
    Properties:
      RoleName: {what.role_name}
      Description: byok uses the KMS key of tenant {what.tenant_name} through this role
      MaxSessionDuration: {policies.MAX_SESSION_SECONDS}
      AssumeRolePolicyDocument: {_indented(what.trust_policy(), 6)}
      Policies:
        - PolicyName: byok
          PolicyDocument: {_indented(permissions, 10)}
Outputs:
  RoleArn:
    Description: send this back, with the ARN of the KMS key
    Value: {{"Fn::GetAtt": ["Role", "Arn"]}}

# {_WITHOUT_IAM}
{textwrap.indent(without_iam, "# ")}
"""


def _cloudformation_key(what: Provisioning) -> str:
    account = {"Fn::Sub": "arn:${AWS::Partition}:iam::${AWS::AccountId}:root"}
    policy = policies.whole_key_policy(account, what.statements())
    return f"""\
AWSTemplateFormatVersion: "2010-09-09"
Description: A KMS key that {what.vendor_role.account} may use for tenant {what.tenant_name}, without a role
Resources:
  Key:
    Type: AWS::KMS::Key
    DeletionPolicy: Retain
    UpdateReplacePolicy: Retain
    Properties:
      Description: encrypts the data keys of tenant {what.tenant_name}
      EnableKeyRotation: true
      KeyPolicy: {_indented(policy, 6)}
Outputs:
  KmsKeyArn:
    Description: send this back
    Value: {{"Fn::GetAtt": ["Key", "Arn"]}}
"""


def _terraform_role(what: Provisioning) -> str:
    default = f'\n  default     = "{what.kms_key_arn}"' if what.kms_key_arn else ""
    permissions = policies.role_permissions("${var.kms_key_arn}", what.tenant_id)
    return f"""\
variable "kms_key_arn" {{
  type        = string
  description = "ARN of a symmetric KMS key in this account"{default}
}}

locals {{
  byok_trust_policy = <<-JSON
    {_indented(what.trust_policy(), 4)}
  JSON

  byok_permissions = <<-JSON
    {_indented(permissions, 4)}
  JSON
}}

resource "aws_iam_role" "byok" {{
  name                 = "{what.role_name}"
  description          = "byok uses the KMS key of tenant {what.tenant_name} through this role"
  max_session_duration = {policies.MAX_SESSION_SECONDS}
  assume_role_policy   = local.byok_trust_policy
}}

resource "aws_iam_role_policy" "byok" {{
  name   = "byok"
  role   = aws_iam_role.byok.id
  policy = local.byok_permissions
}}

output "role_arn" {{
  description = "send this back, with the ARN of the KMS key"
  value       = aws_iam_role.byok.arn
}}

# {_WITHOUT_IAM}
output "key_policy_statements_without_iam" {{
  value = <<-JSON
    {_indented(what.statements_without_iam("${aws_iam_role.byok.arn}"), 4)}
  JSON
}}
"""


def _terraform_key(what: Provisioning) -> str:
    account = f"arn:{what.vendor_role.partition}:iam::${{var.account_id}}:root"
    policy = policies.whole_key_policy(account, what.statements())
    return f"""\
variable "account_id" {{
  type        = string
  description = "this account: its IAM goes on administering the key"
}}

locals {{
  byok_key_policy = <<-JSON
    {_indented(policy, 4)}
  JSON
}}

resource "aws_kms_key" "byok" {{
  description         = "encrypts the data keys of tenant {what.tenant_name}"
  enable_key_rotation = true
  policy              = local.byok_key_policy
}}

output "kms_key_arn" {{
  description = "send this back"
  value       = aws_kms_key.byok.arn
}}
"""


_SCRIPT_HEAD = """\
#!/usr/bin/env bash
# {title}
# Read it, then run it with an administrator's credentials of your account.
set -euo pipefail
"""


def _cli_role(what: Provisioning) -> str:
    asked = "" if what.kms_key_arn else "${1:?usage: $0 ARN-OF-THE-KMS-KEY}"
    permissions = json.dumps(policies.role_permissions("KMS_KEY_ARN", what.tenant_id), indent=2)
    without_iam = json.dumps(what.statements_without_iam("ROLE_ARN"), indent=2)
    return f"""\
{_SCRIPT_HEAD.format(title=f"Lets byok use one KMS key for tenant {what.tenant_name}, through a role.")}
kms_key_arn="{what.kms_key_arn or asked}"
region=$(cut -d: -f4 <<<"$kms_key_arn")

trust_policy='{json.dumps(what.trust_policy(), indent=2)}'

permissions='{permissions}'

role_arn=$(aws iam create-role --region "$region" --role-name {what.role_name} \\
  --max-session-duration {policies.MAX_SESSION_SECONDS} \\
  --assume-role-policy-document "$trust_policy" --query Role.Arn --output text)
aws iam put-role-policy --region "$region" --role-name {what.role_name} --policy-name byok \\
  --policy-document "${{permissions//KMS_KEY_ARN/$kms_key_arn}}"

# {_WITHOUT_IAM}
without_iam='{without_iam}'
echo "Only if the policy of the KMS key leaves nothing to the account's IAM, add to it:"
echo "${{without_iam//ROLE_ARN/$role_arn}}"

echo "send this back: role $role_arn, KMS key $kms_key_arn"
"""


def _cli_key(what: Provisioning) -> str:
    asked = "" if what.kms_key_arn else "${1:?usage: $0 ARN-OF-THE-KMS-KEY}"
    return f"""\
{_SCRIPT_HEAD.format(title=f"Adds to a KMS key's policy, for tenant {what.tenant_name}; needs jq.")}
kms_key_arn="{what.kms_key_arn or asked}"
region=$(cut -d: -f4 <<<"$kms_key_arn")

statements='{json.dumps(what.statements(), indent=2)}'

before=$(aws kms get-key-policy --region "$region" --key-id "$kms_key_arn" --policy-name default \\
  --query Policy --output text)
after=$(jq --argjson added "$statements" '.Statement += $added' <<<"$before")
aws kms put-key-policy --region "$region" --key-id "$kms_key_arn" --policy-name default --policy "$after"

echo "send this back: KMS key $kms_key_arn"
"""


_RENDERERS: Mapping[tuple[PolicyFormat, AccessMode], Callable[[Provisioning], str]] = {
    (PolicyFormat.JSON, AccessMode.ROLE): lambda what: _json(what, AccessMode.ROLE),
    (PolicyFormat.JSON, AccessMode.KEY_POLICY): lambda what: _json(what, AccessMode.KEY_POLICY),
    (PolicyFormat.CLOUDFORMATION, AccessMode.ROLE): _cloudformation_role,
    (PolicyFormat.CLOUDFORMATION, AccessMode.KEY_POLICY): _cloudformation_key,
    (PolicyFormat.TERRAFORM, AccessMode.ROLE): _terraform_role,
    (PolicyFormat.TERRAFORM, AccessMode.KEY_POLICY): _terraform_key,
    (PolicyFormat.CLI, AccessMode.ROLE): _cli_role,
    (PolicyFormat.CLI, AccessMode.KEY_POLICY): _cli_key,
}
