"""The policies grant two uses under the tenant's context, three looks, and nothing else."""

import re
from pathlib import Path
from typing import Any
from uuid import UUID

from byok.core import policies
from byok.core.arns import KmsKeyArn, RoleArn
from byok.core.encryption_context import CONTEXT_KEYS, probe_context, version_context
from tests.world import kms_key_arn

TENANT = UUID("01a20c8e-4efd-7194-bf1d-0834216456f8")
VENDOR = RoleArn.parse("arn:aws:iam::111111111111:role/byok-worker")
KEY = KmsKeyArn.parse(kms_key_arn())
USES = {"kms:GenerateDataKeyWithoutPlaintext", "kms:Decrypt"}
LOOKS = {"kms:DescribeKey", "kms:GetKeyRotationStatus", "kms:ListResourceTags"}


def all_statements() -> list[dict[str, Any]]:
    return [
        *policies.role_permissions(str(KEY), TENANT)["Statement"],
        *policies.key_policy_statements(VENDOR, TENANT),
        *policies.role_key_policy_statements("arn:aws:iam::222222222001:role/byok-acme", TENANT),
    ]


def test_nothing_but_the_listed_actions_is_granted() -> None:
    granted = {action for statement in all_statements() for action in statement["Action"]}
    assert granted <= USES | LOOKS
    assert all(statement["Effect"] == "Allow" for statement in all_statements())


def test_every_use_is_bound_to_the_tenants_context() -> None:
    using = [statement for statement in all_statements() if USES & set(statement["Action"])]
    assert len(using) == 3
    for statement in using:
        condition = statement["Condition"]
        assert condition["StringEquals"]["kms:EncryptionContext:byok-tenant"] == str(TENANT)
        assert condition["StringEquals"]["kms:EncryptionContext:byok-app"] == "byok"
        assert condition["ForAllValues:StringEquals"]["kms:EncryptionContextKeys"] == list(CONTEXT_KEYS)


def test_role_permissions_name_one_key() -> None:
    for statement in policies.role_permissions(str(KEY), TENANT)["Statement"]:
        assert statement["Resource"] == str(KEY)


def test_the_role_trusts_the_worker_role_with_this_external_id_only() -> None:
    (statement,) = policies.trust_policy(VENDOR, "external")["Statement"]
    assert statement["Action"] == "sts:AssumeRole"
    assert statement["Principal"] == {"AWS": "arn:aws:iam::111111111111:root"}
    assert statement["Condition"] == {
        "StringEquals": {"sts:ExternalId": "external"},
        "ArnEquals": {"aws:PrincipalArn": str(VENDOR)},
    }


def test_key_policy_mode_names_the_worker_role_and_never_asks_for_tags() -> None:
    for statement in policies.key_policy_statements(VENDOR, TENANT):
        assert statement["Condition"]["ArnEquals"] == {"aws:PrincipalArn": str(VENDOR)}
        assert "kms:ListResourceTags" not in statement["Action"]


def test_contexts_use_the_keys_that_the_policies_allow_and_fit_a_grant() -> None:
    for context in (version_context(TENANT, TENANT, 4_294_967_295), probe_context(TENANT)):
        assert set(context) <= set(CONTEXT_KEYS)
        assert len(context) <= 8
        assert sum(len(name) + len(value) for name, value in context.items()) <= 384
        assert all(re.fullmatch(r"[A-Za-z0-9-]{1,64}", value) for value in context.values())
    assert set(version_context(TENANT, TENANT, 1)) == set(CONTEXT_KEYS)


def test_the_foreign_tenant_id_is_nobodys_and_customers_are_told() -> None:
    assert policies.FOREIGN_TENANT_ID.version is None  # no generator makes it
    guide = Path(__file__).parents[3] / "docs" / "customer-guide.md"
    assert str(policies.FOREIGN_TENANT_ID) in guide.read_text()
