"""Writes settings.md and cli.md, and what is generated of other pages: ``python docs/generate.py``."""

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from byok.cli.main import app
from byok.cli.output import show_duration
from byok.cli.plan import LADDER, pace_of, show_bytes, show_count, show_share, show_usd
from byok.core.capacity import Fleet, Plan, plan
from byok.core.footprint import CPU_MS, KMS_REQUESTS, STORED, STORED_BY_TENANT, Stored
from byok.core.lifecycle import (
    ROTATION_LIFECYCLE,
    TENANT_LIFECYCLE,
    VERSION_LIFECYCLE,
    StateMachine,
)
from byok.core.lookout import KINDS, SEVERITY_BY_TIME_LEFT, Severity
from byok.core.metric_list import METRICS, Origin
from byok.core.moves import MOVE_LIFECYCLE
from byok.settings import FlowerSettings, Settings, StackSettings

DOCS = Path(__file__).parent


def settings_page() -> str:
    """Every setting: variable, default, meaning."""
    lines = [
        "# Settings",
        "",
        "All from environment variables, read once at the start. An empty variable counts as unset. A wrong",
        "value stops the start with one line that names the variable and never its value.",
        "",
        "| variable | default | meaning |",
        "|---|---|---|",
        *_rows(Settings),
        *_rows(StackSettings),
        *_rows(FlowerSettings),
        "",
        "The workers' AWS identity comes from where boto3 finds it: the role of the machine, or `AWS_*`.",
        "`PROMETHEUS_MULTIPROC_DIR` lets forked processes count together:",
        "[metrics](metrics.md#several-processes).",
        "`byok flower` needs no more than `BYOK_BROKER_URL` and what is about Flower.",
        "",
        "*Written by `docs/generate.py`.*",
    ]
    return "\n".join(lines) + "\n"


