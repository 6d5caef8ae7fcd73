"""``byok tenant``: register, provision, verify, follow, list, show."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from byok.cli import connections, migration, stops
from byok.cli.findings import finding_json, inspect, show_findings
from byok.cli.keys import key_json, keys_table
from byok.cli.offboarding import certificate, offboard, offboarding_json, show_departure
from byok.cli.output import (
    AsJson,
    TenantName,
    actor,
    console,
    parse_duration,
    print_json,
    show_duration,
    show_state,
    show_time,
    table,
    tenant_json,
)
from byok.cli.services import open_runtime, open_services
from byok.cli.stops import bound_json, show_bound, show_stop, stop_json
from byok.core.model import SuspensionKind, Tenant, TenantState
from byok.errors import InvalidInput

if TYPE_CHECKING:
    from byok.ports import WebhookState

app = typer.Typer(help="Customers: register, provision, verify, stop.", no_args_is_help=True)


@app.command(epilog="Example: [bold]byok tenant add acme[/]")
def add(tenant: TenantName, as_json: AsJson = False) -> None:
    """Register a customer and make its external id."""
    with open_services() as services:
        added = services.onboarding.add_tenant(tenant, actor=actor())
    if as_json:
        print_json(tenant_json(added))
        return
    console.print(f"tenant [bold]{added.name}[/] is registered; its external id is {added.external_id}")
    console.print(f"next: byok tenant policy {added.name} --format cloudformation", style="dim")


app.command(
    epilog="Example: [bold]byok tenant policy acme --format terraform > byok.tf[/]; for an errand: "
    "[bold]byok tenant policy acme --for export --key pii --format cli > export.sh[/]"
)(connections.policy)
app.command(
    epilog="Example: [bold]byok tenant verify acme --kms-key-arn arn:aws:kms:…:key/… "
    "--role-arn arn:aws:iam::…:role/byok-acme[/]"
)(connections.verify)
app.command(
    epilog="Example: [bold]byok tenant migrate acme --kms-key-arn arn:aws:kms:…:key/… --hold[/], then "
    "[bold]byok tenant migrate acme --commit[/]"
)(migration.migrate)
app.command(epilog="Example: [bold]byok tenant inspect acme[/]")(inspect)
app.command(epilog="Example: [bold]byok tenant suspend acme --reason 'customer called'[/]")(stops.suspend)
app.command(epilog="Example: [bold]byok tenant resume acme[/]")(stops.resume)
app.command(epilog="Example: [bold]byok tenant drill acme --report drill.json[/]")(stops.drill)
app.command(
    epilog="Example: [bold]byok tenant offboard acme --reason 'contract ended' --retention-days 30[/]"
)(offboard)
app.command(epilog="Example: [bold]byok tenant certificate acme --output acme-shredded.json[/]")(certificate)


@app.command(epilog="Example: [bold]byok tenant sync acme[/]")
def sync(tenant: TenantName, as_json: AsJson = False) -> None:
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
    tenant: TenantName,
    outage_wait: Annotated[
        str | None,
        typer.Option(
            "--outage-wait",
            metavar="DURATION",
            help="How long a call waits for a KMS that can't be reached, once its lease has ended.",
        ),
    ] = None,
    webhook: Annotated[
        str | None,
        typer.Option(
            "--webhook", metavar="URL", help="Where the customer is told of findings; none: nowhere."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change a tenant's settings. A lease is never used past its deadline, whatever they say."""
    if outage_wait is None and webhook is None:
        raise InvalidInput("nothing is to be set", remedy="say --outage-wait, --webhook or both")
    with open_runtime() as runtime:
        registry, by = runtime.services.registry, actor()
        changed, _ = registry.show_tenant(tenant)
        if webhook is not None:
            url, allow_http = (None if webhook == "none" else webhook), runtime.settings.env != "production"
            changed = registry.set_webhook(tenant, url, allow_http=allow_http, actor=by)
        if outage_wait is not None:
            changed = registry.set_outage_wait(tenant, parse_duration(outage_wait), actor=by)
    if as_json:
        print_json(tenant_json(changed))
        return
    console.print(
        f"calls of tenant [bold]{tenant}[/] wait up to {show_duration(changed.outage_wait)} in an outage"
    )
    console.print(f"it is told of findings at {changed.webhook_url or 'no webhook'}", soft_wrap=True)


@app.command("list", epilog="Example: [bold]byok tenant list[/]")
def list_(as_json: AsJson = False) -> None:
    """List all tenants."""
    with open_services() as services:
        tenants = services.registry.list_tenants()
    if as_json:
        print_json([tenant_json(tenant) for tenant in tenants])
        return
    rows = [
        (
            tenant.name,
            show_state(tenant.state) + (" (leaves)" if _is_leaving(tenant) else ""),
            _kms_key(tenant),
            show_time(tenant.verified_at),
        )
        for tenant in tenants
    ]
    console.print(table("tenants", ("tenant", "state", "KMS key", "verified"), rows))


@app.command(epilog="Example: [bold]byok tenant show acme[/]")
def show(tenant: TenantName, as_json: AsJson = False) -> None:
    """Show one tenant, why it is stopped if it is, and its keys."""
    with open_services() as services:
        found, keys = services.registry.show_tenant(tenant)
        stops = services.kill_switch.reports(found)
        bound = services.kill_switch.bound(found) if keys else None
        found_there = services.lookout.list_of(tenant)
        messages = services.lookout.webhook_state(found)
        goes = _is_leaving(found) or found.state is TenantState.OFFBOARDED
        departure = services.offboardings.show(tenant) if goes else None
    if as_json:
        told = {
            "keys": [key.name for key in keys],
            "stops": [stop_json(report) for report in stops],
            "revocation_bound": bound and bound_json(bound),
            "looked_at": found.looked_at,
            "webhook": {"url": found.webhook_url, **asdict(messages)},
            "findings": [finding_json(*one) for one in found_there],
            "offboarding": departure and offboarding_json(departure),
        }
        print_json(tenant_json(found) | told)
        return
    console.print(f"tenant [bold]{found.name}[/] is {show_state(found.state)}")
    if found.suspension is not None:
        stopped = found.suspension
        console.print(f"  since       {show_time(stopped.since)}: {stopped.reason}")
        evidence = f"{stopped.aws_code}, request {stopped.request_id or '–'}" if stopped.aws_code else "–"
        console.print(f"  evidence    {evidence}")
    if departure is not None:
        console.print(f"  leaving     {show_departure(departure)}", soft_wrap=True)
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
    watched = show_findings(found_there) or "nothing"
    console.print(f"  watch       found {watched}; last look {show_time(found.looked_at)}", soft_wrap=True)
    if found.webhook_url is not None:
        console.print(f"  webhook     {found.webhook_url}: {_show_messages(messages)}", soft_wrap=True)
    console.print(keys_table("keys", keys))


def _show_messages(messages: "WebhookState") -> str:
    failed = f"; the latest failure: {messages.failure}" if messages.failure else ""
    return (
        f"last delivered {show_time(messages.last_delivered_at)}, {messages.waiting} waiting, "
        f"{messages.given_up} given up{failed}"
    )


def _is_leaving(tenant: Tenant) -> bool:
    return tenant.suspension is not None and tenant.suspension.kind is SuspensionKind.LEAVING


def _kms_key(tenant: Tenant) -> str:
    return "–" if tenant.connection is None else str(tenant.connection.kms_key_arn)
