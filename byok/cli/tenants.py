"""``byok tenant``: register, provision, verify, follow, list, show."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from byok.cli.keys import key_json, keys_table
from byok.cli.output import (
    AsJson,
    actor,
    console,
    error_console,
    findings_table,
    parse_duration,
    print_json,
    show_duration,
    show_state,
    show_time,
    table,
)
from byok.cli.services import open_runtime, open_services
from byok.cli.stops import bound_json, show_bound, show_stop, stop_json
from byok.core.findings import Finding
from byok.core.model import KmsKeyArn, RoleArn, Tenant, TenantState
from byok.core.provisioning import AccessMode, PolicyFormat, Provisioning, render
from byok.errors import ConfigurationError, ValidationFailed

if TYPE_CHECKING:
    from byok.services.onboarding import Verification

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

# IAM's changes are usually seen within seconds, at times only after minutes.
_PAUSES_SECONDS = (5.0, 10.0, 20.0, 40.0, 80.0, *([160.0] * 20))
_WAIT_COLUMNS = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())


@app.command(epilog="Example: [bold]byok tenant add acme[/]")
def add(tenant: Name, as_json: AsJson = False) -> None:
    """Register a customer and make its external id."""
    with open_services() as services:
        added = services.onboarding.add_tenant(tenant, actor=actor())
    if as_json:
        print_json(_as_json(added))
        return
    console.print(f"tenant [bold]{added.name}[/] is registered; its external id is {added.external_id}")
    console.print(f"next: byok tenant policy {added.name} --format cloudformation", style="dim")


@app.command(epilog="Example: [bold]byok tenant policy acme --format terraform > byok.tf[/]")
def policy(
    tenant: Name,
    kms_key_arn: Annotated[
        str | None,
        typer.Option("--kms-key-arn", metavar="ARN", help="The customer's KMS key; left out: a parameter."),
    ] = None,
    form: Annotated[PolicyFormat, typer.Option("--format", help="What the customer likes best.")] = (
        PolicyFormat.JSON
    ),
    mode: Annotated[
        AccessMode, typer.Option("--mode", help="A role (better), or statements in the key's own policy.")
    ] = AccessMode.ROLE,
    as_json: AsJson = False,
) -> None:
    """Print what the customer's security team provisions: a role, or key policy statements."""
    with open_runtime() as runtime:
        vendor_role_arn = runtime.settings.vendor_role_arn
        found, _ = runtime.services.registry.show_tenant(tenant)
    if vendor_role_arn is None:
        raise ConfigurationError(
            "BYOK_VENDOR_ROLE_ARN: is not set",
            remedy="set it to the IAM role that the workers run under: the customer's policy names it",
        )
    what = Provisioning(
        found.name,
        found.id,
        found.external_id,
        RoleArn.parse(vendor_role_arn),
        None if kms_key_arn is None else KmsKeyArn.parse(kms_key_arn),
    )
    # print, not Rich: what goes into a file or a pipe must not be wrapped.
    print(render(what, PolicyFormat.JSON if as_json else form, mode), end="")  # noqa: T201  # standard output is the point


@app.command(
    epilog="Example: [bold]byok tenant verify acme --kms-key-arn arn:aws:kms:…:key/… "
    "--role-arn arn:aws:iam::…:role/byok-acme[/]"
)
def verify(
    tenant: Name,
    kms_key_arn: KmsKeyOption = None,
    role_arn: RoleOption = None,
    mode: Annotated[
        AccessMode | None,
        typer.Option("--mode", help="A role, or the key's own policy; left out: as the ARNs and before."),
    ] = None,
    shared: Annotated[
        bool, typer.Option("--shared", help="Another tenant may have the same KMS key or role.")
    ] = False,
    wait: Annotated[
        str, typer.Option(metavar="DURATION", help="How long IAM may take to know what was provisioned.")
    ] = "2m",
    as_json: AsJson = False,
) -> None:
    """Check a customer's KMS key and role; a pending tenant that passes becomes active.

    What must work is tried, and what must be refused. Changes of IAM take seconds to minutes: refusals of
    a tenant that is not active yet are asked again, for --wait. Until it is active each ARN can be corrected
    alone; the other stays. --mode key-policy gives up a role that was said before.
    """
    with open_services() as services:

        def check() -> "Verification":
            return services.onboarding.verify_tenant(
                tenant,
                actor=actor(),
                kms_key_arn=kms_key_arn,
                role_arn=role_arn,
                mode=mode,
                shared=shared,
            )

        verification = _ask_until(check, parse_duration(wait).total_seconds())
    if as_json:
        print_json(_as_json(verification.tenant) | {"checks": _findings_json(verification.findings)})
    else:
        console.print(findings_table(f"connection of {tenant}", verification.findings))
        _explain(verification.findings)
        console.print(f"tenant [bold]{tenant}[/] is {show_state(verification.tenant.state)}")
    if not verification.passed:
        causes = ", ".join(f"{finding.check} ({finding.cause})" for finding in verification.failed)
        raise ValidationFailed(
            f"the connection of tenant {tenant!r} did not pass: {causes}",
            remedy=verification.failed[0].remedy,
        )


