"""``byok db`` and ``master-key``."""

import secrets
from typing import Annotated

import typer

from byok.cli.output import console
from byok.cli.services import open_runtime

db_app = typer.Typer(help="The database schema.", no_args_is_help=True)
master_key_app = typer.Typer(help="The vendor's own master keys.", no_args_is_help=True)


@db_app.command(epilog="Example: [bold]byok db upgrade[/]")
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
