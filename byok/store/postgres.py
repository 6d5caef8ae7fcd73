"""Implements `byok.ports.Store` on PostgreSQL."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import sqlalchemy as sa

from byok.postgres_url import PostgresUrl
from byok.store.audit import AuditTable
from byok.store.campaigns import CampaignTable, TargetTable
from byok.store.checkpoints import SignedCheckpointTable
from byok.store.clock import DatabaseClock
from byok.store.counts import CountTable
from byok.store.due_times import DueTimeTable
from byok.store.findings import AuditCheckpointTable, FindingTable
from byok.store.fleet import MemberTable, StopTable
from byok.store.moves import MoveTable
from byok.store.offboardings import OffboardingTable
from byok.store.outbox import OutboxTable
from byok.store.registry import KeyTable, TenantTable
from byok.store.remains import RemainsTable
from byok.store.request_log import RequestLogTable
from byok.store.reseals import ResealTable
from byok.store.rotations import RotationTable
from byok.store.sealed import TABLES, SealedTable
from byok.store.ticks import TickTable
from byok.store.translate import takes_no_writes, translated_errors
from byok.store.usage import UsageTable
from byok.store.versions import VersionTable

# Every statement is short; what takes longer than this waits for a lock that somebody forgot.
_SESSION_OPTIONS = (
    "-c statement_timeout=10s -c lock_timeout=5s -c idle_in_transaction_session_timeout=30s -c timezone=UTC"
)

# A server whose host is gone without a word is given up after 15 s, with or without something under way: the
# system's own times are 15 minutes and 2 hours, in which a fail-over would have been of no use.
_SILENCE: dict[str, int] = {
    "tcp_user_timeout": 15_000,  # milliseconds for what was sent to be confirmed
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 2,
}


def create_engine(database_url: str, pool_size: int) -> sa.Engine:
    """An engine whose connections time out instead of hanging. ``pool_size`` is per process."""
    engine = sa.create_engine(
        _sqlalchemy_url(database_url),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=10,
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": 5,
            "options": _SESSION_OPTIONS,
            "application_name": "byok",
            **_SILENCE,
        },
        # Bound values may hold sealed keys: they stay out of error messages and logs.
        hide_parameters=True,
    )
    sa.event.listen(engine, "handle_error", _leave_a_standby)
    return engine


def _sqlalchemy_url(text: str) -> sa.URL:
    address = PostgresUrl.parse(text)
    if len(address.servers) < 2:
        return sa.make_url(text)
    hosts, ports = (",".join(one) for one in zip(*address.servers, strict=True))
    return sa.make_url(address.rest).update_query_dict({"host": hosts, "port": ports})


def _leave_a_standby(context: sa.engine.ExceptionContext) -> None:
    # After a failover the address leads to the new primary, but connections that live lead to the old one,
    # which answers each ping: they are given up like broken ones.
    if takes_no_writes(context.original_exception):
        context.is_disconnect = True


class PostgresTransaction:
    """Implements `byok.ports.Transaction`."""

    def __init__(self, connection: sa.Connection) -> None:
        self.tenants = TenantTable(connection)
        self.keys = KeyTable(connection)
        self.versions = VersionTable(connection)
        self.rotations = RotationTable(connection)
        self.ticks = TickTable(connection)
        self.members = MemberTable(connection)
        self.stops = StopTable(connection)
        self.usage = UsageTable(connection)
        self.targets = TargetTable(connection)
        self.campaigns = CampaignTable(connection)
        self.moves = MoveTable(connection)
        self.counts = CountTable(connection)
        self.validations = DueTimeTable.of_validations(connection)
        self.syncs = DueTimeTable.of_syncs(connection)
        self.watches = DueTimeTable.of_watches(connection)
        self.findings = FindingTable(connection)
        self.audit_checkpoints = AuditCheckpointTable(connection)
        self.outbox = OutboxTable(connection)
        self.offboardings = OffboardingTable(connection)
        self.remains = RemainsTable(connection)
        self.request_log = RequestLogTable(connection)
        self.audit = AuditTable(connection)
        self.reseals = ResealTable(connection)
        self.sealed = {kind: SealedTable(connection, kind) for kind in TABLES}
        self.signed_checkpoints = SignedCheckpointTable(connection)


class PostgresStore:
    """The store, and the clock that all who share it go by.

    Safe across threads; after a fork call `dispose` in the child first.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._clock = DatabaseClock(engine)
        self.ticks = self._clock.ticks

    def now(self) -> datetime:
        with translated_errors():
            return self._clock.now()

    def sleep(self, seconds: float) -> None:
        self._clock.sleep(seconds)

    @contextmanager
    def transaction(self) -> Iterator[PostgresTransaction]:
        with translated_errors(), self._engine.begin() as connection:
            self._clock.read_if_old(connection)
            yield PostgresTransaction(connection)

    def ping(self) -> None:
        with translated_errors(), self._engine.connect() as connection:
            connection.execute(sa.text("SELECT 1 FROM tenants LIMIT 1"))

    def dispose(self) -> None:
        """Forget the connections without closing the sockets that a parent process still uses."""
        self._engine.dispose(close=False)

    def close(self) -> None:
        """Close all idle connections."""
        self._engine.dispose()
