"""The IAM policy documents that a customer's security team provisions. Pure.

Nothing wider than needed: two KMS actions under an encryption context that names this tenant, and
three that only look. See the AWS KMS Developer Guide, "Policy conditions", and the IAM User Guide on
external ids and the confused deputy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from byok.core.arns import KmsKeyArn, RoleArn
from byok.core.encryption_context import APP, CONTEXT_KEYS

USE_ACTIONS = ("kms:GenerateDataKeyWithoutPlaintext", "kms:Decrypt")
LOOK_ACTIONS = ("kms:DescribeKey", "kms:GetKeyRotationStatus", "kms:ListResourceTags")
# Tags can never be read across accounts, so key-policy mode does not ask for them.
CROSS_ACCOUNT_LOOK_ACTIONS = ("kms:DescribeKey", "kms:GetKeyRotationStatus")
MAX_SESSION_SECONDS = 3600
# Nobody's tenant id: under it the preflight tries whether a policy asks for the tenant's own. Always the same
# one, so that customers can leave it out of their alarms.
FOREIGN_TENANT_ID = UUID(int=0)
# What byok never does with a customer's KMS key, as far as AWS lets it be tried by a dry run.
UNNEEDED_ACTIONS = ("kms:Encrypt", "kms:GenerateDataKey", "kms:ReEncrypt*", "kms:CreateGrant")

# What the two errands need beyond, for as long as they take.
EXPORT_ACTION = "kms:Encrypt"
MIGRATION_SOURCE_ACTION, MIGRATION_TARGET_ACTION = "kms:ReEncryptFrom", "kms:ReEncryptTo"
# Where no one principal may use both KMS keys, the new one wraps what the old one unwrapped.
CROSSING_ACTION = "kms:Encrypt"

POLICY_VERSION = "2012-10-17"
PolicyDocument = dict[str, Any]
# ARNs of KMS keys, or how a template refers to one.
Resource = str | list[str] | dict[str, str]


@dataclass(frozen=True, slots=True)
class Right:
    """One action on one KMS key."""

    action: str
    kms_key_arn: KmsKeyArn


def _policy(*statements: dict[str, Any]) -> PolicyDocument:
    return {"Version": POLICY_VERSION, "Statement": list(statements)}


def trust_policy(vendor_role: RoleArn, external_id: str) -> PolicyDocument:
    """Who may assume the customer's role: the vendor's worker role, with this external id.

    The principal is the vendor's account, narrowed by a condition: a role named as principal would be
    stored as its unique id, and re-creating it would lock every customer out.
    """
    return _policy(
        {
            "Effect": "Allow",
            "Principal": {"AWS": f"arn:{vendor_role.partition}:iam::{vendor_role.account}:root"},
            "Action": "sts:AssumeRole",
            "Condition": {
                "StringEquals": {"sts:ExternalId": external_id},
                "ArnEquals": {"aws:PrincipalArn": str(vendor_role)},
            },
        }
    )


def role_permissions(resource: Resource, tenant_id: UUID) -> PolicyDocument:
    """What the customer's role may do. During a migration ``resource`` is both KMS keys."""
    return _policy(
        {
            "Sid": "ByokUseWithContext",
            "Effect": "Allow",
            "Action": list(USE_ACTIONS),
            "Resource": resource,
            "Condition": _context_condition(tenant_id),
        },
        {"Sid": "ByokLook", "Effect": "Allow", "Action": list(LOOK_ACTIONS), "Resource": resource},
    )


def key_policy_statements(vendor_role: RoleArn, tenant_id: UUID) -> list[dict[str, Any]]:
    """What to add to the KMS key's own policy where no role is wanted (key-policy mode)."""
    principal = {"AWS": f"arn:{vendor_role.partition}:iam::{vendor_role.account}:root"}
    only_worker = {"ArnEquals": {"aws:PrincipalArn": str(vendor_role)}}
    return [
        {
            "Sid": "ByokUseWithContext",
            "Effect": "Allow",
            "Principal": principal,
            "Action": list(USE_ACTIONS),
            "Resource": "*",
            "Condition": only_worker | _context_condition(tenant_id),
        },
        {
            "Sid": "ByokLook",
            "Effect": "Allow",
            "Principal": principal,
            "Action": list(CROSS_ACCOUNT_LOOK_ACTIONS),
            "Resource": "*",
            "Condition": only_worker,
        },
    ]


