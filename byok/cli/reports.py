"""``byok report``: check what was signed."""

import base64
from pathlib import Path
from typing import Annotated

import typer

from byok.cli.output import AsJson, console, print_json, table, write_json
from byok.cli.services import open_runtime
from byok.crypto.introductions import KIND as SIGNING_KEY
from byok.crypto.reports import PURPOSE, read_report, verify_report
from byok.errors import InvalidInput

_PUBLIC_KEY_BYTES = 32  # Ed25519

app = typer.Typer(help="Signed reports: check them, and the keys to check them by.", no_args_is_help=True)


@app.command(epilog="Example: [bold]byok report verify byok-drill-acme.json[/]")
def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The report.", exists=True, dir_okay=False)],
    public_key: Annotated[
        str | None,
        typer.Option("--public-key", metavar="BASE64", help="Whom to trust; left out: our own master keys."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a report's signature. With --public-key this needs no settings and no server."""
    trusted = [decode_public_key(public_key)] if public_key is not None else list(_our_keys().values())
    document = read_report(file.read_bytes())
    report = verify_report(document, trusted)
    if as_json:
        print_json({"authentic": True, "kind": document["kind"], "report": report})
        return
    console.print(f"{file}: [green]authentic[/], a report of kind {document['kind']}", soft_wrap=True)
    if document["kind"] == SIGNING_KEY:
        console.print(f"trust this public key from now on: {report['public_key']}", soft_wrap=True)


@app.command(
    epilog="Example: [bold]byok report introduce --folder for-customers[/]; the customer:"
    " [bold]byok report verify FILE --public-key OLD[/]"
)
def introduce(
    master_key: Annotated[
        str | None,
        typer.Option("--master-key", metavar="ID", help="Whose public key; left out: the first's."),
    ] = None,
    folder: Annotated[
        Path, typer.Option("--folder", metavar="FOLDER", help="Where to write them.", file_okay=False)
    ] = Path(),
    as_json: AsJson = False,
) -> None:
    """Have each other master key sign a report that names a new public key, for whoever trusts theirs.

    Writes a file for each; with --json it prints them instead.
    """
    from byok.crypto.introductions import introduce as sign_introductions

    with open_runtime() as runtime:
        ring, at = runtime.master_keys, runtime.store.now()
    introduced = master_key or ring.primary_id
    if introduced not in ring.ids:
        raise InvalidInput(f"the ring has no master key {introduced!r}", remedy="byok report public-key")
    documents = sign_introductions(ring, introduced, at)
    if not documents:
        raise InvalidInput(
            "the ring has no other master key that could introduce it",
            remedy="put the old one back into BYOK_MASTER_KEYS, behind the first",
        )
    if as_json:
        print_json(documents)
        return
    for document in documents:
        signer = document["signature"]["master_key_id"]
        file = folder / f"byok-signing-key-{signer}-{introduced}.json"
        write_json(file, document)
        console.print(f"{file}: {introduced} introduced by {signer}", soft_wrap=True)


@app.command("public-key", epilog="Example: [bold]byok report public-key --json[/]")
def public_key(as_json: AsJson = False) -> None:
    """Print the public keys by which others check our reports; the first one signs."""
    keys = {key_id: base64.b64encode(key).decode() for key_id, key in _our_keys().items()}
    if as_json:
        print_json(keys)
        return
    console.print(table("keys that sign reports", ("master key", "public key (Ed25519)"), list(keys.items())))


def _our_keys() -> dict[str, bytes]:
    with open_runtime() as runtime:
        return runtime.master_keys.signing_keys(PURPOSE)


def decode_public_key(text: str) -> bytes:
    """The public key in base64, as `byok report public-key` prints it.

    Raises:
        InvalidInput: it is none.
    """
    try:
        key = base64.b64decode(text, validate=True)
    except ValueError:
        key = b""
    if len(key) != _PUBLIC_KEY_BYTES:
        raise InvalidInput(
            f"{text!r} is no public key: 32 bytes in base64", remedy="byok report public-key prints ours"
        )
    return key
