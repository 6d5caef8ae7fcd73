"""Builds the adapters from settings, and the services over them; one set a process."""

import hashlib
import os
import signal
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import sqlalchemy as sa

from byok import tracing
from byok.cache.notices import RedisNoticeBoard
from byok.cache.redis import RedisLeaseCache
from byok.core.arns import RoleArn
from byok.crypto.keyring import MasterKeyRing
from byok.entropy import SystemRandom
from byok.failpoints import arm
from byok.forks import forget_after_fork
from byok.kms.aws import AwsKms
from byok.kms.bulkhead import Bulkhead
from byok.metrics import PrometheusMetrics
from byok.ports import Clock, Random
from byok.queue import CeleryQueue
from byok.services.async_vault import AsyncVault
from byok.services.vault import Vault
from byok.settings import Settings, load_settings
from byok.spool import FileSpool
from byok.store.application import PostgresRows
from byok.store.postgres import PostgresStore, create_engine
from byok.webhooks import WebhookPoster
from byok.wiring.assembly import Services, assemble
from byok.wiring.master_keys import load_ring
from byok.wiring.periods import periods_of

_APPLICATION_POOL_SIZE = 4  # connections to the application's database, per process


@dataclass(frozen=True, slots=True)
class Runtime:
    """The services of one process, with the adapters behind them."""

    settings: Settings
    engine: sa.Engine
    store: PostgresStore
    rows: PostgresRows
    cache: RedisLeaseCache
    board: RedisNoticeBoard
    kms: AwsKms
    queue: CeleryQueue
    spool: FileSpool
    master_keys: MasterKeyRing
    metrics: PrometheusMetrics
    services: Services

    def close(self) -> None:
        """Close all connections."""
        self.services.watch.close()
        self.services.desk.forget()
        self.services.claims.close()
        self.services.request_mover.try_to_move()
        self.queue.close()
        self.board.close()
        self.cache.close()
        self.rows.close()
        self.store.close()


def build(settings: Settings, kind: str = "service") -> Runtime:
    """Build the adapters and the services over them. Connects to nothing yet, but to the vendor's own KMS
    where that wraps master keys.

    ``kind`` is what the fleet knows the process as: service, worker or command.

    Raises:
        ConfigurationError: the master keys or the database URL are wrong, or tracing lacks its library.
        KmsUnavailable: the vendor's own KMS does not unwrap the master keys now.
    """
    if settings.tracing:
        tracing.switch_on(kind)
    random_source, metrics = SystemRandom(), PrometheusMetrics()
    master_keys = load_ring(settings)
    engine = create_engine(settings.database_url.get_secret_value(), settings.database_pool_size)
    store = PostgresStore(engine)
    rows = _application_rows(settings)
    cache = RedisLeaseCache(settings.cache_url.get_secret_value())
    board = RedisNoticeBoard(settings.cache_url.get_secret_value())
    spool = _spool(store, random_source, settings)
    kms = _aws_kms(store, metrics, spool, settings)
    queue = CeleryQueue.connect(settings.broker_url.get_secret_value())
    services = assemble(
        store=store,
        cache=cache,
        board=board,
        kms=kms,
        queue=queue,
        master_keys=master_keys,
        metrics=metrics,
        clock=store,  # the database's time: one clock for all who share it
        random=random_source,
        recheck=timedelta(seconds=settings.recheck_seconds),
        periods=periods_of(settings),
        spool=spool,
        requests_kept=timedelta(days=settings.request_log_days),
        rows=rows,
        longest_rotation=timedelta(days=settings.max_rotation_days),
        refuse_excess=settings.refuse_excess_rights,
        max_lease_uses=settings.max_lease_uses,
        rotations_in_flight=settings.rotations_in_flight,
        kind=kind,
        webhooks=WebhookPoster(public_only=settings.env == "production"),
    )
    if settings.fail_point is not None:  # refused by the settings outside of tests
        arm(settings.fail_point, lambda: os.kill(os.getpid(), signal.SIGKILL))
    runtime = Runtime(
        settings, engine, store, rows, cache, board, kms, queue, spool, master_keys, metrics, services
    )
    services.vault.close_with(runtime.close)
    services.vault.measure_with(metrics)
    _forget_after_fork(runtime)
    return runtime


def store_ping(settings: Settings) -> Callable[[], None]:
    """A question whether PostgreSQL is there, over a connection of its own: no service is built for it.

    It raises StoreUnavailable.
    """
    return PostgresStore(create_engine(settings.database_url.get_secret_value(), 1)).ping


def _application_rows(settings: Settings) -> PostgresRows:
    url = settings.application_database_url
    if url is None:
        return PostgresRows(None)
    return PostgresRows(create_engine(url.get_secret_value(), _APPLICATION_POOL_SIZE))


def _spool(clock: Clock, random_source: Random, settings: Settings) -> FileSpool:
    if (folder := settings.request_log_folder) is not None:
        return FileSpool(folder, clock, random_source)
    database = hashlib.sha256(settings.database_url.get_secret_value().rpartition("@")[2].encode())
    own = f"byok-requests-{os.getuid()}-{database.hexdigest()[:12]}"
    return FileSpool(Path(tempfile.gettempdir()) / own, clock, random_source, must_own=True)


def _aws_kms(clock: Clock, metrics: PrometheusMetrics, spool: FileSpool, settings: Settings) -> AwsKms:
    return AwsKms(
        clock,
        Bulkhead(settings.tenant_kms_calls),
        metrics,
        spool,
        endpoint_url=settings.kms_endpoint_url,
        vendor_role=_role(settings.vendor_role_arn),
        canary_role=_role(settings.canary_role_arn),
        regions=settings.regions,
    )


def _role(arn: str | None) -> RoleArn | None:
    return None if arn is None else RoleArn.parse(arn)


def _forget_after_fork(runtime: Runtime) -> None:
    """In a forked child: forget secrets, and sockets that still belong to the parent.

    Each part for itself and weakly: a cipher may be all that is left of a runtime, and holds leases; and
    what nobody has any more is not kept for a fork that never comes.
    """
    services = runtime.services
    forget_after_fork(
        (
            services.desk.forget,  # first: secrets, and what makes nonces
            services.usage.forget,
            services.claims.forget,
            runtime.metrics.forget,
            runtime.spool.forget,
            runtime.kms.forget,
            runtime.store.dispose,
            runtime.rows.dispose,
        )
    )


_connected: Runtime | None = None
_connecting = threading.Lock()


def connect(settings: Settings | None = None) -> Vault:
    """The vault of this process. Without ``settings`` the environment decides, and all callers share one
    until one of them closes it.

    Raises:
        ConfigurationError: a BYOK_* variable is missing or wrong.
    """
    return _connect(settings).services.vault


def aconnect(settings: Settings | None = None) -> AsyncVault:
    """The vault of this process, for asyncio; see `connect`."""
    return _connect(settings).services.async_vault


def _connect(settings: Settings | None) -> Runtime:
    global _connected  # one set of connections a process is the point
    if settings is not None:
        return build(settings)
    with _connecting:
        if _connected is None or _connected.services.vault.is_closed:
            _connected = build(load_settings())
        return _connected
