"""``byok tenant suspend``, ``resume`` and ``drill``: the kill switch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from byok.cli.output import (
    AsJson,
    TenantName,
    actor,
    console,
    error_console,
    milliseconds,
    parse_duration,
    print_json,
    show_duration,
    show_state,
    show_time,
    table,
    write_json,
)
from byok.cli.services import open_runtime, open_services
from byok.core.stops import RevocationBound, StopReport
from byok.errors import ValidationFailed

if TYPE_CHECKING:
    from byok.services.kill_switch import Drill

Patience = Annotated[
    str, typer.Option("--wait", metavar="DURATION", help="How long to wait for processes to answer.")
]
_COLUMNS = (TextColumn("processes that stopped"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())


def suspend(
    tenant: TenantName,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why; errors and the audit log show it.")
    ] = "locked by the vendor",
    wait: Patience = "15s",
    as_json: AsJson = False,
) -> None:
    """Stop a tenant now: no process encrypts or decrypts for it until somebody says resume."""
    patience = parse_duration(wait)  # before anything is stopped: the exit code says what happened
    with open_services() as services:
        found, report = services.kill_switch.suspend(tenant, reason, actor=actor())
        with stop_progress() as seen:
            report = services.kill_switch.wait_for(report, patience, seen)
    if as_json:
        print_json({"tenant": tenant, "state": found.state, "stop": stop_json(report)})
        return
    console.print(f"tenant [bold]{tenant}[/] is {show_state(found.state)}: {reason}")
    console.print(show_stop(report), soft_wrap=True)


def resume(tenant: TenantName, as_json: AsJson = False) -> None:
    """Let a suspended tenant go on, once its access is proven: new session, Decrypt, fingerprint."""
    with open_services() as services, console.status("asking AWS …"):
        found = services.kill_switch.resume(tenant, actor=actor())
    if as_json:
        print_json({"tenant": tenant, "state": found.state})
        return
    console.print(f"tenant [bold]{tenant}[/] is {show_state(found.state)}: its access was proven")


def drill(
    tenant: TenantName,
    report_file: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE", help="Where to write the signed report.", dir_okay=False),
    ] = None,
    wait: Patience = "30s",
    as_json: AsJson = False,
) -> None:
    """Exercise the kill switch: stop a tenant in our fleet, measure every process, let it go on.

    For that moment the tenant's calls are refused. Nothing is changed at AWS. The signed report is for the
    customer: byok report verify checks it.
    """
    from byok.crypto.reports import sign_report

    patience = parse_duration(wait)
    with open_runtime() as runtime:
        with stop_progress() as seen:
            done = runtime.services.kill_switch.drill(tenant, actor=actor(), patience=patience, seen=seen)
        signed = sign_report(runtime.master_keys, "drill", _drill_json(done))
    file = report_file or Path(f"byok-drill-{tenant}-{done.resumed_at:%Y%m%dT%H%M%SZ}.json")
    write_json(file, signed)
    if as_json:
        print_json(signed)
    else:
        console.print(_drill_table(done))
        console.print(show_stop(done.report), soft_wrap=True)
        console.print(f"signed report: {file}", soft_wrap=True)
    if not done.passed:
        raise ValidationFailed(
            f"the drill of tenant {tenant!r} failed: {_why_failed(done)}",
            remedy="processes that don't answer are dead, frozen or cut off: look at their hosts",
        )


@contextmanager
def stop_progress() -> Iterator[Callable[[StopReport], None]]:
    """A bar of the processes that obeyed; what it yields is to be called with each report."""
    with Progress(*_COLUMNS, console=error_console, transient=True) as progress:
        bar = progress.add_task("", total=None)

        def seen(report: StopReport) -> None:
            progress.update(bar, total=len(report.acknowledgements), completed=report.answered)

        yield seen


def show_stop(report: StopReport) -> str:
    """A stop in a line: how many processes obeyed, and how fast."""
    known = len(report.acknowledgements)
    if not known:
        return "no process held leases when it stopped"
    line = f"{report.answered} of {known} processes dropped it in {milliseconds(report.latency)} ms"
    if report.silent:
        line += f"; not answered: {', '.join(report.silent)}: its leases end by their deadline"
    return line


def show_bound(bound: RevocationBound) -> str:
    """A bound in a line."""
    pushed, polled = show_duration(bound.pushed), show_duration(bound.polled)
    return (
        f"{pushed} after AWS refuses, {polled} without push, {show_duration(bound.unprobed)} without probes"
    )


def stop_json(report: StopReport) -> dict[str, Any]:
    """A stop for machines; also what a signed report says of it."""
    stop = report.stop
    return {
        "stop": str(stop.id),
        "kind": stop.kind.value,
        "noticed_at": _time(stop.noticed_at),
        "committed_at": _time(stop.committed_at),
        "latency_ms": milliseconds(report.latency),
        "processes": [
            {
                "process": one.member,
                "dropped_at": one.dropped_at and _time(one.dropped_at),
                "latency_ms": one.dropped_at and milliseconds(one.dropped_at - stop.noticed_at),
                "leases": one.leases,
            }
            for one in report.acknowledgements
        ],
    }


def bound_json(bound: RevocationBound) -> dict[str, float]:
    """A bound for machines."""
    return {
        "pushed_seconds": bound.pushed.total_seconds(),
        "polled_seconds": bound.polled.total_seconds(),
        "unprobed_seconds": bound.unprobed.total_seconds(),
        "told_seconds": bound.told.total_seconds(),
    }


def _drill_json(drill: "Drill") -> dict[str, Any]:
    return {
        "tenant": drill.tenant.name,
        "tenant_id": str(drill.tenant.id),
        "conductor": drill.conductor,
        "passed": drill.passed,
        "resumed_at": _time(drill.resumed_at),
        # Whole numbers alone, as sign_report demands.
        "bound": {
            "pushed_ms": milliseconds(drill.bound.pushed),
            "polled_ms": milliseconds(drill.bound.polled),
            "unprobed_ms": milliseconds(drill.bound.unprobed),
            "told_ms": milliseconds(drill.bound.told),
        },
        **stop_json(drill.report),
    }


def _drill_table(drill: "Drill") -> Any:  # noqa: ANN401  # Rich's Table, which takes long to import
    rows = [
        (
            one.member,
            "[red]not answered[/]" if one.dropped_at is None else show_time(one.dropped_at),
            "–"
            if one.dropped_at is None
            else str(milliseconds(one.dropped_at - drill.report.stop.noticed_at)),
            "–" if one.leases is None else str(one.leases),
        )
        for one in drill.report.acknowledgements
    ]
    return table(f"drill of {drill.tenant.name}", ("process", "stopped", "ms", "leases"), rows)


def _why_failed(drill: "Drill") -> str:
    if drill.report.silent:
        return f"not answered: {', '.join(drill.report.silent)}"
    return f"{milliseconds(drill.report.latency)} ms are more than {show_duration(drill.bound.told)}"


def _time(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds")
