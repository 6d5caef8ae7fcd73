"""A fleet of any size in the tables, for benchmarks: set-based SQL, a million keys in a minute or two.

    with Stack(...) as stack:
        loaded = load(stack.environment["BYOK_DATABASE_URL"], keys=1_000_000, keys_per_tenant=20)

The rows are what the code would have written by now: ids in order of time, activations spread over the
rotation period, reports and records of their usual sizes (the wrapped key as long as AWS's), four audit
events a rotation. Foreign keys are taken off while rows go in and put back at the end, which checks them all
at once. What does not open is the records themselves: they are random bytes, for no KMS to decrypt.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any
from uuid import UUID

import psycopg
import sqlalchemy as sa
from psycopg.types.json import Jsonb

from benchmarks.bulk_sql import AUDIT, COUNTS, EVENTS, FLEET, STAGING
from byok.core.audit import GENESIS_HASH, link_event
from byok.core.model import AuditEvent, Check
from byok.store import schema
from byok.store.postgres import create_engine
from byok.store.rows import from_checks

PERIOD = timedelta(days=30)
LEASE_TTL = timedelta(hours=1)
# One tenant in so many is suspended; one key in so many has an open rotation, and one a failed one.
_ONE_IN = 1000
_MEMBERS = 20  # processes that owed an acknowledgement to each stop
_KEYEVENTS, _ROTATIONEVENTS, _TENANTEVENTS = 1, 4, 3
_MASTER_KEY_ID = "mk-2026"
_NO_TIMEOUT = sa.text("SET LOCAL statement_timeout = 0")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was loaded. ``due``: keys that dispatch takes: of active tenants, without an open rotation."""

    tenants: int
    keys: int
    due: int
    versions: int
    events: int


def load(
    engine_or_url: sa.Engine | str,
    *,
    keys: int,
    keys_per_tenant: int = 20,
    versions_per_key: int = 1,
    due_share: float = 0.01,
    real_chains: int = 10,
) -> Loaded:
    """Fill empty, migrated tables. ``due_share`` of the keys are due; the audit chains of the first
    ``real_chains`` tenants verify, all others are linked but their hashes are not those of their events.
    """
    engine = create_engine(engine_or_url, 2) if isinstance(engine_or_url, str) else engine_or_url
    given = {
        "keys": keys,
        "per_tenant": keys_per_tenant,
        "versions": versions_per_key,
        "due_share": due_share,
        "real_chains": real_chains,
        "period": PERIOD,
        "lease_ttl_seconds": int(LEASE_TTL.total_seconds()),
        "one_in": _ONE_IN,
        "members": _MEMBERS,
        "master_key_id": _MASTER_KEY_ID,
        "first_report": json.dumps(from_checks(_report(first=True))),
        "later_report": json.dumps(from_checks(_report(first=False))),
        "genesis": GENESIS_HASH,
    }
    with engine.begin() as connection:
        connection.execute(_NO_TIMEOUT)
        connection.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        # Temporary tables have no statistics: a nested loop over a million rows would not end.
        connection.execute(sa.text("SET LOCAL enable_nestloop = off"))
        foreign_keys = _take_foreign_keys_off(connection)
        for statement in (*STAGING, *FLEET):
            connection.execute(sa.text(statement), given)
        _copy_events(connection, _real_events(connection, given))
        for statement in AUDIT:
            connection.execute(sa.text(statement), given)
        for statement in foreign_keys:
            connection.execute(sa.text(statement))
        loaded = Loaded(*connection.execute(sa.text(COUNTS)).one())
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("SET statement_timeout = 0"))
        connection.execute(sa.text("VACUUM (ANALYZE)"))  # as autovacuum leaves a fleet that has grown
        connection.invalidate()  # it must not go back to the pool without its timeout
    if isinstance(engine_or_url, str):
        engine.dispose()
    return loaded


