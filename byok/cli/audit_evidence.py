"""``byok audit checkpoint`` and ``export``: what others keep of the audit log, and check without us."""

import json
from pathlib import Path
from typing import Annotated

import typer

from byok.cli.audit import counted, progress_bar
from byok.cli.files import writing
from byok.cli.output import AsJson, TenantName, actor, console, print_json, show_time
from byok.cli.services import open_services
from byok.crypto.checkpoints import document_of

_Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Write there, for its owner alone to read."),
]


def checkpoint(tenant: TenantName, output: _Output = None, as_json: AsJson = False) -> None:
    """Sign the audit log as it is now, for the customer to keep: a rewrite contradicts it.

    Without --output, standard output gets the signed checkpoint.
    """
    with open_services() as services:
        signed = services.checkpoints.sign(tenant, actor=actor())
    document = document_of(signed)
    with writing(output) as sink:
        sink.write(json.dumps(document, indent=2).encode() + b"\n")
    if output is None:
        return
    if as_json:
        print_json(document)
        return
    said = signed.checkpoint
    console.print(
        f"{output}: checkpoint {said.number} of {tenant}, event {said.place.sequence}, {show_time(said.at)}",
        soft_wrap=True,
    )


def export(tenant: TenantName, output: _Output = None, as_json: AsJson = False) -> None:
    """Write the audit log, verified on the way, as JSON Lines that can be checked without byok.

    Without --output, standard output gets them: where the log is broken they stop, and the exit code is 7. A
    file is whole, or is not there.
    """
    with open_services() as services, writing(output) as sink:
        chain = services.auditor.chain(tenant)
        with progress_bar(tenant, chain.length) as on_page:
            for line in services.audit_exporter.lines(chain, on_page):
                sink.write(line)
    if output is None:
        return
    if as_json:
        print_json(
            {
                "tenant": tenant,
                "file": output,
                "events": chain.length,
                "hash": chain.head.hash.hex(),
                "checkpoints": chain.checkpoints,
            }
        )
        return
    console.print(f"{output}: {counted(chain.length, chain.checkpoints)} of {tenant}", soft_wrap=True)
