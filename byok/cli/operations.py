"""``byok doctor``, ``db`` and ``master-key``."""

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from byok.cli.output import (
    AsJson,
    checks_json,
    checks_table,
    console,
    print_json,
)
from byok.cli.services import open_runtime
from byok.core.model import Check
from byok.errors import ByokError, Unavailable

if TYPE_CHECKING:
    from byok.wiring import Runtime

db_app = typer.Typer(help="The database schema.", no_args_is_help=True)
master_key_app = typer.Typer(help="The vendor's own master keys.", no_args_is_help=True)


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
