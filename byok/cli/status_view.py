"""How ``byok status`` looks: made for 80 columns, and for whoever is looked for by a pager."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from byok.cli.output import milliseconds, show_age, show_state, show_time
from byok.core.counts import Count
from byok.core.jobs import JobState
from byok.core.model import OpenWork, RotationState, Tenant
from byok.core.remedies import after_failure, while_stuck, while_suspended
from byok.services.overview import SHOWN

if TYPE_CHECKING:
    from byok.services.overview import Overview
    from byok.services.status import Status

_ENDED = (RotationState.DONE, RotationState.FAILED)
_WELL_KNOWN = timedelta(seconds=1)  # a server that is away for less has just been asked for the first time


def show_status(status: "Status") -> RenderableType:
    """The verdict, how things stand, and each trouble with what to do."""
    rows = [*_servers(status), *_broker(status)]
    if status.overview is not None:
        rows = [*_fleet(status.overview), *rows]
    facts = _grid()
    for label, text in rows:
        facts.add_row(label, text)
    parts: list[RenderableType] = [_verdict(status), Text(), facts]
    if status.overview is not None:
        for trouble in _troubles(status.overview):
            parts += [Text(), trouble]
    return Group(*parts)


def _verdict(status: "Status") -> str:
    if not status.concerns:
        return "[bold]byok:[/] [bold green]ok[/]"
    told = escape(", ".join(one.text for one in status.concerns))
    return f"[bold]byok:[/] [bold red]needs attention:[/] {told}"


def _grid() -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold cyan", no_wrap=True, min_width=9)
    grid.add_column(overflow="fold")
    return grid


def _fleet(overview: "Overview") -> Iterator[tuple[str, str]]:
    tenants = (f"{count} {show_state(state)}" for state, count in overview.tenants.items())
    yield "tenants", ", ".join(tenants) or "none"
    yield "keys", f"{overview.keys}, {_show_overdue(overview)}"
    yield "rotations", _show_rotations(overview.rotations)
    yield "ticks", _show_jobs(overview.jobs)
    members = (f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in overview.members.items())
    yield "leases", f"held by {', '.join(members) or 'nobody'}"
    findings = (f"{count} {severity}" for severity, count in overview.findings.items())
    yield "watch", f"{told}: byok findings" if (told := ", ".join(findings)) else "nothing found"
    stops = (f"{escape(name)} {milliseconds(took)} ms" for name, took in overview.worst_stops)
    yield "stops", f"slowest: {', '.join(stops)}" if overview.worst_stops else "none within 90 days"


def _show_overdue(overview: "Overview") -> str:
    if overview.oldest_overdue is None:
        return f"{overview.overdue} overdue"
    return f"{overview.overdue} overdue, the oldest for {show_age(overview.oldest_overdue)}"


def _show_rotations(rotations: Mapping[RotationState, Count]) -> str:
    """Those that have ended are of the last day, and say so."""

    def show(wanted: Sequence[RotationState]) -> str:
        return ", ".join(
            f"{count} {show_state(state)}" for state, count in rotations.items() if state in wanted
        )

    under_way = show([state for state in RotationState if state not in _ENDED]) or "none under way"
    return f"{under_way}; within a day: {show(_ENDED) or 'none'}"


def _show_jobs(states: Sequence[JobState]) -> str:
    if all(state.age is None for state in states):
        return "[bold red]none ever[/]: start a Beat"
    return ", ".join(_show_job(state) for state in states)


def _show_job(state: JobState) -> str:
    if state.age is None:
        return f"{state.job} [bold red]never[/]"
    if state.is_late:
        return f"{state.job} [bold red]late[/]: {show_age(state.age)} ago, due every {show_age(state.period)}"
    return f"{state.job} {show_age(state.age)} ago"


def _broker(status: "Status") -> Iterator[tuple[str, str]]:
    if status.queues is not None:
        yield "queues", ", ".join(f"{name} {depth}" for name, depth in status.queues.items())
    if status.workers is not None:
        yield "workers", escape(", ".join(status.workers)) or "[bold red]none answers[/]"


def _servers(status: "Status") -> Iterator[tuple[str, str]]:
    away = {one.server: one for one in status.unreachable}
    fine = [server for server in ("postgresql", "broker", "cache") if server not in away]
    if fine:
        yield "servers", f"{', '.join(fine)} [green]answer{'s' if len(fine) == 1 else ''}[/]"
    for one in away.values():
        lasting = f" for {show_age(one.lasting)}" if one.lasting >= _WELL_KNOWN else ""
        yield one.server, f"[bold red]unreachable[/]{lasting}: {escape(one.why)}"


def _troubles(overview: "Overview") -> Iterator[RenderableType]:
    for tenant in overview.suspended:
        yield _suspended(tenant, overview.at)
    if len(overview.suspended) == SHOWN:
        yield "the latest; all: byok tenant list"
    for work in overview.failed:
        retry = f"then byok rotation retry {work.rotation.id}"
        ended = f"ended {show_time(work.rotation.finished_at)}"
        yield _work("failed", work, ended, after_failure(work), retry)
    if len(overview.failed) == SHOWN:
        yield "the latest; more: byok rotation list --failed --limit 1000"
    for work in overview.stuck:
        age = show_age(overview.at - work.rotation.requested_at)
        course = f"{work.rotation.state}, asked for {age} ago, {work.rotation.tries} tries"
        yield _work("stuck", work, course, while_stuck(work), f"byok rotation show {work.rotation.id}")


def _suspended(tenant: Tenant, now: datetime) -> Table:
    assert tenant.suspension is not None
    stopped = tenant.suspension
    evidence = "by hand"
    if stopped.aws_code:
        evidence = f"AWS: {stopped.aws_code}, request {stopped.request_id or '–'}"
    since = f"since {show_time(stopped.since)} ({show_age(now - stopped.since)})"
    return _trouble(
        "suspended",
        f"[bold]{escape(tenant.name)}[/] {since}",
        [escape(stopped.reason), escape(evidence)],
        [while_suspended(tenant), f"byok tenant show {tenant.name}"],
    )


def _work(label: str, work: OpenWork, course: str, *todo: str) -> Table:
    name = f"[bold]{escape(work.tenant)}/{escape(work.key)}[/] {course}"
    why = [] if work.rotation.failure is None else [escape(work.rotation.failure)]
    return _trouble(label, name, why, todo)


def _trouble(label: str, headline: str, evidence: Sequence[str], todo: Sequence[str]) -> Table:
    grid = _grid()
    grid.add_row(f"[bold red]{label}[/]", headline)
    for line in evidence:
        grid.add_row("", line)
    for line in todo:
        grid.add_row("", f"[yellow]→[/] {escape(line)}")
    return grid