def role_key_policy_statements(role: str | dict[str, str], tenant_id: UUID) -> list[dict[str, Any]]:
    """What a key policy that names no IAM must say to let the customer's own role in.

    The context condition stands here, too: within one account a key policy that names the role is enough by
    itself, so that the condition in the role's own policy would not be asked. ``role`` is its ARN, or how a
    template refers to it.
    """
    principal = {"AWS": role}
    return [
        {
            "Sid": "ByokRoleUseWithContext",
            "Effect": "Allow",
            "Principal": principal,
            "Action": list(USE_ACTIONS),
            "Resource": "*",
            "Condition": _context_condition(tenant_id),
        },
        {
            "Sid": "ByokRoleLook",
            "Effect": "Allow",
            "Principal": principal,
            "Action": list(LOOK_ACTIONS),
            "Resource": "*",
        },
    ]


def whole_key_policy(account: str | dict[str, str], statements: list[dict[str, Any]]) -> PolicyDocument:
    """The policy of a new KMS key: its account administers it, and ``statements``."""
    own = {
        "Sid": "Administration",
        "Effect": "Allow",
        "Principal": {"AWS": account},
        "Action": "kms:*",
        "Resource": "*",
    }
    return _policy(own, *statements)


def migration_source_statement(resource: Resource, tenant_id: UUID) -> dict[str, Any]:
    """What a role's policy must say beside, on the old KMS key, while a migration by ReEncrypt goes on."""
    return _errand("ByokMigrationSource", MIGRATION_SOURCE_ACTION, resource, _context_condition(tenant_id))


def migration_target_statement(
    resource: Resource, tenant_id: UUID, *, is_crossing: bool = False
) -> dict[str, Any]:
    """The same on the new KMS key. ``is_crossing``: another principal uses the old one, so that the secrets
    come by Decrypt and Encrypt."""
    action = CROSSING_ACTION if is_crossing else MIGRATION_TARGET_ACTION
    return _errand("ByokMigrationTarget", action, resource, _context_condition(tenant_id))


def export_statement(resource: Resource, associated_data: bytes) -> dict[str, Any]:
    """What a role's policy must say beside, for as long as an export takes.

    Tink puts its associated data into the encryption context, in hexadecimal, and nothing else.
    """
    condition = {
        "StringEquals": {"kms:EncryptionContext:associatedData": associated_data.hex()},
        "ForAllValues:StringEquals": {"kms:EncryptionContextKeys": ["associatedData"]},
    }
    return _errand("ByokExport", EXPORT_ACTION, resource, condition)


def for_vendor(statement: dict[str, Any], vendor_role: RoleArn) -> dict[str, Any]:
    """A statement of a role's policy as the KMS key's own policy says it in key-policy mode: of the vendor's
    worker role, as in `key_policy_statements`."""
    principal = {"AWS": f"arn:{vendor_role.partition}:iam::{vendor_role.account}:root"}
    only_worker = {"ArnEquals": {"aws:PrincipalArn": str(vendor_role)}}
    return _of_key(statement, principal, only_worker)


def for_role(statement: dict[str, Any], role: str) -> dict[str, Any]:
    """The same of the customer's role, for a key policy that names no IAM: `role_key_policy_statements`."""
    return _of_key(statement, {"AWS": role}, {})


def _of_key(
    statement: dict[str, Any], principal: dict[str, str], condition: dict[str, Any]
) -> dict[str, Any]:
    return {
        "Sid": statement["Sid"],
        "Effect": statement["Effect"],
        "Principal": principal,
        "Action": statement["Action"],
        "Resource": "*",
        "Condition": condition | statement["Condition"],
    }


def _errand(sid: str, action: str, resource: Resource, condition: dict[str, Any]) -> dict[str, Any]:
    return {"Sid": sid, "Effect": "Allow", "Action": action, "Resource": resource, "Condition": condition}


def session_policy(kms_key_arn: KmsKeyArn, beside: Sequence[Right] = ()) -> PolicyDocument:
    """What we leave ourselves of the role's rights, however wide the customer made it: what we always need,
    and ``beside`` it what an errand needs."""
    return _policy(
        {"Effect": "Allow", "Action": [*USE_ACTIONS, *LOOK_ACTIONS], "Resource": str(kms_key_arn)},
        *(
            {"Effect": "Allow", "Action": right.action, "Resource": str(right.kms_key_arn)}
            for right in beside
        ),
    )


def _context_condition(tenant_id: UUID) -> dict[str, Any]:
    return {
        "StringEquals": {
            "kms:EncryptionContext:byok-app": APP,
            "kms:EncryptionContext:byok-tenant": str(tenant_id),
        },
        "ForAllValues:StringEquals": {"kms:EncryptionContextKeys": list(CONTEXT_KEYS)},
    }
