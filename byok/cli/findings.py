"""``byok findings`` and ``byok tenant inspect``: what the watch over customers' sides found."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from byok.cli.output import AsJson, TenantName, actor, console, print_json, show_severity, show_time, table
from byok.cli.services import open_services
from byok.core.lookout import KINDS, Severity, TenantFinding, remedy_for
from byok.core.model import Tenant
from byok.errors import InvalidInput, KmsUnavailable, ValidationFailed

if TYPE_CHECKING:
    from byok.wiring import Services

_Found = Sequence[tuple[Tenant, TenantFinding]]


def findings(
    tenant: Annotated[str | None, typer.Argument(metavar="[TENANT]", help="The tenant's name.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Resolved ones, too, of one tenant.")] = False,
    as_json: AsJson = False,
) -> None:
    """What the nightly watch found on customers' sides, the gravest first, and what to do about it."""
    with open_services() as services:
        found = _found(services, tenant, everything=everything)
    if as_json:
        print_json([finding_json(one, finding) for one, finding in found])
        return
    if not found:
        console.print("nothing was found")
        return
    _print(f"findings of {tenant}" if tenant else "findings", found)


def _found(services: "Services", tenant: str | None, *, everything: bool) -> _Found:
    if tenant is not None:
        return services.lookout.list_of(tenant, resolved=everything)
    if everything:
        raise InvalidInput("--all needs a tenant", remedy="say byok findings TENANT --all")
    return services.lookout.list_gravest()


def inspect(tenant: TenantName, as_json: AsJson = False) -> None:
    """Look now at what the nightly watch looks at: KMS key, policies, audit log. Exit code 8 if anything but
    notes was found, 6 if the customer's side did not answer."""
    with open_services() as services, console.status("asking AWS …"):
        looked = services.lookout.look(tenant, actor=actor())
    found = [(looked.tenant, finding) for finding in looked.open]
    if as_json:
        told = {"tenant": tenant, "unreached": looked.unreached}
        print_json(told | {"findings": [finding_json(*one) for one in found]})
    elif found:
        _print(f"findings of {tenant}", found)
    elif looked.unreached is None:
        console.print(f"{tenant}: [green]nothing was found[/]")
    if looked.unreached is not None:
        raise KmsUnavailable(
            f"the side of tenant {tenant!r} did not answer: {looked.unreached}",
            remedy="findings about it are as they were; look again when it answers",
        )
    grave = [finding for finding in looked.open if finding.severity is not Severity.NOTE]
    if grave:
        raise ValidationFailed(
            f"the watch found of tenant {tenant!r}: {', '.join(one.kind for one in grave)}",
            remedy=f"byok findings {tenant} shows them with their remedies",
        )


def _print(title: str, found: _Found) -> None:
    rows = [
        (
            tenant.name,
            finding.kind.value,
            "[green]resolved[/]" if finding.resolved_at else show_severity(finding.severity),
            show_time(finding.first_seen_at),
            show_time(finding.resolved_at or finding.deadline_at),
        )
        for tenant, finding in found
    ]
    console.print(table(title, ("tenant", "kind", "severity", "since", "deadline, or end"), rows))
    for tenant, finding in found:
        if finding.resolved_at is not None:
            continue
        text = KINDS[finding.kind]
        console.print(f"[bold]{tenant.name}: {finding.kind}[/], for the {text.side}", soft_wrap=True)
        console.print(f"  meaning  {text.meaning}", markup=False, soft_wrap=True)
        if seen := finding.detail.get("explanation") or finding.detail.get("seen"):
            console.print(f"  seen     {seen}", markup=False, soft_wrap=True)
        console.print(f"  remedy   {remedy_for(finding, tenant)}", markup=False, soft_wrap=True)


def finding_json(tenant: Tenant, finding: TenantFinding) -> dict[str, Any]:
    """A finding for machines."""
    return {
        "id": finding.id,
        "tenant": tenant.name,
        "kind": finding.kind,
        "severity": finding.severity,
        "side": KINDS[finding.kind].side,
        "meaning": KINDS[finding.kind].meaning,
        "remedy": remedy_for(finding, tenant),
        "detail": finding.detail,
        "first_seen_at": finding.first_seen_at,
        "last_seen_at": finding.last_seen_at,
        "deadline_at": finding.deadline_at,
        "resolved_at": finding.resolved_at,
    }


def show_findings(found: _Found) -> str:
    """Open findings in a line, the gravest first."""
    gravest = sorted((finding for _, finding in found), key=lambda one: _RANKS[one.severity], reverse=True)
    return ", ".join(
        f"{show_severity(one.severity)} {one.kind}"
        + (f" by {one.deadline_at:%Y-%m-%d}" if one.deadline_at else "")
        for one in gravest
    )


_RANKS = {severity: rank for rank, severity in enumerate(Severity)}
