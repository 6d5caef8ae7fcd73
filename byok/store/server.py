"""How PostgreSQL is set up for us, for ``byok doctor``."""

from collections.abc import Sequence

import sqlalchemy as sa

from byok.ports.inspection import DatabaseFacts
from byok.store import schema
from byok.store.translate import translated_errors

_TIMEOUTS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
# The audit log and what is signed of it are added to and never changed.
_READ_AND_ADD = ("SELECT", "INSERT")
_ALL = (*_READ_AND_ADD, "UPDATE")
# Of these rows are deleted: of members that left, of checkpoints whose chain broke, of what is long over.
_EMPTIED = frozenset({schema.members, schema.audit_checkpoints, schema.findings, schema.webhook_messages})


def read_facts(engine: sa.Engine) -> DatabaseFacts:
    """Ask the server.

    Raises:
        StoreUnavailable.
    """
    with translated_errors(), engine.connect() as connection:
        encrypted = connection.execute(
            sa.text("SELECT coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false)")
        ).scalar_one()
        timeouts = {
            name: connection.execute(
                sa.text("SELECT setting::float / 1000 FROM pg_settings WHERE name = :name"), {"name": name}
            ).scalar_one()
            for name in _TIMEOUTS
        }
        return DatabaseFacts(
            major=connection.execute(
                sa.text("SELECT current_setting('server_version_num')::int / 10000")
            ).scalar_one(),
            is_encrypted=encrypted,
            missing_tables=_missing_tables(connection),
            missing_rights=_missing_rights(connection),
            timeouts=timeouts,
            now=connection.execute(sa.text("SELECT clock_timestamp()")).scalar_one(),
        )


def _missing_tables(connection: sa.Connection) -> Sequence[str]:
    existing = set(sa.inspect(connection).get_table_names())
    return [table.name for table in schema.metadata.sorted_tables if table.name not in existing]


def _missing_rights(connection: sa.Connection) -> Sequence[str]:
    absent = _missing_tables(connection)
    missing = []
    for table in schema.metadata.sorted_tables:
        for right in () if table.name in absent else _needed_rights(table):
            granted = sa.select(sa.func.has_table_privilege(table.name, right))
            if not connection.execute(granted).scalar_one():
                missing.append(f"{right} on {table.name}")
    return missing


def _needed_rights(table: sa.Table) -> Sequence[str]:
    if table in (schema.audit_events, schema.signed_checkpoints):
        return _READ_AND_ADD
    return (*_ALL, "DELETE") if table in _EMPTIED else _ALL
