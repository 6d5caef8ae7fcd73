"""What a customer adds for an errand: one right for one thing, in role mode and in key-policy mode."""

import json
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from byok.core.arns import KmsKeyArn, RoleArn
from byok.core.errands import (
    Errand,
    ErrandKind,
    errand_documents,
    export_errand,
    render_errand,
)
from byok.core.model import Connection, Key
from byok.core.provisioning import PolicyFormat
from byok.errors import InvalidInput
from tests.world import kms_key_arn

TENANT = UUID("01a20c8e-4efd-7194-bf1d-0834216456f8")
VENDOR = RoleArn.parse("arn:aws:iam::111111111111:role/byok-worker")
ROLE = RoleArn.parse("arn:aws:iam::222222222001:role/teams/byok-acme")
OLD = KmsKeyArn.parse(kms_key_arn())
NEW = KmsKeyArn.parse(kms_key_arn().replace("key/0", "key/1"))
KEY = Key(
    UUID(int=7), TENANT, "pii", timedelta(days=30), timedelta(hours=1), datetime(2026, 11, 1, tzinfo=UTC)
)
BY_ROLE = Connection(TENANT, OLD, "external", ROLE, tenant_name="acme")
BY_KEY_POLICY = replace(BY_ROLE, role_arn=None)
EXPORT_CONDITION = {
    "StringEquals": {
        "kms:EncryptionContext:associatedData": f"byok/export/1/tenant/{TENANT}/key/{KEY.id}".encode().hex()
    },
    "ForAllValues:StringEquals": {"kms:EncryptionContextKeys": ["associatedData"]},
}


def actions(statements: list[dict[str, Any]]) -> list[object]:
    return [statement["Action"] for statement in statements]


def errands() -> dict[str, Errand]:
    return {
        "export by role": export_errand(BY_ROLE, KEY, None),
        "export by key policy": export_errand(BY_KEY_POLICY, KEY, VENDOR),
    }


ERRANDS = errands()


def test_an_export_by_role_is_a_policy_of_its_own() -> None:
    documents = errand_documents(ERRANDS["export by role"])
    assert (documents["role_name"], documents["inline_policy_name"]) == ("byok-acme", "byok-export")
    statement = {
        "Sid": "ByokExport",
        "Effect": "Allow",
        "Action": "kms:Encrypt",
        "Resource": str(OLD),
        "Condition": EXPORT_CONDITION,
    }
    assert documents["inline_policy"] == {"Version": "2012-10-17", "Statement": [statement]}
    (without_iam,) = documents["key_policy_statements_without_iam"]
    assert without_iam["kms_key_arn"] == str(OLD)
    (of_key,) = without_iam["statements"]
    assert of_key == statement | {"Principal": {"AWS": str(ROLE)}, "Resource": "*"}


def test_an_export_by_key_policy_is_a_statement_that_names_the_worker_role() -> None:
    (added,) = errand_documents(ERRANDS["export by key policy"])["key_policy_statements"]
    assert added["kms_key_arn"] == str(OLD)
    assert added["statements"] == [
        {
            "Sid": "ByokExport",
            "Effect": "Allow",
            "Principal": {"AWS": "arn:aws:iam::111111111111:root"},
            "Action": "kms:Encrypt",
            "Resource": "*",
            "Condition": {"ArnEquals": {"aws:PrincipalArn": str(VENDOR)}} | EXPORT_CONDITION,
        }
    ]


def test_in_key_policy_mode_the_vendors_role_must_be_known() -> None:
    with pytest.raises(InvalidInput, match="vendor's role"):
        export_errand(BY_KEY_POLICY, KEY, None)


@pytest.mark.parametrize("name", ERRANDS)
def test_the_script_is_bash_and_holds_the_same_statements(name: str) -> None:
    script = render_errand(ERRANDS[name], PolicyFormat.CLI)
    parsed = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert (parsed.returncode, parsed.stderr) == (0, "")
    documents = errand_documents(ERRANDS[name])
    wanted = [documents["inline_policy"]] if "inline_policy" in documents else []
    wanted += [one["statements"] for one in documents.get("key_policy_statements", [])]
    assert wanted
    assert all(json.dumps(one, indent=2) in script for one in wanted)
    assert all('--region "$region"' in line or "--region eu-central-1" in line for line in calls(script))


def calls(script: str) -> list[str]:
    return [line for line in script.splitlines() if "aws iam " in line or "aws kms " in line]


def test_json_is_what_the_documents_say() -> None:
    for errand in ERRANDS.values():
        assert json.loads(render_errand(errand, PolicyFormat.JSON)) == errand_documents(errand)


@pytest.mark.parametrize("form", [PolicyFormat.CLOUDFORMATION, PolicyFormat.TERRAFORM])
def test_what_lasts_minutes_is_no_stack(form: PolicyFormat) -> None:
    with pytest.raises(InvalidInput, match=f"is not printed as {form}"):
        render_errand(ERRANDS["export by role"], form)


def test_every_errand_is_tried_here() -> None:
    assert {errand.kind for errand in ERRANDS.values()} == set(ErrandKind)
