"""``byok tenant policy`` and ``verify``: what a customer provisions, and whether it is right."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from byok.cli.errands import (
    ErrandKeyOption,
    ErrandOption,
    ErrandRequest,
    require_vendor_role,
)
from byok.cli.output import (
    AsJson,
    TenantName,
    actor,
    console,
    error_console,
    findings_table,
    parse_duration,
    print_json,
    show_state,
    tenant_json,
)
from byok.cli.services import open_runtime, open_services
from byok.core.arns import KmsKeyArn, RoleArn
from byok.core.errands import render_errand
from byok.core.findings import Finding
from byok.core.model import TenantState
from byok.core.provisioning import AccessMode, PolicyFormat, Provisioning, render
from byok.errors import ValidationFailed

if TYPE_CHECKING:
    from byok.services.onboarding import Verification

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


def policy(
    tenant: TenantName,
    kms_key_arn: Annotated[
        str | None,
        typer.Option("--kms-key-arn", metavar="ARN", help="The customer's KMS key; left out: a parameter."),
    ] = None,
    form: Annotated[PolicyFormat, typer.Option("--format", help="What the customer likes best.")] = (
        PolicyFormat.JSON
    ),
    mode: Annotated[
        AccessMode | None,
        typer.Option(
            "--mode",
            help="A role (better; the default), or statements in the key's own policy; not with --for.",
        ),
    ] = None,
    errand: ErrandOption = None,
    key: ErrandKeyOption = None,
    as_json: AsJson = False,
) -> None:
    """Print what the customer's security team provisions: a role, or key policy statements.

    With --for, what it allows beside that for as long as an errand takes, over the connection that the tenant
    has: json, or cli for a script that adds it and takes it back. For a move: byok tenant migrate --policy.
    """
    form = PolicyFormat.JSON if as_json else form
    asked = ErrandRequest(errand, key)
    asked.require_sense(other_options=kms_key_arn is not None or mode is not None)
    with open_runtime() as runtime:
        vendor = runtime.settings.vendor_role_arn
        vendor_role = None if vendor is None else RoleArn.parse(vendor)
        found, keys = runtime.services.registry.show_tenant(tenant)
    if errand is not None:
        document = render_errand(asked.errand(found, keys, vendor_role), form)
    else:
        what = Provisioning(
            found.name,
            found.id,
            found.external_id,
            require_vendor_role(vendor_role),
            None if kms_key_arn is None else KmsKeyArn.parse(kms_key_arn),
        )
        document = render(what, form, mode or AccessMode.ROLE)
    # print, not Rich: what goes into a file or a pipe must not be wrapped.
    print(document, end="")  # noqa: T201  # standard output is the point


def verify(
    tenant: TenantName,
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
        print_json(tenant_json(verification.tenant) | {"checks": _findings_json(verification.findings)})
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
