"""``byok key``: create, list, show, rotate, validate, set-rotation."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from byok.cli import destruction
from byok.cli.indexes import index_json, show_index
from byok.cli.output import (
    AsJson,
    KeyName,
    TenantName,
    actor,
    checks_json,
    checks_table,
    console,
    parse_duration,
    print_json,
    show_duration,
    show_state,
    show_time,
    table,
)
from byok.cli.rotations import print_requested, rotation_json
from byok.cli.services import open_services
from byok.core.bounds import DEFAULT_LEASE_TTL
from byok.core.lifecycle import DECRYPTING_STATES, may_decrypt
from byok.core.model import (
    Key,
    KeyVersion,
    Rotation,
    RotationReason,
    RotationSource,
    RotationState,
)
from byok.core.usage import VersionUsage
from byok.errors import InvalidInput, Unavailable, ValidationFailed

if TYPE_CHECKING:
    from byok.services.registry import KeyDetails
    from byok.services.requests import Requested
    from byok.wiring import Services

app = typer.Typer(help="Data keys: create, rotate, validate, destroy.", no_args_is_help=True)
app.command("set-floor", epilog="Example: [bold]byok key set-floor acme pii 3 --wait[/]")(
    destruction.set_floor
)
app.command(epilog="Example: [bold]byok key destroy acme pii 2 --unused-for 30d[/]")(destruction.destroy)

Wait = Annotated[bool, typer.Option("--wait", help="Wait until a worker has done it.")]

_WAIT_SECONDS = 60
_REQUESTABLE = (RotationReason.FORCED, RotationReason.COMPROMISE)


@app.command(epilog="Example: [bold]byok key create acme pii --rotate-every 90d --ttl 1h --wait[/]")
def create(
    tenant: TenantName,
    key: KeyName,
    rotate_every: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="Rotation period, 1h to 3650d, where the customer's KMS key says nothing; default 365d.",
        ),
    ] = None,
    ttl: Annotated[
        str, typer.Option(metavar="DURATION", help="Cache TTL, 0 (off) to 24h: the bound on a revocation.")
    ] = show_duration(DEFAULT_LEASE_TTL),
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Create a key; a worker generates and validates its first version."""
    with open_services() as services:
        _, requested = services.registry.create_key(
            tenant,
            key,
            rotation_period=None if rotate_every is None else parse_duration(rotate_every),
            lease_ttl=parse_duration(ttl),
            actor=actor(),
        )
        _report(services, tenant, key, requested, wait=wait, as_json=as_json)


@app.command(epilog="Example: [bold]byok key rotate acme pii --reason compromise --wait[/]")
def rotate(
    tenant: TenantName,
    key: KeyName,
    reason: Annotated[str, typer.Option(help="forced or compromise.")] = "forced",
    idempotency_key: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The same text never rotates twice.")
    ] = None,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Ask for a new version now."""
    if reason not in _REQUESTABLE:
        raise InvalidInput(f"{reason!r} is not a reason to ask for", remedy="use forced or compromise")
    with open_services() as services:
        requested = services.requests.request(
            tenant,
            key,
            reason=RotationReason(reason),
            requested_by=actor(),
            idempotency_key=idempotency_key,
        )
        _report(services, tenant, key, requested, wait=wait, as_json=as_json)


def _report(
    services: "Services",
    tenant: str,
    key: str,
    requested: "Requested",
    *,
    wait: bool,
    as_json: bool,
) -> None:
    rotation = requested.rotation
    if wait:
        rotation = _wait(services, tenant, key, rotation)
    if as_json:
        print_json(rotation_json(rotation) | {"outcome": requested.outcome})
    else:
        print_requested(rotation, requested.outcome)
    if rotation.state is RotationState.FAILED:
        raise ValidationFailed(f"rotation {rotation.id} failed: {rotation.failure}")


def _wait(services: "Services", tenant: str, key: str, rotation: Rotation) -> Rotation:
    deadline = time.monotonic() + _WAIT_SECONDS
    with console.status("waiting for a worker …"):
        while rotation.is_open:
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"rotation {rotation.id} is still {rotation.state} after {_WAIT_SECONDS} s",
                    remedy=f"it goes on by itself; byok doctor tells whether a worker runs, "
                    f"byok key show {tenant} {key} how far it is",
                )
            time.sleep(0.2)
            rotation = services.requests.get(rotation.id)
    return rotation


@app.command("list", epilog="Example: [bold]byok key list acme[/]")
def list_(tenant: TenantName, as_json: AsJson = False) -> None:
    """List a tenant's keys."""
    with open_services() as services:
        _, keys = services.registry.show_tenant(tenant)
    if as_json:
        print_json([key_json(key) for key in keys])
        return
    console.print(keys_table(f"keys of {tenant}", keys))


def keys_table(title: str, keys: Sequence[Key]) -> Table:
    """Keys with their settings."""
    rows = [
        (
            key.name,
            _show_rotation(key),
            show_duration(key.lease_ttl),
            show_time(key.next_rotation_at),
        )
        for key in keys
    ]
    return table(title, ("key", "rotates every", "cache TTL", "next rotation"), rows)


