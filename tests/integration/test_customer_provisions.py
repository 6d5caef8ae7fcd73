"""The customer runs what `byok tenant policy` prints, as it stands; then the tenant verifies."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from byok.core.arns import KmsKeyArn
from byok.core.model import Tenant, TenantState
from byok.core.provisioning import AccessMode, PolicyFormat, Provisioning, render
from byok.embedded.stack import Stack
from byok.simulator import ADMIN_ACCESS_KEY_PREFIX
from byok.simulator.customer import CustomerAccount
from byok.wiring import Runtime
from tests.customers import VENDOR, new_account

# The AWS command line over boto3: options are the API's parameters, and --query is a path into the reply.
AWS = """#!{python}
import re, sys, boto3
service, operation, *options = sys.argv[1:]
values = dict(zip(options[::2], options[1::2]))
values.pop("--output", None)
query = values.pop("--query", None)
region = values.pop("--region", None)
client = boto3.client(service, region_name=region, endpoint_url="{endpoint_url}")
method = getattr(client, operation.replace("-", "_"))
model = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[method.__name__])
names = {{re.sub("(?<!^)(?=[A-Z])", "-", name).lower(): name for name in model.input_shape.members}}
arguments = {{names[name[2:]]: int(value) if value.isdigit() else value for name, value in values.items()}}
reply = method(**arguments)
for step in (query or "").split(".") if query else []:
    reply = reply[step]
if query:
    print(reply)
"""


@pytest.fixture
def account(stack: Stack) -> CustomerAccount:
    return new_account(stack)


@pytest.fixture
def tenant(runtime: Runtime) -> Tenant:
    return runtime.services.onboarding.add_tenant("acme", actor="test")


@pytest.fixture
def run_script(stack: Stack, account: CustomerAccount, tmp_path: Path) -> Callable[..., str]:
    return shell_of(stack, account, tmp_path)


def shell_of(stack: Stack, account: CustomerAccount, folder: Path) -> Callable[..., str]:
    """A shell of the customer's administrator, with an ``aws`` that talks to the simulator."""
    tool = folder / "aws"
    tool.write_text(AWS.format(python=sys.executable, endpoint_url=stack.simulator.url))
    tool.chmod(0o755)
    environment = {
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "AWS_ACCESS_KEY_ID": ADMIN_ACCESS_KEY_PREFIX + account.account_id,
        "AWS_SECRET_ACCESS_KEY": "simulator-not-a-secret",
    }

    def run(script: str, *arguments: str) -> str:
        ended = subprocess.run(
            ["bash", "-s", *arguments],
            input=script,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    return run


def provisioning(tenant: Tenant, key: str | None) -> Provisioning:
    arn = None if key is None else KmsKeyArn.parse(key)
    return Provisioning(tenant.name, tenant.id, tenant.external_id, VENDOR, arn)


def verify(runtime: Runtime, key: str, role: str | None) -> None:
    verification = runtime.services.onboarding.verify_tenant(
        "acme", actor="test", kms_key_arn=key, role_arn=role
    )
    assert verification.tenant.state is TenantState.ACTIVE, verification.failed


def found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match is not None, text
    return match[1]


@pytest.mark.parametrize("key_is_known", [True, False])
def test_the_script_for_a_role(
    runtime: Runtime,
    tenant: Tenant,
    account: CustomerAccount,
    run_script: Callable[..., str],
    key_is_known: bool,
) -> None:
    key = account.create_key()
    script = render(provisioning(tenant, key if key_is_known else None), PolicyFormat.CLI, AccessMode.ROLE)
    printed = run_script(script, *([] if key_is_known else [key]))
    verify(runtime, key, found(r"role (arn:\S+),", printed))


def test_the_script_for_a_key_policy(
    runtime: Runtime, tenant: Tenant, account: CustomerAccount, run_script: Callable[..., str]
) -> None:
    if subprocess.run(["which", "jq"], capture_output=True, check=False).returncode:
        pytest.skip("there is no jq here")
    key = account.create_key()
    run_script(render(provisioning(tenant, key), PolicyFormat.CLI, AccessMode.KEY_POLICY))
    verify(runtime, key, None)


def test_a_key_policy_that_names_no_iam_needs_the_statement_for_it(
    runtime: Runtime, tenant: Tenant, account: CustomerAccount, run_script: Callable[..., str]
) -> None:
    from byok.core.provisioning import documents

    key = account.create_key()
    what = provisioning(tenant, key)
    printed = run_script(render(what, PolicyFormat.CLI, AccessMode.ROLE))
    statements = documents(what, AccessMode.ROLE)["key_policy_statements_without_iam"]
    assert json.dumps(statements, indent=2) in printed
    account.put_key_policy(key, {"Version": "2012-10-17", "Statement": statements})
    verify(runtime, key, found(r"role (arn:\S+),", printed))


def test_the_cloudformation_role(runtime: Runtime, tenant: Tenant, account: CustomerAccount) -> None:
    """What the template declares, created as it stands, its parameter filled in."""
    key = account.create_key()
    template = render(provisioning(tenant, None), PolicyFormat.CLOUDFORMATION, AccessMode.ROLE)
    properties = yaml.safe_load(template)["Resources"]["Role"]["Properties"]
    (policy,) = properties["Policies"]
    permissions = json.dumps(policy["PolicyDocument"]).replace('{"Ref": "KmsKeyArn"}', json.dumps(key))
    role = account.create_role(
        properties["RoleName"], properties["AssumeRolePolicyDocument"], json.loads(permissions),
        properties["MaxSessionDuration"],
    )  # fmt: skip
    verify(runtime, key, role)


def test_the_cloudformation_key(runtime: Runtime, tenant: Tenant, account: CustomerAccount) -> None:
    template = render(provisioning(tenant, None), PolicyFormat.CLOUDFORMATION, AccessMode.KEY_POLICY)
    policy = json.dumps(yaml.safe_load(template)["Resources"]["Key"]["Properties"]["KeyPolicy"])
    root = json.dumps(f"arn:aws:iam::{account.account_id}:root")
    filled = re.sub(r'\{"Fn::Sub": "[^"]*"\}', root, policy)
    verify(runtime, account.create_key(json.loads(filled)), None)