def _ask_until(check: "Callable[[], Verification]", patience_seconds: float) -> "Verification":
    """Check again while what fails can be a change of IAM that is on its way."""
    with console.status("asking AWS …"):
        verification = check()
    if not _may_wait(verification) or patience_seconds <= 0:
        return verification
    left_seconds = patience_seconds
    with Progress(*_WAIT_COLUMNS, console=error_console, transient=True) as progress:
        bar = progress.add_task("", total=patience_seconds)
        for pause_seconds in _PAUSES_SECONDS:
            first = verification.failed[0]
            progress.update(bar, description=f"{first.check}: {first.seen}; IAM may need time")
            pause_seconds = min(pause_seconds, left_seconds)
            left_seconds -= pause_seconds
            while pause_seconds > 0:
                time.sleep(min(0.2, pause_seconds))
                progress.advance(bar, min(0.2, pause_seconds))
                pause_seconds -= 0.2
            verification = check()
            if not _may_wait(verification) or left_seconds <= 0:
                break
    return verification


def _may_wait(verification: "Verification") -> bool:
    return verification.tenant.state is TenantState.PENDING and verification.may_pass_later


def _explain(findings: Sequence[Finding]) -> None:
    for finding in findings:
        if finding.cause is not None:
            console.print(f"[bold]{finding.check}[/]: {finding.cause}", soft_wrap=True)
            console.print(f"  cause   {finding.explanation}", markup=False, soft_wrap=True)
            console.print(f"  remedy  {finding.remedy}", markup=False, soft_wrap=True)


def _findings_json(findings: Sequence[Finding]) -> list[dict[str, object]]:
    return [
        {
            "name": finding.check,
            "verdict": finding.verdict,
            "seen": finding.seen,
            "cause": finding.cause,
            "explanation": finding.explanation or None,
            "remedy": finding.remedy or None,
        }
        for finding in findings
    ]


@app.command(epilog="Example: [bold]byok tenant sync acme[/]")
def sync(tenant: Name, as_json: AsJson = False) -> None:
    """Read now what the customer's KMS key says of rotation, and follow it."""
    with open_services() as services, console.status("asking AWS …"):
        synced = services.follower.sync(tenant, actor=actor())
    kms_key = synced.kms_key_rotation
    if as_json:
        print_json(
            {
                "tenant": tenant,
                "tag_days": kms_key.tag_days,
                "ignored_tag": synced.ignored_tag,
                "kms_key_rotation_days": kms_key.period_days,
                "kms_key_material_id": kms_key.material_id,
                "keys": [key_json(key) for key in synced.keys],
                "rotations_requested": [work.rotation.id for work in synced.rotated],
            }
        )
        return
    if synced.ignored_tag is not None:
        ignored = f"the tag's value {synced.ignored_tag!r} counts for nothing: it must be 1 to 3650 days"
        console.print(ignored, style="yellow", markup=False)
    told = [
        ("tag byok:rotation-days", "–" if kms_key.tag_days is None else f"{kms_key.tag_days} days"),
        ("KMS key's own rotation", "–" if kms_key.period_days is None else f"{kms_key.period_days} days"),
        ("KMS key's material", kms_key.material_id or "–"),
    ]
    console.print(table(f"what the KMS key of {tenant} says", ("what", "value"), told))
    console.print(keys_table("what follows", synced.keys))
    for work in synced.rotated:
        console.print(f"{work.key}: rotation {work.rotation.id} requested: the KMS key has new material")


@app.command("set", epilog="Example: [bold]byok tenant set acme --outage-wait 30s[/]")
def set_(
    tenant: Name,
    outage_wait: Annotated[
        str,
        typer.Option(
            "--outage-wait",
            metavar="DURATION",
            help="How long a call waits for a KMS that can't be reached, once its lease has ended.",
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Change a tenant's settings. A lease is never used past its deadline, whatever they say."""
    with open_services() as services:
        changed = services.registry.set_outage_wait(tenant, parse_duration(outage_wait), actor=actor())
    if as_json:
        print_json(_as_json(changed))
        return
    console.print(
        f"calls of tenant [bold]{tenant}[/] wait up to {show_duration(changed.outage_wait)} in an outage"
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
        stops = services.kill_switch.reports(found)
        bound = services.kill_switch.bound(found) if keys else None
    if as_json:
        told = {
            "keys": [key.name for key in keys],
            "stops": [stop_json(report) for report in stops],
            "revocation_bound": bound and bound_json(bound),
        }
        print_json(_as_json(found) | told)
        return
    console.print(f"tenant [bold]{found.name}[/] is {show_state(found.state)}")
    if found.suspension is not None:
        stopped = found.suspension
        console.print(f"  since       {show_time(stopped.since)}: {stopped.reason}")
        evidence = f"{stopped.aws_code}, request {stopped.request_id or '–'}" if stopped.aws_code else "–"
        console.print(f"  evidence    {evidence}")
    if stops:
        console.print(
            f"  last stop   {show_time(stops[0].stop.noticed_at)}: {show_stop(stops[0])}", soft_wrap=True
        )
        worst = max(stops, key=lambda report: report.latency)
        console.print(f"  worst stop  {show_stop(worst)}  (of the last {len(stops)})", soft_wrap=True)
    if bound is not None:
        console.print(
            f"  bound       a revocation stops every process within {show_bound(bound)}", soft_wrap=True
        )
    console.print(f"  id          {found.id}  (byok-tenant in the encryption context)")
    console.print(f"  external id {found.external_id}")
    console.print(f"  KMS key     {_kms_key(found)}")
    if found.connection is not None:
        console.print(f"  role        {found.connection.role_arn or 'none: key-policy mode'}")
    console.print(f"  synced      {show_time(found.synced_at)}  (what the KMS key says of rotation)")
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
        "outage_wait_seconds": tenant.outage_wait,
        "suspension": stopped
        and {
            "kind": stopped.kind,
            "reason": stopped.reason,
            "since": stopped.since,
            "aws_code": stopped.aws_code,
            "request_id": stopped.request_id,
        },
    }
