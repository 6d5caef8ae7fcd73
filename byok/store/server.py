"""How PostgreSQL is set up for us, for ``byok doctor``."""

from collections.abc import Sequence

import sqlalchemy as sa

from byok.ports.inspection import DatabaseFacts
from byok.store import schema
from byok.store.translate import translated_errors

_TIMEOUTS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
# The audit log is added to and never changed.
_READ_AND_ADD = ("SELECT", "INSERT")
_ALL = (*_READ_AND_ADD, "UPDATE")


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
            missing_rights=_missing_rights(connection),
            timeouts=timeouts,
            now=connection.execute(sa.text("SELECT clock_timestamp()")).scalar_one(),
        )


def _missing_rights(connection: sa.Connection) -> Sequence[str]:
    existing = set(sa.inspect(connection).get_table_names())
    missing = []
    for table in schema.metadata.sorted_tables:
        for right in _READ_AND_ADD if table is schema.audit_events else _ALL:
            granted = sa.select(sa.func.has_table_privilege(table.name, right))
            if table.name in existing and not connection.execute(granted).scalar_one():
                missing.append(f"{right} on {table.name}")
    return missing
