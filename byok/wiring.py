"""The one place that knows every adapter: builds the services from settings."""

import os
import signal
import threading
from dataclasses import dataclass
from datetime import timedelta

import sqlalchemy as sa

from byok.cache.notices import RedisNoticeBoard
from byok.cache.redis import RedisLeaseCache
from byok.core.bounds import MAX_ROTATION_PERIOD
from byok.core.model import RoleArn
from byok.crypto.keyring import MasterKeyRing
from byok.entropy import SystemRandom
from byok.failpoints import arm
from byok.forks import forget_after_fork
from byok.kms.aws import AwsKms
from byok.kms.bulkhead import Bulkhead
from byok.metrics import PrometheusMetrics
from byok.ports import Clock, Kms, LeaseCache, Metrics, NoticeBoard, Random, RowStore, Store, TaskQueue
from byok.queue import CeleryQueue
from byok.services import pins
from byok.services.access import Access
from byok.services.async_vault import AsyncVault
from byok.services.auditing import Auditor
from byok.services.campaigns import CampaignRequests
from byok.services.checkups import Checkups
from byok.services.claims import Claims
from byok.services.destruction import Destruction
from byok.services.dispatching import Dispatcher
from byok.services.fanout import FanOut
from byok.services.filling import LeaseSource
from byok.services.following import KmsKeyFollower
from byok.services.held import Held
from byok.services.indexes import Indexes
from byok.services.kill_switch import KillSwitch
from byok.services.lease import MAX_LEASE_USES, IvPool
from byok.services.leases import LeaseDesk
from byok.services.offloading import Offloading
from byok.services.old_versions import OldVersions
from byok.services.onboarding import Onboarding
from byok.services.overview import Observer
from byok.services.periods import Periods
from byok.services.records import Records
from byok.services.reencryption import Reencryption
from byok.services.refreshing import Refresher
from byok.services.registry import Registry
from byok.services.requests import RotationRequests
from byok.services.rotations import Rotations
from byok.services.scheduling import Scheduling
from byok.services.setbacks import Setbacks
from byok.services.suspension import Suspensions
from byok.services.targets import TargetRegistry
from byok.services.threads import Spawn, spawn
from byok.services.usage import UsageLedger
from byok.services.validation import Validator
from byok.services.vault import Vault
from byok.services.watch import Watch
from byok.settings import Settings, load_settings
from byok.store.application import PostgresRows
from byok.store.postgres import PostgresStore, create_engine

_NO_APPLICATION = PostgresRows(None)
_APPLICATION_POOL_SIZE = 4  # connections to the application's database, per process


@dataclass(frozen=True, slots=True)
class Services:
    """Every service, over one set of ports."""

    desk: LeaseDesk
    watch: Watch
    usage: UsageLedger
    kill_switch: KillSwitch
    onboarding: Onboarding
    registry: Registry
    indexes: Indexes
    follower: KmsKeyFollower
    requests: RotationRequests
    claims: Claims
    rotations: Rotations
    fan_out: FanOut
    scheduling: Scheduling
    checkups: Checkups
    destruction: Destruction
    old_versions: OldVersions
    observer: Observer
    auditor: Auditor
    targets: TargetRegistry
    campaigns: CampaignRequests
    reencryption: Reencryption
    vault: Vault
    async_vault: AsyncVault


