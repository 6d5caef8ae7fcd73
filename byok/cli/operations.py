"""``byok status``, ``doctor``, ``db`` and ``master-key``."""

import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from byok.cli.output import (
    AsJson,
    checks_json,
    checks_table,
    console,
    milliseconds,
    print_json,
    show_state,
    show_time,
    table,
)
from byok.cli.services import open_runtime
from byok.core.counts import Count, Precision
from byok.core.model import Check, RotationState
from byok.errors import ByokError, QueueUnavailable, Unavailable

if TYPE_CHECKING:
    from byok.services.overview import Overview
    from byok.wiring import Runtime

db_app = typer.Typer(help="The database schema.", no_args_is_help=True)
master_key_app = typer.Typer(help="The vendor's own master keys.", no_args_is_help=True)


_ENDED = (RotationState.DONE, RotationState.FAILED)


def status(as_json: AsJson = False) -> None:
    """The fleet at a glance: tenants, keys, rotations, queues, workers, and who is stopped."""
    with open_runtime() as runtime:
        overview = runtime.services.observer.overview()
        queues, workers = _queue_state(runtime)
    if as_json:
        print_json(
            {
                **_numbers(overview),
                "queues": queues,
                "workers": workers,
                "failed": [str(work.rotation.id) for work in overview.failed],
                "ticks": {tick.job: tick.began_at for tick in overview.ticks},
                "members": overview.members,
                "worst_stop_seconds": dict(overview.worst_stops),
                "suspended": [tenant.name for tenant in overview.suspended],
            }
        )
        return
    rows = [
        ("tenants", ", ".join(f"{count} {show_state(state)}" for state, count in overview.tenants.items())),
        ("keys", f"{overview.keys}, {overview.overdue} overdue"),
        ("rotations", _show_rotations(overview.rotations)),
        ("queues", ", ".join(f"{name} {depth}" for name, depth in (queues or {}).items()) or "no broker"),
        ("last ticks", ", ".join(f"{one.job} {show_time(one.began_at)}" for one in overview.ticks) or "none"),
        ("workers", ", ".join(workers) or "[red]none answers[/]"),
        ("lease holders", f"{overview.members} process{'' if overview.members == 1 else 'es'}"),
        (
            "slowest stops",
            ", ".join(f"{name} {milliseconds(took)} ms" for name, took in overview.worst_stops) or "–",
        ),
    ]
    console.print(table("byok", ("what", "how it stands"), rows))
    for work in overview.failed:
        console.print(
            f"[bold red]failed[/] {work.tenant}/{work.key} {show_time(work.rotation.finished_at)}: "
            f"{work.rotation.failure} → byok rotation retry {work.rotation.id}"
        )
    for tenant in overview.suspended:
        assert tenant.suspension is not None
        stopped = tenant.suspension
        console.print(
            f"[bold red]suspended[/] {tenant.name} since {show_time(stopped.since)}: {stopped.reason} "
            f"({stopped.aws_code or 'by hand'}, request {stopped.request_id or '–'})"
        )


def _numbers(overview: "Overview") -> dict[str, Any]:
    """The counts as numbers; ``inexact`` names those that are estimates, or lower bounds."""
    inexact = {
        name: count.precision
        for name, count in (
            *((f"tenants.{state}", count) for state, count in overview.tenants.items()),
            *((f"rotations.{state}", count) for state, count in overview.rotations.items()),
            ("keys", overview.keys),
            ("overdue", overview.overdue),
        )
        if count.precision is not Precision.EXACT
    }
    return {
        "tenants": {state: count.number for state, count in overview.tenants.items()},
        "keys": overview.keys.number,
        "overdue": overview.overdue.number,
        "rotations": {state: count.number for state, count in overview.rotations.items()},
        "inexact": inexact,
    }


def _show_rotations(rotations: Mapping[RotationState, Count]) -> str:
    """Those that have ended are of the last day, and say so."""
    return ", ".join(
        f"{count} {show_state(state)}" + (" within a day" if state in _ENDED else "")
        for state, count in rotations.items()
    )


def _queue_state(runtime: "Runtime") -> tuple[dict[str, int] | None, list[str]]:
    try:
        return runtime.queue.depths(), runtime.queue.workers()
    except QueueUnavailable:
        return None, []


def doctor(as_json: AsJson = False) -> None:
    """Check settings, servers, migrations and workers; each finding with its remedy."""
    with open_runtime() as runtime:
        checks = [
            Check("settings", passed=True, detail=f"BYOK_ENV={runtime.settings.env}"),
            Check("master-keys", passed=True, detail=f"sealing with {runtime.master_keys.primary_id}"),
            _examine("postgresql", lambda: _database(runtime)),
            _examine("broker", lambda: _answers(runtime.queue.ping)),
            _examine("cache", lambda: _answers(runtime.cache.ping)),
            _examine("workers", lambda: _workers(runtime)),
        ]
    if as_json:
        print_json(checks_json(checks))
    else:
        console.print(checks_table("doctor", checks))
    if not all(check.passed for check in checks):
        raise Unavailable("something is not as it must be", remedy="see the failed rows above")


def _examine(name: str, examine: Callable[[], str]) -> Check:
    try:
        return Check(name, passed=True, detail=examine())
    except ByokError as error:
        return Check(name, passed=False, detail=f"{error.message} → {error.remedy or 'see the runbook'}")


def _answers(ping: Callable[[], None]) -> str:
    ping()
    return "answers"


def _database(runtime: "Runtime") -> str:
    from byok.store import migrate

    current, head = migrate.current_revision(runtime.engine), migrate.head_revision()
    if current != head:
        raise Unavailable(f"the schema is at {current}, the code at {head}", remedy="run: byok db upgrade")
    return f"schema {current}"


def _workers(runtime: "Runtime") -> str:
    workers = runtime.queue.workers()
    if not workers:
        raise Unavailable("no worker answers", remedy="start one: celery -A workers worker")
    return ", ".join(workers)


@db_app.command()
def upgrade() -> None:
    """Bring the database to the newest schema."""
    from byok.store import migrate

    with open_runtime() as runtime:
        migrate.upgrade(runtime.engine)
        console.print(f"the schema is at {migrate.current_revision(runtime.engine)}")


@master_key_app.command(epilog="Example: [bold]export BYOK_MASTER_KEYS=$(byok master-key generate)[/]")
def generate(
    key_id: Annotated[str | None, typer.Option("--id", metavar="ID", help="Name of the key.")] = None,
) -> None:
    """Print a new master key as an entry of BYOK_MASTER_KEYS. Keep it where you keep secrets."""
    from byok.crypto.keyring import format_entry

    typer.echo(format_entry(key_id or f"mk-{secrets.token_hex(4)}", secrets.token_bytes(32)))
