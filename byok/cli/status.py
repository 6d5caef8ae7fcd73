"""``byok status``: the fleet at a glance, once or again and again."""

import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.live import Live
from rich.text import Text

from byok.cli.output import AsJson, console, print_json, to_json
from byok.cli.services import open_runtime
from byok.cli.status_view import show_status
from byok.core.counts import Count, Precision
from byok.core.jobs import JobState
from byok.core.model import OpenWork, Tenant
from byok.errors import InvalidInput

if TYPE_CHECKING:
    from byok.services.overview import Overview
    from byok.services.status import Status, StatusReader

_NEEDS_ATTENTION = 1  # exit code of --check


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Go on until Ctrl-C.")] = False,
    every: Annotated[
        float, typer.Option("--every", min=0.5, max=3600, metavar="SECONDS", help="How often, with --watch.")
    ] = 2.0,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 1 when something needs attention.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """The fleet at a glance: what needs attention, and what to do about it.

    With --watch --json, a line of JSON each time.
    """
    if watch and check:
        raise InvalidInput("--check tells once, --watch has no end", remedy="use one of the two")
    from byok.services.status import StatusReader

    with open_runtime() as runtime:
        reader = StatusReader(runtime.services.observer, runtime.queue, runtime.cache, runtime.store)
        if watch:
            _watch(reader, every, as_json=as_json)
            return
        seen = reader.read()
    if as_json:
        print_json(status_json(seen))
    else:
        console.print(show_status(seen))
    if check and seen.concerns:
        raise typer.Exit(_NEEDS_ATTENTION)


def _watch(reader: "StatusReader", every_seconds: float, *, as_json: bool) -> None:
    """Until Ctrl-C, which is the end that is meant."""
    try:
        if as_json:
            while True:
                # One line each, at once: whoever reads is a program.
                print(json.dumps(status_json(reader.read()), default=to_json), flush=True)  # noqa: T201  # standard output is the point
                time.sleep(every_seconds)
        # On a screen of its own: what is longer than the terminal would be drawn below, again and again.
        with Live(Text("looking …"), console=console, screen=console.is_terminal, auto_refresh=False) as live:
            while True:
                live.update(show_status(reader.read()), refresh=True)
                time.sleep(every_seconds)
    except KeyboardInterrupt:
        pass


def status_json(status: "Status") -> dict[str, Any]:
    """The status for machines, as docs/health.md tells it. What could not be seen is null."""
    return {
        "ok": not status.concerns,
        "concerns": [{"code": one.code, "text": one.text} for one in status.concerns],
        "unreachable": {
            one.server: {"error": one.why, "for_seconds": round(one.lasting.total_seconds(), 1)}
            for one in status.unreachable
        },
        "queues": status.queues,
        "workers": status.workers,
        **(_nothing_seen() if status.overview is None else _overview_json(status.overview)),
    }


def _nothing_seen() -> dict[str, Any]:
    names = ("at", "tenants", "keys", "overdue", "oldest_overdue_seconds", "rotations", "inexact")
    lists = ("suspended", "failed", "stuck", "jobs", "members", "worst_stop_seconds", "findings")
    return dict.fromkeys((*names, *lists))


def _overview_json(overview: "Overview") -> dict[str, Any]:
    return {
        "at": overview.at,
        **_numbers(overview),
        "suspended": [_tenant_json(tenant) for tenant in overview.suspended],
        "failed": [_work_json(work) for work in overview.failed],
        "stuck": [_work_json(work) for work in overview.stuck],
        "jobs": {one.job.value: _job_json(one) for one in overview.jobs},
        "members": overview.members,
        "worst_stop_seconds": dict(overview.worst_stops),
        "findings": {severity: count.number for severity, count in overview.findings.items()},
    }


def _numbers(overview: "Overview") -> dict[str, Any]:
    """The counts as numbers; ``inexact`` names those that are estimates, or lower bounds."""
    counts: dict[str, Count] = {
        **{f"tenants.{state}": count for state, count in overview.tenants.items()},
        **{f"rotations.{state}": count for state, count in overview.rotations.items()},
        "keys": overview.keys,
        "overdue": overview.overdue,
        **{f"findings.{severity}": count for severity, count in overview.findings.items()},
    }
    return {
        "tenants": {state: count.number for state, count in overview.tenants.items()},
        "keys": overview.keys.number,
        "overdue": overview.overdue.number,
        "oldest_overdue_seconds": overview.oldest_overdue,
        "rotations": {state: count.number for state, count in overview.rotations.items()},
        "inexact": {
            name: count.precision for name, count in counts.items() if count.precision is not Precision.EXACT
        },
    }


def _tenant_json(tenant: Tenant) -> dict[str, Any]:
    stopped = tenant.suspension
    assert stopped is not None
    return {
        "tenant": tenant.name,
        "kind": stopped.kind,
        "reason": stopped.reason,
        "since": stopped.since,
        "aws_code": stopped.aws_code or None,
        "request_id": stopped.request_id or None,
    }


def _work_json(work: OpenWork) -> dict[str, Any]:
    rotation = work.rotation
    return {
        "rotation": rotation.id,
        "tenant": work.tenant,
        "key": work.key,
        "state": rotation.state,
        "requested_at": rotation.requested_at,
        "attempts": rotation.attempts,
        "failure": rotation.failure,
        "finished_at": rotation.finished_at,
    }


def _job_json(state: JobState) -> dict[str, Any]:
    return {
        "began_at": state.began_at,
        "age_seconds": state.age,
        "period_seconds": state.period,
        "late": state.is_late,
    }
