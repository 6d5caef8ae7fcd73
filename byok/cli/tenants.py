"""``byok tenant``: register, provision, verify, list, show."""

import json
from typing import Annotated, Any

import typer

from byok.cli.keys import keys_table
from byok.cli.output import (
    AsJson,
    actor,
    checks_json,
    checks_table,
    console,
    print_json,
    show_state,
    show_time,
    table,
)
from byok.cli.services import open_runtime, open_services
from byok.core import policies
from byok.core.model import KmsKeyArn, RoleArn, Tenant
from byok.errors import ConfigurationError, ValidationFailed

app = typer.Typer(help="Customers: register, provision, verify.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="TENANT", help="The tenant's name.")]
KmsKeyOption = Annotated[
    str | None,
    typer.Option("--kms-key-arn", metavar="ARN", help="The customer's KMS key (a key ARN, no alias)."),
]
RoleOption = Annotated[
    str | None,
    typer.Option("--role-arn", metavar="ARN", help="The customer's role; leave out in key-policy mode."),
]


@app.command(epilog="Example: [bold]byok tenant add acme[/]")
def add(tenant: Name, as_json: AsJson = False) -> None:
    """Register a customer and make its external id."""
    with open_services() as services:
        added = services.registry.add_tenant(tenant, actor=actor())
    if as_json:
        print_json(_as_json(added))
        return
    console.print(f"tenant [bold]{added.name}[/] is registered; its external id is {added.external_id}")
    console.print(f"next: byok tenant policy {added.name} --kms-key-arn ARN", style="dim")


@app.command(epilog="Example: [bold]byok tenant policy acme --kms-key-arn arn:aws:kms:…:key/… --json[/]")
def policy(
    tenant: Name,
    kms_key_arn: Annotated[str, typer.Option("--kms-key-arn", metavar="ARN", help="The customer's KMS key.")],
    as_json: AsJson = False,
) -> None:
    """Print the IAM policies that the customer's security team provisions."""
    with open_runtime() as runtime:
        vendor_role_arn = runtime.settings.vendor_role_arn
        found, _ = runtime.services.registry.show_tenant(tenant)
    if vendor_role_arn is None:
        raise ConfigurationError(
            "BYOK_VENDOR_ROLE_ARN: is not set",
            remedy="set it to the IAM role that the workers run under: the customer's policy names it",
        )
    vendor_role, key = RoleArn.parse(vendor_role_arn), KmsKeyArn.parse(kms_key_arn)
    documents: dict[str, Any] = {
        "role_trust_policy": policies.trust_policy(vendor_role, found.external_id),
        "role_permissions_policy": policies.role_permissions(key, found.id),
        "key_policy_statements": policies.key_policy_statements(vendor_role, found.id),
    }
    if as_json:
        print_json(documents)
        return
    titles = {
        "role_trust_policy": "1. A role in the account of the KMS key, with this trust policy",
        "role_permissions_policy": "2. and these permissions",
        "key_policy_statements": "or, without a role: these statements added to the KMS key's own policy",
    }
    for name, title in titles.items():
        console.print(title, style="bold")
        console.print(json.dumps(documents[name], indent=2), markup=False, soft_wrap=True)


@app.command(
    epilog="Example: [bold]byok tenant verify acme --kms-key-arn arn:aws:kms:…:key/… "
    "--role-arn arn:aws:iam::…:role/byok[/]"
)
def verify(
    tenant: Name, kms_key_arn: KmsKeyOption = None, role_arn: RoleOption = None, as_json: AsJson = False
) -> None:
    """Check a customer's KMS key and role; a pending tenant that passes becomes active."""
    with open_services() as services, console.status("asking AWS …"):
        verification = services.registry.verify_tenant(
            tenant, actor=actor(), kms_key_arn=kms_key_arn, role_arn=role_arn
        )
    if as_json:
        print_json(_as_json(verification.tenant) | {"checks": checks_json(verification.checks)})
    else:
        console.print(checks_table(f"connection of {tenant}", verification.checks))
        console.print(f"tenant [bold]{tenant}[/] is {show_state(verification.tenant.state)}")
    if not verification.passed:
        failed = ", ".join(check.name for check in verification.checks if not check.passed)
        raise ValidationFailed(
            f"the connection of tenant {tenant!r} did not pass: {failed}",
            remedy=f"compare the role and key policies with: byok tenant policy {tenant} --kms-key-arn ARN",
        )


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List all tenants."""
    with open_services() as services:
        tenants = services.registry.list_tenants()
    if as_json:
        print_json([_as_json(tenant) for tenant in tenants])
        return
    rows = [
        (tenant.name, show_state(tenant.state), _kms_key(tenant), show_time(tenant.verified_at))
        for tenant in tenants
    ]
    console.print(table("tenants", ("tenant", "state", "KMS key", "verified"), rows))


@app.command()
def show(tenant: Name, as_json: AsJson = False) -> None:
    """Show one tenant, why it is stopped if it is, and its keys."""
    with open_services() as services:
        found, keys = services.registry.show_tenant(tenant)
    if as_json:
        print_json(_as_json(found) | {"keys": [key.name for key in keys]})
        return
    console.print(f"tenant [bold]{found.name}[/] is {show_state(found.state)}")
    if found.suspension is not None:
        stopped = found.suspension
        console.print(f"  since       {show_time(stopped.since)}: {stopped.reason}")
        console.print(f"  evidence    {stopped.aws_code or '–'}, request {stopped.request_id or '–'}")
    console.print(f"  id          {found.id}  (byok-tenant in the encryption context)")
    console.print(f"  external id {found.external_id}")
    console.print(f"  KMS key     {_kms_key(found)}")
    if found.connection is not None:
        console.print(f"  role        {found.connection.role_arn or 'none: key-policy mode'}")
    console.print(f"  verified    {show_time(found.verified_at)}")
    console.print(keys_table("keys", keys))


def _kms_key(tenant: Tenant) -> str:
    return "–" if tenant.connection is None else str(tenant.connection.kms_key_arn)


def _as_json(tenant: Tenant) -> dict[str, Any]:
    connection, stopped = tenant.connection, tenant.suspension
    return {
        "tenant": tenant.name,
        "id": tenant.id,
        "state": tenant.state,
        "external_id": tenant.external_id,
        "kms_key_arn": connection and str(connection.kms_key_arn),
        "role_arn": connection and connection.role_arn and str(connection.role_arn),
        "created_at": tenant.created_at,
        "verified_at": tenant.verified_at,
        "suspension": stopped
        and {
            "reason": stopped.reason,
            "since": stopped.since,
            "aws_code": stopped.aws_code,
            "request_id": stopped.request_id,
        },
    }
