"""``byok key set-floor`` and ``destroy``: the end of old versions, undoable first, then for good."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from byok.cli.output import (
    AsJson,
    KeyName,
    TenantName,
    actor,
    console,
    parse_duration,
    print_json,
    show_duration,
    show_time,
)
from byok.cli.services import open_services
from byok.core.destruction import DEFAULT_UNUSED_FOR, Evidence
from byok.core.usage import FLUSH_PERIOD
from byok.errors import InvalidInput, Unavailable

if TYPE_CHECKING:
    from byok.core.model import Key
    from byok.wiring import Services

_PATIENCE = 3 * FLUSH_PERIOD


def set_floor(
    tenant: TenantName,
    key: KeyName,
    floor: Annotated[int, typer.Argument(metavar="N", help="The oldest version that decrypts.")],
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until every process goes by it and has written its uses.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Let no version below N decrypt any more. A lower N undoes it."""
    with open_services() as services:
        changed = services.destruction.set_floor(tenant, key, floor, actor=actor())
        if wait:
            _wait(services, changed)
    if as_json:
        print_json({"key": changed.name, "decryption_floor": changed.decryption_floor})
        return
    console.print(
        f"key [bold]{tenant}/{key}[/]: versions from {changed.decryption_floor} on decrypt, older ones don't"
    )


@contextmanager
def _counting_processes() -> Iterator[Callable[[Sequence[str]], None]]:
    """A status line; what it yields is to be called with those that are waited for."""
    with console.status("waiting for processes …") as status:
        yield lambda waiting: status.update(f"waiting for {len(waiting)} processes …")


def _wait(services: "Services", key: "Key") -> None:
    with _counting_processes() as seen:
        waiting = services.destruction.wait_for_floor(key, _PATIENCE, seen)
    if waiting:
        raise Unavailable(
            f"the floor is set, but not heard of after {show_duration(_PATIENCE)} from {', '.join(waiting)}",
            remedy="dead, frozen or cut off: look at their hosts",
        )


def destroy(
    tenant: TenantName,
    key: KeyName,
    version: Annotated[int, typer.Argument(metavar="VERSION", help="Its number.")],
    unused_for: Annotated[
        str, typer.Option(metavar="DURATION", help="How long it must have been unused.")
    ] = show_duration(DEFAULT_UNUSED_FOR),
    force: Annotated[
        bool, typer.Option("--force", help="Destroy it whatever the usage ledger says.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove a version's wrapped key for good: what is still encrypted under it is lost.

    It must be below the decryption floor. Backups and the write-ahead log keep the wrapped key for as long as
    you keep them.
    """
    wanted = parse_duration(unused_for)
    with open_services() as services:
        if not yes:
            _confirm(services.destruction.examine(tenant, key, version))
        evidence = services.destruction.destroy(
            tenant, key, version, actor=actor(), unused_for=wanted, force=force
        )
    if as_json:
        print_json({"key": key, "version": version, "state": "destroyed", **_usage_json(evidence)})
        return
    console.print(f"version {version} of [bold]{tenant}/{key}[/] is destroyed; {_show_usage(evidence)}")


def destroy_old(
    tenant: TenantName,
    key: KeyName,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Destroy the versions that campaigns have proven to be in no registered table any more.

    Raises the decryption floor first. What a process may hold from before ends within the key's TTL: until
    then this refuses, and says when to call it again. Then it counts the tables once more, and destroys.
    """
    with open_services() as services:
        number = services.campaigns.proven_version(tenant, key)
        if not yes:
            question = (
                f"No registered table of {tenant}/{key} holds a value under a version below {number}; what is"
                " not registered is lost with them. Type the key's name to go on"
            )
            _ask(question, key)
        with _counting_processes() as seen:
            floor, destroyed = services.old_versions.destroy(
                tenant,
                key,
                actor=actor(),
                patience=_PATIENCE,
                seen=seen,
            )
        number = floor.decryption_floor
    if as_json:
        print_json({"key": key, "decryption_floor": number, "destroyed": destroyed})
        return
    if not destroyed:
        console.print(f"[bold]{tenant}/{key}[/] has no version below {number} left")
        return
    numbers = ", ".join(map(str, destroyed))
    console.print(
        f"destroyed of [bold]{tenant}/{key}[/]: version {numbers}; the decryption floor is {number}"
    )


def _confirm(evidence: Evidence) -> None:
    key, number = evidence.key.name, evidence.version.number
    question = (
        f"Version {number} of {evidence.tenant}/{key}: {_show_usage(evidence)}. Destroyed, it can't be"
        " brought back. Type the key's name to go on"
    )
    _ask(question, key)


def _ask(question: str, key: str) -> None:
    if typer.prompt(question, err=True) != key:
        raise InvalidInput("this is not the key's name: nothing was destroyed")


def _show_usage(evidence: Evidence) -> str:
    usage = evidence.usage
    if usage is None:
        return "never used"
    return f"last used {show_time(usage.last_used_at)}, {usage.uses} uses"


def _usage_json(evidence: Evidence) -> dict[str, object]:
    usage = evidence.usage
    return {
        "uses": 0 if usage is None else usage.uses,
        "last_used_at": None if usage is None else usage.last_used_at,
    }
