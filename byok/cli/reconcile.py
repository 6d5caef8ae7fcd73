"""``byok audit reconcile``: the customer's CloudTrail beside our log of requests."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from byok.cli.audit import parse_since
from byok.cli.output import (
    AsJson,
    TenantName,
    console,
    error_console,
    parse_duration,
    print_json,
    show_foreign,
    show_time,
    table,
)
from byok.cli.services import open_runtime
from byok.cli.trail_files import TrailFiles
from byok.core.arns import RoleArn
from byok.core.cloudtrail import TrailCall
from byok.core.reconciliation import Reconciliation, Span
from byok.core.request_log import LoggedRequest
from byok.errors import InvalidInput

_SHOWN = 20  # rows of a table; --json has a thousand


class Outcome(IntEnum):
    """The exit code."""

    AGREE = 0
    STRANGERS = 20  # AWS saw calls that we did not log
    MISSING = 21  # we logged calls that AWS did not see
    BOTH = 22
    INCOMPLETE = 23  # no difference, but not all could be compared


def reconcile(
    tenant: TenantName,
    cloudtrail: Annotated[
        list[Path],
        typer.Option(
            "--cloudtrail", metavar="FILE", help="A file of CloudTrail's, or a folder of them; repeatable."
        ),
    ],
    more: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE", help="More files, as a shell makes of *.gz."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="The files are complete from 2026-11-01T00:00Z on."),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="The files are complete up to then.")
    ] = None,
    delivery_delay: Annotated[
        str,
        typer.Option(
            metavar="DURATION",
            help="How late CloudTrail may deliver: without --since and --until, what was logged within so "
            "long of the files' first and last record is not expected in them.",
        ),
    ] = "15m",
    as_json: AsJson = False,
) -> None:
    """Compare the customer's CloudTrail with our own log of every request to KMS and STS.

    Exit code: 0 both agree; 20 AWS saw calls that we did not log; 21 we logged calls that AWS did not see; 22
    both; 23 no difference, but files are broken, older than our log, or span too little.
    """
    files = TrailFiles.find([*cloudtrail, *(more or ())])
    delay = parse_duration(delivery_delay)
    with open_runtime() as runtime, _bar(len(files.paths)) as on_file:
        begin, end = _span(since, until, runtime.store.now())
        role = runtime.settings.vendor_role_arn
        found = runtime.services.reconciler.compare(
            tenant,
            files.records(on_file),
            vendor_account=None if role is None else RoleArn.parse(role).account,
            delay=delay,
            since=begin,
            until=end,
        )
    outcome = _outcome(found, files)
    if as_json:
        print_json(_json(tenant, found, files, outcome))
    else:
        _print(tenant, found, files, outcome)
    if outcome is not Outcome.AGREE:
        raise typer.Exit(outcome)


def _span(since: str | None, until: str | None, now: datetime) -> tuple[datetime | None, datetime | None]:
    """From when to when the files are said to be complete.

    Raises:
        InvalidInput.
    """
    begin, end = (None if text is None else parse_since(text, now) for text in (since, until))
    if begin is not None and end is not None and begin >= end:
        raise InvalidInput("--since is not before --until", remedy="write 2026-11-01T00:00Z")
    return begin, end


def _outcome(found: Reconciliation, files: TrailFiles) -> Outcome:
    match found.stranger_count > 0, found.missing_count > 0:
        case True, True:
            return Outcome.BOTH
        case True, False:
            return Outcome.STRANGERS
        case False, True:
            return Outcome.MISSING
        case _:
            is_whole = found.is_covered and not files.broken and not found.too_old
            return Outcome.AGREE if is_whole else Outcome.INCOMPLETE


@contextmanager
def _bar(total: int) -> Iterator[Callable[[], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=error_console, transient=True) as progress:
        task = progress.add_task("files", total=total)
        yield lambda: progress.advance(task)


# --- for people -----------------------------------------------------------------------------------


def _print(tenant: str, found: Reconciliation, files: TrailFiles, outcome: Outcome) -> None:
    rows = [
        (
            show_foreign(f"{account} {region}"),
            _show_span(seen),
            "too short" if complete is None else _show_span(complete),
        )
        for (account, region), (seen, complete) in found.coverage.items()
    ]
    title = f"CloudTrail of {tenant}, {found.records:,} records"
    console.print(table(title, ("account", "records", "taken for complete"), rows))
    console.print(table("compared", ("requests", "number"), _counts(found)))
    if found.stranger_count:
        title = _title("AWS saw, and we did not log", found.stranger_count)
        _print_lines(title, map(_stranger_lines, found.strangers[:_SHOWN]))
    if found.missing_count:
        title = _title("we logged, and AWS did not see", found.missing_count)
        _print_lines(title, map(_missing_lines, found.missing[:_SHOWN]))
    if files.broken:
        unread = [(f"{one.path}: {one.why}",) for one in files.broken[:_SHOWN]]
        _print_lines(_title("not compared", len(files.broken)), unread)
    console.print(_VERDICTS[outcome])


_VERDICTS = {
    Outcome.AGREE: "[green]both sides agree[/]",
    Outcome.STRANGERS: "[bold red]AWS saw calls that byok did not log[/]: see docs/reconcile.md",
    Outcome.MISSING: "[bold red]the files lack calls that AWS answered[/]: see docs/reconcile.md",
    Outcome.BOTH: "[bold red]both sides have calls that the other lacks[/]: see docs/reconcile.md",
    Outcome.INCOMPLETE: "[yellow]no difference, but not everything could be compared[/]",
}


def _show_span(span: Span) -> str:
    return f"{show_time(span.since)} to {show_time(span.until)}"


def _title(text: str, number: int) -> str:
    return f"{text}: {number:,}" + (f", the first {_SHOWN}" if number > _SHOWN else "")


def _counts(found: Reconciliation) -> list[tuple[str, str]]:
    told = [
        ("logged by us", found.logged),
        ("agree by AWS's request id", found.agreed),
        ("agree by our id, the answer never came", found.agreed_by_mark),
        ("logged for a tenant with the same role or KMS key", found.neighbours),
        ("without an answer, unknown to AWS too", found.unanswered),
        ("need not be in these files", found.not_expected),
        ("AWS saw, and we did not log", found.stranger_count),
        ("we logged, and AWS did not see", found.missing_count),
        ("records that came twice", found.repeated),
        ("other use of the KMS key", found.administration),
        ("from before our log begins", found.too_old),
    ]
    return [(name, f"{number:,}") for name, number in told]


def _print_lines(title: str, items: Iterable[Sequence[str]]) -> None:
    """In lines instead of columns, so that ids and names stay whole: they are looked for in files."""
    console.print(title, style="bold")
    for first, *others in items:
        console.print(show_foreign(first), soft_wrap=True)
        for line in others:
            console.print(f"  {show_foreign(line)}", soft_wrap=True)


def _stranger_lines(call: TrailCall) -> tuple[str, ...]:
    said = f"{call.service} {call.operation}" + (f" ({call.code})" if call.code else "")
    return (
        f"{show_time(call.at)}  {said}, {call.concern.value}",
        f"by       {call.principal}",
        f"from     {call.source_ip} {call.user_agent[:60]}",
        f"request  {call.call_id}",
    )


def _missing_lines(request: LoggedRequest) -> tuple[str, ...]:
    said = request.operation + (f" ({request.code})" if request.code else "")
    return (
        f"{show_time(request.began_at)}  {said}",
        f"on       {request.subject}",
        f"request  {request.request_id}",
    )


# --- for machines ---------------------------------------------------------------------------------


def _json(tenant: str, found: Reconciliation, files: TrailFiles, outcome: Outcome) -> dict[str, Any]:
    return {
        "tenant": tenant,
        "outcome": outcome.name.lower(),
        "covered": [
            {
                "account": account,
                "region": region,
                "since": seen.since,
                "until": seen.until,
                "complete_since": complete and complete.since,
                "complete_until": complete and complete.until,
            }
            for (account, region), (seen, complete) in found.coverage.items()
        ],
        "records": found.records,
        "repeated": found.repeated,
        "administration": found.administration,
        "too_old": found.too_old,
        "logged": found.logged,
        "agreed": found.agreed,
        "agreed_by_mark": found.agreed_by_mark,
        "neighbours": found.neighbours,
        "unanswered": found.unanswered,
        "not_expected": found.not_expected,
        "strangers": found.stranger_count,
        "missing": found.missing_count,
        "first_strangers": [_call_json(call) for call in found.strangers],
        "first_missing": [_request_json(request) for request in found.missing],
        "broken_files": [{"file": str(one.path), "why": one.why} for one in files.broken],
    }


def _call_json(call: TrailCall) -> dict[str, Any]:
    return {
        "at": call.at,
        "service": call.service,
        "operation": call.operation,
        "region": call.region,
        "principal": call.principal,
        "source_ip": call.source_ip,
        "user_agent": call.user_agent,
        "error": call.code or None,
        "concern": call.concern,
        "request_id": call.call_id,
    }


def _request_json(request: LoggedRequest) -> dict[str, Any]:
    return {
        "at": request.began_at,
        "operation": request.operation,
        "subject": request.subject,
        "region": request.region,
        "error": request.code or None,
        "request_id": request.request_id,
        "id": request.id,
    }