def assemble(
    *,
    store: Store,
    cache: LeaseCache,
    board: NoticeBoard,
    kms: Kms,
    queue: TaskQueue,
    master_keys: MasterKeyRing,
    metrics: Metrics,
    clock: Clock,
    random: Random,
    recheck: timedelta,
    periods: Periods,
    rows: RowStore = _NO_APPLICATION,
    longest_rotation: timedelta = MAX_ROTATION_PERIOD,
    refuse_excess: bool = False,
    max_lease_uses: int = MAX_LEASE_USES,
    rotations_in_flight: int = 5_000,
    kind: str = "service",
    spawn: Spawn = spawn,
) -> Services:
    """Put the services together over any ports."""
    records = Records(kms, master_keys)
    suspensions = Suspensions(store, cache, board, clock, random)
    held = Held(clock)
    usage = UsageLedger(store, held, metrics, clock)
    watch = Watch(
        usage=usage,
        store=store,
        board=board,
        held=held,
        metrics=metrics,
        clock=clock,
        random=random,
        recheck=recheck,
        kind=kind,
        spawn=spawn,
    )
    source = LeaseSource(
        store=store,
        cache=cache,
        records=records,
        suspensions=suspensions,
        master_keys=master_keys,
        metrics=metrics,
        clock=clock,
        random=random,
        max_uses=max_lease_uses,
    )
    desk = LeaseDesk(
        store=store,
        source=source,
        held=held,
        ivs=IvPool(random),
        watch=watch,
        clock=clock,
        recheck=recheck,
        refresher=Refresher(spawn),
    )
    access = Access(store, kms, records, clock)
    validator = Validator(kms, records, desk, clock, random)
    requests = RotationRequests(store, queue, clock, random, periods.sweep)
    campaigns = CampaignRequests(store, queue, clock, random, periods.sweep)
    claims = Claims(store, clock, periods.sweep)
    rotations = Rotations(
        store=store,
        kms=kms,
        records=records,
        validator=validator,
        desk=desk,
        suspensions=suspensions,
        claims=claims,
        campaigns=campaigns,
        setbacks=Setbacks(store, suspensions, metrics, clock, random),
        metrics=metrics,
        clock=clock,
        random=random,
    )
    dispatcher = Dispatcher(
        store,
        queue,
        requests,
        metrics,
        clock,
        random,
        window=rotations_in_flight,
        sweep_period=periods.sweep,
    )
    destruction = Destruction(
        store=store,
        cache=cache,
        suspensions=suspensions,
        clock=clock,
        recheck=recheck,
        pins=(pins.blind_indexes, pins.registered_tables),
    )
    vault = Vault(desk, requests)
    fan_out = FanOut(store, queue, clock, random, periods)
    return Services(
        desk=desk,
        watch=watch,
        usage=usage,
        kill_switch=KillSwitch(
            store=store,
            suspensions=suspensions,
            access=access,
            clock=clock,
            recheck=recheck,
            longest_probe_period=periods.probe,
        ),
        onboarding=Onboarding(store, kms, clock, random, refuse_excess=refuse_excess),
        registry=Registry(store, requests, clock, random, longest_rotation),
        indexes=Indexes(store, suspensions, clock, recheck),
        follower=KmsKeyFollower(store, kms, requests, clock, longest_rotation),
        requests=requests,
        claims=claims,
        rotations=rotations,
        fan_out=fan_out,
        scheduling=Scheduling(
            store,
            dispatcher,
            requests,
            suspensions,
            campaigns,
            fan_out,
            queue,
            metrics,
            clock,
            periods,
        ),
        checkups=Checkups(
            store=store,
            access=access,
            desk=desk,
            validator=validator,
            suspensions=suspensions,
            clock=clock,
        ),
        destruction=destruction,
        old_versions=OldVersions(
            store=store,
            rows=rows,
            campaigns=campaigns,
            destruction=destruction,
            clock=clock,
            recheck=recheck,
        ),
        observer=Observer(store, clock),
        auditor=Auditor(store),
        targets=TargetRegistry(store, rows, desk, clock, random),
        campaigns=campaigns,
        reencryption=Reencryption(
            store=store,
            rows=rows,
            desk=desk,
            campaigns=campaigns,
            metrics=metrics,
            clock=clock,
            random=random,
            settle=2 * recheck,  # a process looks again, and ends the calls that it was in
            sweep_period=periods.sweep,
        ),
        vault=vault,
        async_vault=AsyncVault(vault, Offloading()),
    )


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
    master_keys: MasterKeyRing
    metrics: PrometheusMetrics
    services: Services

    def close(self) -> None:
        """Close all connections."""
        self.services.watch.close()
        self.services.desk.forget()
        self.services.claims.close()
        self.queue.close()
        self.board.close()
        self.cache.close()
        self.rows.close()
        self.store.close()


def build(settings: Settings, kind: str = "service") -> Runtime:
    """Build the adapters and the services over them. Connects to nothing yet.

    ``kind`` is what the fleet knows the process as: service, worker or command.

    Raises:
        ConfigurationError: the master keys or the database URL are wrong.
    """
    random_source, metrics = SystemRandom(), PrometheusMetrics()
    master_keys = MasterKeyRing.parse(settings.read_master_keys(), random_source.bytes)
    engine = create_engine(settings.database_url.get_secret_value(), settings.database_pool_size)
    store = PostgresStore(engine)
    rows = _application_rows(settings)
    cache = RedisLeaseCache(settings.cache_url.get_secret_value())
    board = RedisNoticeBoard(settings.cache_url.get_secret_value())
    kms = _aws_kms(store, settings)
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
        periods=_periods(settings),
        rows=rows,
        longest_rotation=timedelta(days=settings.max_rotation_days),
        refuse_excess=settings.refuse_excess_rights,
        max_lease_uses=settings.max_lease_uses,
        rotations_in_flight=settings.rotations_in_flight,
        kind=kind,
    )
    if settings.fail_point is not None:  # refused by the settings outside of tests
        arm(settings.fail_point, lambda: os.kill(os.getpid(), signal.SIGKILL))
    runtime = Runtime(settings, engine, store, rows, cache, board, kms, queue, master_keys, metrics, services)
    services.vault.close_with(runtime.close)
    _forget_after_fork(runtime)
    return runtime


def _application_rows(settings: Settings) -> PostgresRows:
    url = settings.application_database_url
    if url is None:
        return PostgresRows(None)
    return PostgresRows(create_engine(url.get_secret_value(), _APPLICATION_POOL_SIZE))


def _aws_kms(clock: Clock, settings: Settings) -> AwsKms:
    return AwsKms(
        clock,
        Bulkhead(settings.tenant_kms_calls),
        endpoint_url=settings.kms_endpoint_url,
        vendor_role=_role(settings.vendor_role_arn),
        canary_role=_role(settings.canary_role_arn),
        regions=settings.regions,
    )


def _role(arn: str | None) -> RoleArn | None:
    return None if arn is None else RoleArn.parse(arn)


def _periods(settings: Settings) -> Periods:
    return Periods(
        dispatch_due=timedelta(seconds=settings.dispatch_interval_seconds),
        sweep=timedelta(seconds=settings.sweep_interval_seconds),
        probe=timedelta(seconds=settings.probe_interval_seconds),
        probe_tick=timedelta(seconds=settings.probe_tick_seconds),
        validate=timedelta(seconds=settings.validate_interval_seconds),
        validate_tick=timedelta(seconds=settings.validate_tick_seconds),
        sync_rotation=timedelta(seconds=settings.sync_interval_seconds),
        sync_tick=timedelta(seconds=settings.sync_tick_seconds),
    )


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
