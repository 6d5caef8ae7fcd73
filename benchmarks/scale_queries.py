"""What `benchmarks.scale` asks of the database: by the code's own methods, timed, and then explained."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from byok.core.stops import SHOWN_FOR
from byok.services.fleet_metrics import READERS
from byok.store.postgres import PostgresTransaction

DAY = timedelta(days=1)
_RUNS = 7
_BATCH = 100
_PAGE = 500  # as the dispatcher's


@dataclass(frozen=True, slots=True)
class Sample:
    """Somebody in the middle of the fleet."""

    tenant: str
    tenant_id: UUID
    key_id: UUID
    now: datetime


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one action: median time, pages of 8 KiB that it touched, and the scans of its plans."""

    milliseconds: float
    pages: int
    scans: tuple[str, ...]


Action = Callable[[PostgresTransaction, Sample], object]

ACTIONS: Mapping[str, Action] = {
    "status: tenants by state": lambda tx, _: tx.counts.tenants(),
    "status: keys": lambda tx, _: tx.counts.keys(),
    "status: overdue keys": lambda tx, one: tx.counts.overdue(one.now),
    "status: overdue keys, were all overdue": lambda tx, one: tx.counts.overdue(one.now + 60 * DAY),
    "status: rotations by state": lambda tx, one: tx.counts.rotations(one.now - DAY),
    "status: the same, were all of today": lambda tx, one: tx.counts.rotations(one.now - 60 * DAY),
    "status: failed rotations": lambda tx, _: tx.rotations.list_failed(20),
    "status: suspended tenants": lambda tx, _: tx.tenants.list_suspended(20),
    "status: slowest stops": lambda tx, one: tx.stops.worst_latencies(one.now - SHOWN_FOR, one.now, 3),
    "exporter: since when keys are overdue": lambda tx, one: tx.counts.oldest_overdue(one.now),
    "exporter: the same, were all overdue": lambda tx, one: tx.counts.oldest_overdue(one.now + 60 * DAY),
    "exporter: the oldest open rotation": lambda tx, _: tx.counts.oldest_open_rotation(),
    "exporter: all that it reads": lambda tx, one: [list(read(tx, one.now)) for read in READERS],
    "dispatch: a page of 500 due keys": lambda tx, one: tx.keys.list_due(one.now, None, _PAGE),
    "dispatch: claim of 500 keys": lambda tx, one: _claim_due(tx, one.now),
    "dispatch: rotations in flight": lambda tx, _: tx.rotations.count_in_flight(),
    "claim of 100 validations": lambda tx, one: tx.validations.claim(one.now + DAY / 4, DAY, _BATCH),
    "claim of 50 syncs": lambda tx, one: tx.syncs.claim(one.now + DAY, DAY / 2, 50),
    "validations to draw in": lambda tx, one: tx.validations.draw_in(one.now + DAY, DAY, 5000),
    "probes that are due": lambda tx, one: tx.tenants.lock_due_probes(one.now + DAY, 50),
    "a tenant by name, its keys": lambda tx, one: tx.keys.list(tx.tenants.get(one.tenant).id),
    "a key's active version": lambda tx, one: tx.versions.find_active(one.key_id),
    "a key's rotations": lambda tx, one: tx.rotations.list(one.key_id, 20),
    "rotation list": lambda tx, _: tx.rotations.list_latest(20),
    "an audit event more": lambda tx, one: tx.audit.append(one.tenant_id, one.now, "benchmark", "key.shown"),
    "a page of audit events": lambda tx, one: tx.audit.list_after(one.tenant_id, 0, 2000),
    "a page of audit chains": lambda tx, one: tx.audit.list_chains(one.tenant_id, 20),
    "tenant list": lambda tx, _: tx.tenants.list(),
}


def _claim_due(tx: PostgresTransaction, now: datetime) -> object:
    page = tx.keys.list_due(now, None, _PAGE)
    return tx.keys.lock_due([key.place.key_id for key in page if key.is_free], now)


def pick(engine: sa.Engine) -> Sample:
    """An active tenant in the middle, with a key of its."""
    with engine.connect() as connection:
        row = connection.execute(
            sa.text(
                "SELECT tenants.name, tenants.id AS tenant_id, keys.id, now() FROM tenants JOIN keys ON"
                " tenant_id = tenants.id WHERE state = 'active' AND tenants.id >= (SELECT id FROM tenants"
                " ORDER BY id OFFSET (SELECT count(*) / 2 FROM tenants) LIMIT 1) ORDER BY tenants.id LIMIT 1"
            )
        ).one()
    return Sample(*row)


def measure(engine: sa.Engine) -> dict[str, Cost]:
    """What each action costs now. Nothing is changed: each is rolled back."""
    sample = pick(engine)
    return {name: _cost(engine, action, sample) for name, action in ACTIONS.items()}


def _cost(engine: sa.Engine, action: Action, sample: Sample) -> Cost:
    statements: list[tuple[str, Any]] = []
    with engine.connect() as connection, _noted(connection, statements):
        action(PostgresTransaction(connection), sample)
        connection.rollback()
    times = []
    for _ in range(_RUNS):
        with engine.connect() as connection:
            began = time.perf_counter()
            action(PostgresTransaction(connection), sample)
            times.append((time.perf_counter() - began) * 1000)
            connection.rollback()
    pages, scans = 0, dict[str, None]()
    with engine.connect() as connection:
        for statement, parameters in statements:
            explained = connection.exec_driver_sql(
                f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", parameters
            ).scalar_one()
            plan = explained[0]["Plan"]
            pages += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
            scans |= dict.fromkeys(_scans(plan))
        connection.rollback()
    return Cost(statistics.median(times), pages, tuple(scans))


@contextmanager
def _noted(connection: sa.Connection, statements: list[tuple[str, Any]]) -> Iterator[None]:
    """Write down each statement with its values, as the driver gets them."""

    def note(_: object, __: object, statement: str, parameters: dict[str, Any], *___: object) -> None:
        statements.append((statement, parameters))

    sa.event.listen(connection, "before_cursor_execute", note)
    yield
    sa.event.remove(connection, "before_cursor_execute", note)


def _scans(plan: Mapping[str, Any]) -> Iterator[str]:
    """The scans of a plan, and the sorts that read all of their input first."""
    kind = plan["Node Type"]
    if kind == "Sort" or ("Scan" in kind and kind not in ("CTE Scan", "Subquery Scan")):
        what = plan.get("Index Name") or plan.get("Relation Name")
        yield f"{kind} {what}" if what else kind
    for inner in plan.get("Plans", ()):
        yield from _scans(inner)
