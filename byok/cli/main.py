"""The ``byok`` command."""

import logging
import sys
from typing import Annotated

import typer

from byok import __version__
from byok.cli import (
    audit,
    audit_evidence,
    demo,
    destruction,
    doctor,
    exporter,
    fields,
    findings,
    flower,
    indexes,
    key_export,
    keys,
    master_keys,
    operations,
    plan,
    reconcile,
    reencrypt,
    reports,
    rotations,
    status,
    tenants,
    up,
)
from byok.cli.output import print_error
from byok.errors import ByokError
from byok.logs import configure_logging

app = typer.Typer(
    name="byok",
    help="Bring Your Own Key encryption: data keys in each customer's own AWS KMS.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    epilog="Begin with [bold]byok demo[/], then [bold]byok up[/].",
)
app.add_typer(tenants.app, name="tenant")
app.add_typer(keys.app, name="key")
keys.app.command("index", epilog="Example: [bold]byok key index acme pii --enable[/]")(indexes.index)
keys.app.command("export", epilog="Example: [bold]byok key export acme pii --output handover[/]")(
    key_export.export
)
app.add_typer(rotations.app, name="rotation")
app.add_typer(reencrypt.app, name="reencrypt")
reencrypt.app.command("destroy-old", epilog="Example: [bold]byok reencrypt destroy-old acme pii[/]")(
    destruction.destroy_old
)
app.add_typer(reports.app, name="report")
app.add_typer(operations.db_app, name="db")
app.add_typer(master_keys.app, name="master-key")
app.add_typer(audit.audit_app, name="audit")
audit.audit_app.command(epilog="Example: [bold]byok audit checkpoint acme --output july.json[/]")(
    audit_evidence.checkpoint
)
audit.audit_app.command(epilog="Example: [bold]byok audit export acme --output acme-audit.jsonl[/]")(
    audit_evidence.export
)
audit.audit_app.command(
    "reconcile", epilog="Example: [bold]byok audit reconcile acme --cloudtrail ./AWSLogs[/]"
)(reconcile.reconcile)
app.command(
    epilog="Example: [bold]printf ada@example.com | byok encrypt acme pii --context users.email:42 > token[/]"
)(fields.encrypt)
app.command(epilog="Example: [bold]byok decrypt acme pii --context users.email:42 < token[/]")(fields.decrypt)
app.command(
    "plan",
    epilog="Example: [bold]byok plan --keys 1000000 --period 30d --ttl 1h --processes 200[/]; what no "
    "caching costs: [bold]byok plan --keys 5000 --tenants 40 --uses-per-second 300 --json[/]",
)(plan.plan_fleet)
app.command("findings", epilog="Example: [bold]byok findings acme --json[/]")(findings.findings)
app.command(epilog="Example: [bold]byok status --watch[/]; for cron: [bold]byok status --check[/]")(
    status.status
)
app.command(epilog="Example: [bold]byok doctor[/]; for machines: [bold]byok doctor --json[/]")(doctor.doctor)
app.command(epilog="Example: [bold]byok exporter[/], and [bold]curl http://127.0.0.1:9465/metrics[/]")(
    exporter.exporter
)
app.command(epilog="Example: [bold]byok demo[/]")(demo.demo)
app.command(epilog="Example: [bold]byok up[/]")(up.up)
app.command(epilog="Example: [bold]byok flower[/], with BYOK_FLOWER_USERS_FILE=/run/secrets/flower")(
    flower.flower
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"byok {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[  # noqa: ARG001  # handled by its callback
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Set up what all commands share."""
    configure_logging("console", logging.ERROR)


def main() -> None:
    """Run the command line; an error of ours becomes one line and its exit code."""
    try:
        app()
    except ByokError as error:
        print_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
