"""``byok db``."""

import typer

from byok.cli.output import console
from byok.cli.services import open_runtime

db_app = typer.Typer(help="The database schema.", no_args_is_help=True)


@db_app.command(epilog="Example: [bold]byok db upgrade[/]")
def upgrade() -> None:
    """Bring the database to the newest schema."""
    from byok.store import migrate

    with open_runtime() as runtime:
        migrate.upgrade(runtime.engine)
        console.print(f"the schema is at {migrate.current_revision(runtime.engine)}")
