"""How the command line prints: tables for people, JSON for machines, durations and times for both."""

import getpass
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from byok.core.findings import Finding, Verdict
from byok.core.lookout import Severity
from byok.core.model import Check, Tenant
from byok.errors import ByokError, InvalidInput

console = Console(highlight=False)
error_console = Console(stderr=True, highlight=False)

TenantName = Annotated[str, typer.Argument(metavar="TENANT", help="The tenant's name.")]
KeyName = Annotated[str, typer.Argument(metavar="KEY", help="The key's name, such as pii.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]

_DURATION = re.compile(r"([0-9]+)([smhd]?)")
_UNIT_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_STATE_STYLES = {
    "active": "green",
    "done": "green",
    "suspended": "bold red",
    "failed": "red",
    "rejected": "red",
    "compromised": "bold red",
    "destroyed": "dim",
    "offboarded": "dim",
    "running": "yellow",
    "wrapping": "yellow",
    "held": "yellow",
    "committed": "green",
    "rolled-back": "yellow",
    "paused": "yellow",
    "cancelled": "yellow",
    "pending": "yellow",
    "requested": "yellow",
    "generated": "yellow",
    "validated": "yellow",
}
_SEVERITY_STYLES = {
    Severity.NOTE: "cyan",
    Severity.WARNING: "yellow",
    Severity.URGENT: "bold red",
    Severity.CRITICAL: "bold white on red",
}


def parse_id(text: str, what: str, remedy: str) -> UUID:
    """Parse the id of a ``what``; ``remedy`` tells where ids are shown.

    Raises:
        InvalidInput: it is no UUID.
    """
    try:
        return UUID(text)
    except ValueError:
        raise InvalidInput(f"{text!r} is not the id of a {what}", remedy=remedy) from None


def parse_duration(text: str) -> timedelta:
    """Parse ``90d``, ``12h``, ``30m``, ``45s`` or plain seconds.

    Raises:
        InvalidInput: none of these.
    """
    match = _DURATION.fullmatch(text)
    if match is None or len(match[1]) > 12:
        raise InvalidInput(f"{text!r} is not a duration", remedy="write 90d, 12h, 30m or 45s")
    seconds = int(match[1]) * _UNIT_SECONDS[match[2]]
    if seconds > 10**10:
        raise InvalidInput(f"{text!r} is longer than 300 years", remedy="write 90d, 12h, 30m or 45s")
    return timedelta(seconds=seconds)


def show_duration(duration: timedelta) -> str:
    """The duration in its largest whole unit, as `parse_duration` reads it."""
    seconds = int(duration.total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def milliseconds(duration: timedelta) -> int:
    """A duration in whole milliseconds."""
    return round(duration.total_seconds() * 1000)


def show_time(at: datetime | None) -> str:
    """A time to the second in UTC, or a dash."""
    return "–" if at is None else at.strftime("%Y-%m-%d %H:%M:%SZ")


def show_foreign(text: str) -> str:
    """What others chose, such as a User-Agent, for a table: nothing of it is markup or moves the cursor."""
    return escape("".join(one if one.isprintable() else "\ufffd" for one in text))


def show_age(age: timedelta) -> str:
    """About how long, in one unit: to the second below two minutes, and so on."""
    seconds = int(age.total_seconds())
    for unit, size in (("s", 1), ("min", 60), ("h", 3600)):
        if seconds < 120 * size or (unit == "h" and seconds < 48 * size):
            return f"{seconds // size} {unit}"
    return f"{seconds // 86400} days"


def show_state(state: str) -> str:
    """A state in its colour, as Rich markup."""
    style = _STATE_STYLES.get(state)
    return f"[{style}]{state}[/]" if style else state


def show_severity(severity: Severity) -> str:
    """A severity in its colour, as Rich markup."""
    return f"[{_SEVERITY_STYLES[severity]}]{severity}[/]"


def print_json(value: Any) -> None:  # noqa: ANN401  # whatever json takes
    """Print JSON to standard output; times as ISO 8601, durations as seconds."""
    print(json.dumps(value, indent=2, default=to_json))  # noqa: T201  # standard output is the point


def print_json_list(values: Iterable[Any]) -> None:
    """As `print_json` prints a list, however long, without having it in memory."""
    before = "["
    for value in values:
        text = json.dumps(value, indent=2, default=to_json).replace("\n", "\n  ")
        print(f"{before}\n  {text}", end="")  # noqa: T201  # as above
        before = ","
    print("[]" if before == "[" else "\n]")  # noqa: T201  # as above


def write_json(file: Path, value: Any) -> None:  # noqa: ANN401  # whatever json takes
    """Write JSON to a file.

    Raises:
        InvalidInput: it can't be written.
    """
    try:
        file.write_text(json.dumps(value, indent=2, default=to_json) + "\n")
    except OSError as error:
        raise InvalidInput(f"{file} can't be written: {error.strerror}") from error


def to_json(value: object) -> object:
    """For `json.dumps`: times as ISO 8601, durations as seconds, ids as text."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return str(value)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table in the house style."""
    made = Table(title=title, title_justify="left", title_style="bold", header_style="bold cyan")
    for place, column in enumerate(columns):
        made.add_column(column, overflow="fold", no_wrap=place == 0)
    for row in rows:
        made.add_row(*row)
    return made


def checks_table(title: str, checks: Iterable[Check]) -> Table:
    """The report of a gate."""
    return table(
        title,
        ("check", "verdict", "what was seen"),
        [
            (check.name, "[green]passed[/]" if check.passed else "[red]FAILED[/]", check.detail)
            for check in checks
        ],
    )


_VERDICT_STYLES = {
    Verdict.PASSED: "green",
    Verdict.NOTE: "cyan",
    Verdict.WARNING: "yellow",
    Verdict.FAILED: "bold red",
}


def show_verdict(verdict: Verdict) -> str:
    """A verdict in its colour, as Rich markup; what failed is loud."""
    text = "FAILED" if verdict is Verdict.FAILED else verdict.value
    return f"[{_VERDICT_STYLES[verdict]}]{text}[/]"


def findings_table(title: str, findings: Iterable[Finding]) -> Table:
    """The report of a preflight."""
    rows = []
    for finding in findings:
        style = _VERDICT_STYLES[finding.verdict]
        seen = finding.seen if finding.cause is None else f"{finding.seen} ({finding.cause})"
        rows.append((finding.check, f"[{style}]{finding.verdict}[/]", seen))
    return table(title, ("check", "verdict", "what was seen"), rows)


def checks_json(checks: Iterable[Check]) -> list[dict[str, object]]:
    """The report of a gate for machines."""
    return [{"name": check.name, "passed": check.passed, "detail": check.detail} for check in checks]


def tenant_json(tenant: Tenant) -> dict[str, Any]:
    """A tenant for machines."""
    connection, stopped = tenant.connection, tenant.suspension
    return {
        "tenant": tenant.name,
        "id": tenant.id,
        "state": tenant.state,
        "external_id": tenant.external_id,
        "kms_key_arn": connection and str(connection.kms_key_arn),
        "role_arn": connection and connection.role_arn and str(connection.role_arn),
        "created_at": tenant.created_at,
        "verified_at": tenant.verified_at,
        "outage_wait_seconds": tenant.outage_wait,
        "suspension": stopped
        and {
            "kind": stopped.kind,
            "reason": stopped.reason,
            "since": stopped.since,
            "aws_code": stopped.aws_code,
            "request_id": stopped.request_id,
        },
    }


def print_error(error: ByokError) -> None:
    """One line on standard error, and the remedy; JSON where the command was asked for JSON."""
    if "--json" in sys.argv:
        line = {"error": error.code, "message": error.message, "remedy": error.remedy}
        error_console.print(json.dumps(line), soft_wrap=True, markup=False)
        return
    remedy = f" → {error.remedy}" if error.remedy else ""
    error_console.print(f"byok: {error.message} [{error.code}]{remedy}", soft_wrap=True, markup=False)


def actor() -> str:
    """Who runs this command, for the audit log."""
    try:
        return f"cli:{getpass.getuser()}"
    except (OSError, KeyError):  # a container may run under a user id without a name
        return f"cli:uid-{os.geteuid()}"