@app.command(epilog="Example: [bold]byok key show acme pii[/]")
def show(tenant: TenantName, key: KeyName, as_json: AsJson = False) -> None:
    """Show a key: its versions with state, reason, who and when, and its latest rotations."""
    with open_services() as services:
        details = services.registry.show_key(tenant, key)
    if as_json:
        print_json(
            key_json(details.key)
            | {
                "versions": [_version_json(details, version) for version in details.versions],
                "rotations": [rotation_json(rotation) for rotation in details.rotations],
            }
        )
        return
    found = details.key
    _print_settings(tenant, found)
    if found.index is not None:
        console.print(show_index(tenant, found))
    console.print(versions_table(details))
    failed = [rotation for rotation in details.rotations if rotation.failure]
    if failed:
        rows = [
            (show_time(one.requested_at), one.reason.value, show_state(one.state), one.failure or "")
            for one in failed
        ]
        console.print(table("rotations with trouble", ("requested", "reason", "state", "why"), rows))


def versions_table(details: "KeyDetails") -> Table:
    """Versions with state, reason, who and when, and how much they are used."""
    rows = [
        (
            str(version.number),
            _show_state(details.key, version),
            f"{version.reason.value}\n{version.requested_by}",
            show_time(version.activated_at),
            show_time(version.retired_at),
            f"{sum(check.passed for check in version.checks)}/{len(version.checks)}",
            _show_usage(details.usage.get(version.number)),
        )
        for version in details.versions
    ]
    # Two lines a version, three on 80 columns.
    columns = ("#", "state", "reason, who", "activated", "retired", "checks", "uses, last used")
    made = table("versions", columns, rows)
    made.columns[1].no_wrap = True
    return made


def _show_state(key: Key, version: KeyVersion) -> str:
    shown = show_state(version.state)
    if version.state in DECRYPTING_STATES and not may_decrypt(key, version):
        return f"{shown}\nbelow floor"
    return shown


def _show_usage(usage: VersionUsage | None) -> str:
    return "0" if usage is None else f"{usage.uses}\n{show_time(usage.last_used_at)}"


@app.command(epilog="Example: [bold]byok key validate acme pii[/]")
def validate(tenant: TenantName, key: KeyName, as_json: AsJson = False) -> None:
    """Run all checks on the active version now."""
    from byok.services.validation import Rejected

    failure: Rejected | None = None
    with open_services() as services, console.status("checking …"):
        try:
            number, checks = services.checkups.validate(tenant, key, actor=actor())
        except Rejected as rejected:
            number, checks, failure = rejected.number, rejected.checks, rejected
    if as_json:
        print_json({"version": number, "passed": failure is None, "checks": checks_json(checks)})
    else:
        console.print(checks_table(f"version {number} of {tenant}/{key}", checks))
    if failure is not None:
        raise failure


@app.command(epilog="Example: [bold]byok key set-rotation acme pii --every 30d --ttl 15m[/]")
def set_rotation(
    tenant: TenantName,
    key: KeyName,
    every: Annotated[str | None, typer.Option(metavar="DURATION", help="New period, 1h to 3650d.")] = None,
    ttl: Annotated[str | None, typer.Option(metavar="DURATION", help="New cache TTL, 0 to 24h.")] = None,
    next_in: Annotated[
        str | None, typer.Option(metavar="DURATION", help="When the next scheduled rotation is due.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change how often a key rotates, how long it may be cached, or when it is due next."""
    with open_services() as services:
        changed = services.registry.set_rotation(
            tenant,
            key,
            actor=actor(),
            rotation_period=None if every is None else parse_duration(every),
            lease_ttl=None if ttl is None else parse_duration(ttl),
            next_in=None if next_in is None else parse_duration(next_in),
        )
    if as_json:
        print_json(key_json(changed))
        return
    _print_settings(tenant, changed)


def _print_settings(tenant: str, key: Key) -> None:
    console.print(
        f"key [bold]{tenant}/{key.name}[/]: rotates every {_show_rotation(key)}, "
        f"cache TTL {show_duration(key.lease_ttl)}, next rotation {show_time(key.next_rotation_at)}"
        + (f", decryption floor {key.decryption_floor}" if key.decryption_floor > 1 else "")
    )


_SOURCES = {
    RotationSource.TAG: " (the customer's tag)",
    RotationSource.KMS_KEY: " (as the KMS key)",
    RotationSource.SETTING: "",
    RotationSource.DEFAULT: " (default)",
}


def _show_rotation(key: Key) -> str:
    return show_duration(key.rotation_period) + _SOURCES[key.rotation_source]


def key_json(key: Key) -> dict[str, Any]:
    """A key with its settings, for machines."""
    return {
        "key": key.name,
        "id": key.id,
        "rotation_period_seconds": key.rotation_period,
        "rotation_source": key.rotation_source,
        "lease_ttl_seconds": key.lease_ttl,
        "next_rotation_at": key.next_rotation_at,
        **index_json(key),
        "decryption_floor": key.decryption_floor,
    }


def _version_json(details: "KeyDetails", version: KeyVersion) -> dict[str, Any]:
    usage = details.usage.get(version.number)
    return {
        "number": version.number,
        "state": version.state,
        "reason": version.reason,
        "requested_by": version.requested_by,
        "requested_at": version.requested_at,
        "activated_at": version.activated_at,
        "retired_at": version.retired_at,
        "kms_key_arn": str(version.kms_key_arn),
        "kms_request_id": version.kms_request_id,
        "kms_key_material_id": version.kms_key_material_id,
        "master_key_id": version.sealed_wrapped_key.master_key_id or None,
        "ended_at": version.ended_at,
        "decrypts": may_decrypt(details.key, version),
        "uses": 0 if usage is None else usage.uses,
        "first_used_at": usage and usage.first_used_at,
        "last_used_at": usage and usage.last_used_at,
        "checks": checks_json(version.checks),
    }
