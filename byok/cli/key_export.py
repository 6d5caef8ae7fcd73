"""``byok key export``: a key's live versions as Tink keysets, encrypted by the customer's own KMS."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from byok.cli.errands import ErrandRequest
from byok.cli.files import create_private
from byok.cli.output import (
    AsJson,
    KeyName,
    TenantName,
    actor,
    console,
    error_console,
    print_json,
    table,
)
from byok.cli.services import open_runtime
from byok.core.arns import RoleArn
from byok.core.errands import ErrandKind, render_errand
from byok.core.key_export import show_numbers
from byok.core.provisioning import PolicyFormat
from byok.errors import InvalidInput

if TYPE_CHECKING:
    from byok.services.key_export import Exported, ExportedKeyset
    from byok.wiring import Runtime

_COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    TextColumn("{task.completed:,.0f} of {task.total:,.0f} versions"),
    TimeRemainingColumn(),
)


@dataclass(frozen=True, slots=True)
class _Written:
    file: Path
    keyset: "ExportedKeyset"


def export(
    tenant: TenantName,
    key: KeyName,
    output: Annotated[
        Path,
        typer.Option("--output", metavar="DIRECTORY", help="Where the keysets go; nothing is overwritten."),
    ] = Path(),
    as_json: AsJson = False,
) -> None:
    """Export all versions of a key that decrypt, for the customer to take along.

    What is written is a Tink keyset, encrypted under the customer's own KMS key: only the customer opens it.
    The customer allows kms:Encrypt while it takes: byok tenant policy TENANT --for export --key KEY.
    Beyond 38 versions there are several files, each with the active version.
    """
    from byok.services.key_export import ExportNotAllowed

    _require_room(output, _stem(tenant, key))
    with open_runtime() as runtime:
        try:
            with _bar(f"{tenant}/{key}") as on_version:
                exported = runtime.services.key_exporter.export(
                    tenant, key, actor=actor(), on_version=on_version
                )
        except ExportNotAllowed:
            if not as_json:
                error_console.print(_missing(runtime, tenant, key), end="", markup=False, soft_wrap=True)
            raise
    written = _write(output, _stem(tenant, key), exported)
    if as_json:
        print_json(_export_json(tenant, key, exported, written))
        return
    _show(tenant, key, exported, written)


def _stem(tenant: str, key: str) -> str:
    return f"{tenant}.{key}.keyset"


def _require_room(folder: Path, stem: str) -> None:
    """Find out before AWS is asked for anything what would stop the writing."""
    if not folder.is_dir():
        raise InvalidInput(f"{folder} is no directory", remedy="make it first")
    if there := sorted(folder.glob(f"{stem}*.json")):
        raise InvalidInput(f"{there[0]} is there already", remedy="move it away, or choose another directory")


def _missing(runtime: "Runtime", tenant: str, key: str) -> str:
    """What the customer adds, as `byok tenant policy --for export` prints it."""
    vendor = runtime.settings.vendor_role_arn
    request = ErrandRequest(ErrandKind.EXPORT, key)
    found, keys = runtime.services.registry.show_tenant(tenant)
    return render_errand(
        request.errand(found, keys, None if vendor is None else RoleArn.parse(vendor)), PolicyFormat.JSON
    )


@contextmanager
def _bar(title: str) -> Iterator[Callable[[int, int], None]]:
    with Progress(*_COLUMNS, console=error_console, transient=True) as progress:
        task = progress.add_task(title, total=0)
        yield lambda count, total: progress.update(task, completed=count, total=total)


def _write(folder: Path, stem: str, exported: "Exported") -> list[_Written]:
    """All files, or none."""
    several = len(exported.keysets) > 1
    written: list[_Written] = []
    try:
        for place, keyset in enumerate(exported.keysets, start=1):
            file = folder / (f"{stem}.{place}.json" if several else f"{stem}.json")
            create_private(file, keyset.document.encode())
            written.append(_Written(file, keyset))
    except BaseException:
        for one in written:
            one.file.unlink(missing_ok=True)
        raise
    return written


def _export_json(tenant: str, key: str, exported: "Exported", written: list[_Written]) -> dict[str, object]:
    return {
        "tenant": tenant,
        "key": key,
        "kms_key_arn": exported.kms_key_arn,
        "associated_data": exported.associated_data,
        "active_version": exported.active,
        "files": [
            {"file": str(one.file), "versions": one.keyset.versions, "kms_request_id": one.keyset.request_id}
            for one in written
        ],
    }


def _show(tenant: str, key: str, exported: "Exported", written: list[_Written]) -> None:
    rows = [
        (str(one.file), show_numbers(one.keyset.versions), str(exported.active), one.keyset.request_id)
        for one in written
    ]
    columns = ("file", "versions", "encrypts with", "KMS request")
    console.print(table(f"export of {tenant}/{key}", columns, rows))
    console.print(f"KMS key          {exported.kms_key_arn}", soft_wrap=True)
    console.print(f"associated data  {exported.associated_data}", soft_wrap=True)
    files = " ".join(str(one.file) for one in written)
    opening = f"{exported.kms_key_arn} {exported.associated_data} {files}"
    console.print("next, the customer (docs/export.md):")
    console.print(f"  checks it      python open_values.py {opening} < /dev/null", soft_wrap=True)
    console.print("  takes back     kms:Encrypt, which nothing else needs")