def add_chain(engine: sa.Engine, tenant: str, events: int) -> None:
    """One more tenant, with so many audit events whose chain verifies."""
    with engine.begin() as connection:
        connection.execute(_NO_TIMEOUT)
        at, tenant_id = connection.execute(
            sa.text(
                "INSERT INTO tenants (id, name, state, generation, external_id, created_at)"
                " VALUES (gen_random_uuid(), :name, 'pending', 0, :name, now()) RETURNING created_at, id"
            ),
            {"name": tenant},
        ).one()
        details: dict[str, str | int | None] = {"key": "pii", "rotation": str(tenant_id), "checks": 9}
        rows = ((at, "rotation", "version.validated", details) for _ in range(events))
        last = _copy_events(connection, _linked(tenant_id, rows))
        connection.execute(
            schema.audit_heads.insert().values(tenant_id=tenant_id, sequence=events, hash=last)
        )


def _linked(tenant_id: UUID, rows: Iterable[Sequence[Any]]) -> Iterator[AuditEvent]:
    """Chain what happened, given as time, actor, action, details."""
    previous_hash = GENESIS_HASH
    for sequence, (at, actor, action, details) in enumerate(rows, 1):
        event = link_event(
            tenant_id=tenant_id,
            sequence=sequence,
            previous_hash=previous_hash,
            at=at,
            actor=actor,
            action=action,
            details=details,
        )
        previous_hash = event.hash
        yield event


def _real_events(connection: sa.Connection, given: Mapping[str, object]) -> Iterator[AuditEvent]:
    """The events of the first tenants. They are in memory meanwhile: keep these tenants small."""
    rows = connection.execute(
        sa.text(
            f"SELECT tenant_id, at, actor, action, details FROM {EVENTS}"  # ours
            " WHERE tenant < :real_chains ORDER BY tenant, sequence"
        ),
        given,
    ).all()  # now: a connection that copies can't be asked
    chains = groupby(rows, key=itemgetter(0))
    return (event for tenant_id, rows in chains for event in _linked(tenant_id, (row[1:] for row in rows)))


def _copy_events(connection: sa.Connection, events: Iterable[AuditEvent]) -> bytes:
    """COPY events; return the last one's hash."""
    columns = [column.name for column in schema.audit_events.columns]
    last = GENESIS_HASH
    driver: psycopg.Connection = connection.connection.driver_connection  # type: ignore[assignment]
    with (
        driver.cursor() as cursor,
        cursor.copy(f"COPY audit_events ({', '.join(columns)}) FROM STDIN") as copy,
    ):
        for event in events:
            fields = {**asdict(event), "details": Jsonb(event.details)}
            copy.write_row([fields[name] for name in columns])
            last = event.hash
    return last


def _report(*, first: bool) -> tuple[Check, ...]:
    """A validation report as long as those that the gate writes."""
    details = {
        "versions-are-consistent": "1 in a row" if first else "2 in a row",
        "kms-key-is-usable": "enabled, symmetric, account 200000000000, eu-central-1",
        "record-opens": f"sealed under master key {_MASTER_KEY_ID}",
        "kms-decrypts-under-stored-key": "request 21355962-b0fe-49dd-998d-343025d240ef",
        "secret-is-sound": "32 bytes",
        "wrong-context-is-refused": "KMS refused it",
        "fingerprint": "differs from every other version's",
        "canary": "encrypted and decrypted",
        "previous-canary": "there is no earlier version that decrypts" if first else "version 1 still opens",
    }
    return tuple(Check(name, passed=True, detail=detail) for name, detail in details.items())


def _take_foreign_keys_off(connection: sa.Connection) -> list[str]:
    """Drop all foreign keys; return the statements that put them back."""
    found = connection.execute(
        sa.text(
            "SELECT conrelid::regclass::text AS of, conname AS name, pg_get_constraintdef(oid) AS definition"
            " FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace"
        )
    ).all()
    for row in found:
        connection.execute(sa.text(f"ALTER TABLE {row.of} DROP CONSTRAINT {row.name}"))
    return [f"ALTER TABLE {row.of} ADD CONSTRAINT {row.name} {row.definition}" for row in found]
