"""``byok key index``: make a key searchable, and rebuild its blind indexes."""

from typing import Annotated, Any

import typer

from byok.cli.output import AsJson, KeyName, TenantName, actor, console, print_json
from byok.cli.services import open_services
from byok.core.model import Key
from byok.errors import InvalidInput


def index(
    tenant: TenantName,
    key: KeyName,
    enable: Annotated[bool, typer.Option("--enable", help="Make the key searchable.")] = False,
    rebuild: Annotated[
        bool,
        typer.Option("--rebuild", help="Put new indexes under the active version; the old ones still count."),
    ] = False,
    finish: Annotated[
        bool, typer.Option("--finish", help="End a rebuild: indexes under the old version count no more.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show which versions a key's blind indexes rest on, or change that (docs/search.md)."""
    if enable + rebuild + finish > 1:
        raise InvalidInput("only one of --enable, --rebuild and --finish at a time")
    with open_services() as services:
        if enable:
            found = services.indexes.enable(tenant, key, actor=actor())
        elif rebuild:
            with console.status("waiting until every process knows …"):
                found = services.indexes.rebuild(tenant, key, actor=actor())
        elif finish:
            found = services.indexes.finish(tenant, key, actor=actor())
        else:
            found = services.registry.show_key(tenant, key).key
    if as_json:
        print_json({"key": found.name} | index_json(found))
        return
    console.print(f"key [bold]{tenant}/{found.name}[/]: {show_index(tenant, found)}")


def index_json(key: Key) -> dict[str, Any]:
    """What a key's blind indexes rest on, for machines."""
    return {
        "index_version": None if key.index is None else key.index.current,
        "other_index_version": None if key.index is None else key.index.other,
    }


def show_index(tenant: str, key: Key) -> str:
    """What a key's blind indexes rest on, for people."""
    found = key.index
    if found is None:
        return f"not searchable; [bold]byok key index {tenant} {key.name} --enable[/]"
    told = f"new blind indexes are under version {found.current}"
    if found.is_announced:
        return f"{told}; a rebuild under version {found.other} was begun: run --rebuild again"
    if found.other is not None:
        return f"{told}; those under version {found.other} count until --finish"
    return told