def _rows(model: type[Settings | StackSettings | FlowerSettings]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        if field.description is None:  # said before, of another command
            continue
        variable = field.validation_alias or f"BYOK_{name.upper()}"
        yield f"| `{variable}` | {_default(field)} | {field.description} |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required" + (", secret" if field.annotation is SecretStr else "")
    return "–" if field.default is None else f"`{field.default}`"


def cli_page() -> str:
    """Every command with its help."""
    lines = ["# Command line", "", "Exit codes: 0 done, 2 wrong input, 3 not found, 4 conflict, 5 access is"]
    lines += [
        "stopped, 6 something can't be reached, 7 integrity, 8 validation failed, 9 AWS refuses for good,"
    ]
    lines += [
        "10 gave up, or a campaign failed,",
        "78 a setting is wrong, 130 interrupted. An error is one line: what is wrong, its stable code in",
    ]
    lines += ["brackets, and what to do; with `--json` the same as an object on standard error.", ""]
    command = typer.main.get_command(app)
    lines += _commands(command, "byok")
    lines += ["*Written by `docs/generate.py`.*"]
    return "\n".join(lines) + "\n"


def _commands(command: click.Command, name: str) -> Iterator[str]:
    children: dict[str, click.Command] = getattr(command, "commands", {})
    for child_name, child in sorted(children.items()):
        if getattr(child, "commands", None):
            yield from _commands(child, f"{name} {child_name}")
        else:
            yield from _command(child, f"{name} {child_name}")


def _command(command: click.Command, name: str) -> Iterator[str]:
    context = click.Context(command, info_name=name)
    usage = [piece for piece in command.collect_usage_pieces(context) if piece != "[OPTIONS]"]
    yield f"## `{' '.join([name, *usage])}`".replace("{", "").replace("}", "")
    yield ""
    yield _plain(command.help or "")
    yield ""
    options = [one for one in command.params if one.param_type_name == "option" and one.name != "help"]
    for option in options:
        text = _plain(getattr(option, "help", None) or "")
        default = f" Default: `{option.default}`." if isinstance(option.default, str) else ""
        yield f"- `{', '.join(option.opts)}` {text}{default}"
    if options:
        yield ""
    if command.epilog:
        yield f"{_plain(command.epilog)}"
        yield ""


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("[bold]", "`").replace("[/]", "`")


_PROCESSES_BY_KEYS = {10**4: 8, 10**5: 40, 10**6: 200, 10**7: 1000}
_Rows = Mapping[str, Callable[[Plan], str]]


def capacity_page(page: str) -> str:
    """The page with its tables written anew, each after a line ``<!-- NAME -->``."""
    sizes = [_plan(keys, keys, processes) for keys, processes in _PROCESSES_BY_KEYS.items()]
    few_tenants = [_plan(keys, keys // 100, processes) for keys, processes in _PROCESSES_BY_KEYS.items()]
    ttls = [_plan(10**5, 1000, 40, ttl=ttl) for ttl in LADDER[1:]]
    intervals = [timedelta(minutes=minutes) for minutes in (5, 15, 30, 60)]
    probes = [_plan(10**6, 10**6, 200, ttl=timedelta(hours=4), probe=interval) for interval in intervals]
    tables = {
        "acts": _acts_table(),
        "sizes": _plans_table("keys", lambda one: show_count(one.fleet.keys), _OF_SIZES, sizes),
        "few-tenants": _plans_table("keys", lambda one: show_count(one.fleet.keys), _OF_SIZES, few_tenants),
        "ttls": _plans_table("TTL", lambda one: show_duration(one.lease_ttl), _OF_TTLS, ttls),
        "probes": _plans_table(
            "probed every", lambda one: show_duration(one.probe_period), _OF_PROBES, probes
        ),
        "stored": _stored_table(),
    }
    for name, lines in tables.items():
        page = _with_table(page, f"<!-- {name} -->\n", "\n".join(lines) + "\n")
    return page


def concepts_page(page: str) -> str:
    """The page with its state diagrams written anew, each after a line ``<!-- NAME -->``."""
    for machine in (TENANT_LIFECYCLE, VERSION_LIFECYCLE, ROTATION_LIFECYCLE):
        page = _with_diagram(page, machine)
    return page


def _with_diagram(page: str, machine: StateMachine[Any, Any]) -> str:
    mark = f"<!-- {machine.what}-states -->\n"
    diagram = "\n".join(_diagram(machine)) + "\n"
    return re.sub(f"{mark}(?:```mermaid\n[^`]*```\n)?", mark + diagram, page)


def migration_page(page: str) -> str:
    """The page with its state diagram written anew."""
    return _with_diagram(page, MOVE_LIFECYCLE)


def _diagram(machine: StateMachine[Any, Any]) -> Iterator[str]:
    """A state machine as Mermaid draws it. The first state is where the first step begins."""
    yield from ("```mermaid", "stateDiagram-v2", "  direction LR")
    yield f"  [*] --> {next(iter(machine.transitions))[0]}"
    for (state, event), following in machine.transitions.items():
        yield f"  {state} --> {following}: {event}"
    leaving = {state for state, _ in machine.transitions}
    ends = dict.fromkeys(state for state in machine.transitions.values() if state not in leaving)
    yield from (f"  {state} --> [*]" for state in ends)
    yield "```"


def metrics_page(page: str) -> str:
    """The page with its tables written anew, one for each origin."""
    for origin in Origin:
        rows = [
            [
                f"`{one.exposed_name}`",
                one.kind.value,
                ", ".join(f"`{label}`" for label in one.labels),
                one.help,
            ]
            for one in METRICS
            if one.origin is origin
        ]
        table = "\n".join(_markdown(["metric", "kind", "labels", "meaning"], rows))
        page = _with_table(page, f"<!-- {origin.value} -->\n", f"{table}\n")
    return page


def _with_table(page: str, mark: str, table: str) -> str:
    return re.sub(f"{mark}(?:\\|.*\n)*", lambda _: mark + table, page)


def _plan(
    keys: int,
    tenants: int,
    processes: int,
    *,
    ttl: timedelta = timedelta(hours=1),
    probe: timedelta = timedelta(minutes=5),
) -> Plan:
    return plan(Fleet(keys, tenants, timedelta(days=30), processes), pace_of(probe), ttl)


def _share(share: float) -> str:
    return show_share(share).replace("[red]", "**").replace("[/]", "**")


_OF_SIZES: _Rows = {
    "tenants": lambda one: f"{one.fleet.tenants:,}",
    "processes of services": lambda one: f"{one.fleet.processes:,}",
    "worker processes, threads in all": lambda one: f"{one.worker_processes:,}, {one.worker_threads:,}",
    "connections to PostgreSQL, at most": lambda one: f"{one.database_connections:,}",
    "Redis, for leases": lambda one: show_bytes(one.redis_bytes),
    "PostgreSQL, at first": lambda one: show_bytes(one.stored_bytes),
    "PostgreSQL, each year": lambda one: (
        f"{show_bytes(one.bytes_a_year)}, {show_count(one.rows_a_year)} rows"
    ),
    "KMS requests a second": lambda one: show_count(one.requests_per_second),
    "KMS requests a month": lambda one: show_count(one.requests_per_month),
    "a customer's bill a month, by role": lambda one: f"{show_usd(one.usd_of_a_customer)} USD",
    "your bill a month, by key policy": lambda one: f"{show_usd(one.usd_of_the_vendor)} USD",
    "your quota of AssumeRole, by role": lambda one: _share(one.sts_quota_share),
    "your quota of KMS, by key policy": lambda one: _share(one.vendor_quota_share),
}
_OF_TTLS: _Rows = {
    "probed every": lambda one: show_duration(one.probe_period),
    "stopped within, with push": lambda one: show_duration(one.bound.pushed),
    "without push": lambda one: show_duration(one.bound.polled),
    "a process cut off, or no probes": lambda one: show_duration(one.bound.unprobed),
    "KMS requests a month": lambda one: show_count(one.requests_per_month),
    "a customer's bill a month": lambda one: f"{show_usd(one.usd_of_a_customer)} USD",
    "Redis": lambda one: show_bytes(one.redis_bytes),
}
_OF_PROBES: _Rows = {
    "AssumeRole a second": lambda one: show_count(one.sessions_per_second),
    "of the quota": lambda one: _share(one.sts_quota_share),
    "stopped within, with push": lambda one: show_duration(one.bound.pushed),
    "worker processes": lambda one: f"{one.worker_processes:,}",
    "KMS requests a month": lambda one: show_count(one.requests_per_month),
}


def _plans_table(
    corner: str, heading: Callable[[Plan], str], rows: _Rows, plans: Sequence[Plan]
) -> list[str]:
    cells = [[name, *(show(one) for one in plans)] for name, show in rows.items()]
    return _markdown([corner, *(heading(one) for one in plans)], cells)


def _acts_table() -> list[str]:
    rows = []
    for act, requests in KMS_REQUESTS.items():
        told = ", ".join(f"{count} {operation}" for operation, count in requests.items())
        cpu = f"{CPU_MS[act]:g} ms" if act in CPU_MS else "–"
        rows.append([act.value, str(sum(requests.values())), told, cpu])
    return _markdown(["act", "requests", "of them", "CPU"], rows)


def _stored_table() -> list[str]:
    stored = {"a tenant": STORED_BY_TENANT, **{act.value: tables for act, tables in STORED.items()}}
    tables = sorted({table for one in stored.values() for table in one})
    rows = [[f"`{table}`", *(_rows_and_bytes(one.get(table)) for one in stored.values())] for table in tables]
    return _markdown(["table", *stored], rows)


def _rows_and_bytes(stored: Stored | None) -> str:
    return "" if stored is None else f"{stored.rows:g} × {stored.bytes / stored.rows:,.0f}"


def _markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [headings, ["---"] * len(headings), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


_SEVERITIES = {
    Severity.NOTE: "worth knowing; nobody has to do anything",
    Severity.WARNING: "to be put right within days",
    Severity.URGENT: "access or data will be lost, or stands open to others",
    Severity.CRITICAL: "today",
}


def watch_page(page: str) -> str:
    """The page with its tables written anew."""
    names = {name: name.upper() for name in ("tenant", "tenant_id", "region", "key_id")}
    kinds = [
        [f"`{kind}`", text.meaning, text.severity, text.side, text.remedy.format(**names)]
        for kind, text in KINDS.items()
    ]
    steps = [[f"{most.days} day{'s' * (most.days > 1)}", f"`{one}`"] for most, one in SEVERITY_BY_TIME_LEFT]
    tables = {
        "kinds": _markdown(["kind", "what it means", "severity", "who is asked", "to do"], kinds),
        "severities": _markdown(
            ["severity", "meaning"], [[f"`{one}`", told] for one, told in _SEVERITIES.items()]
        ),
        "deadlines": _markdown(
            ["left, at most", "severity"], [*reversed(steps), ["more", f"`{Severity.NOTE}`"]]
        ),
    }
    for name, lines in tables.items():
        page = _with_table(page, f"<!-- {name} -->\n", "\n".join(lines) + "\n")
    return page


# Pages by hand with parts that are generated.
FILLED: Mapping[str, Callable[[str], str]] = {
    "capacity.md": capacity_page,
    "concepts.md": concepts_page,
    "metrics.md": metrics_page,
    "migration.md": migration_page,
    "watch.md": watch_page,
}


def main() -> None:
    """Write the pages."""
    pages = {"settings.md": settings_page(), "cli.md": cli_page()}
    for name, fill in FILLED.items():
        pages[name] = fill((DOCS / name).read_text())
    for name, page in pages.items():
        (DOCS / name).write_text(page)
        sys.stdout.write(f"wrote docs/{name}\n")


if __name__ == "__main__":
    main()
