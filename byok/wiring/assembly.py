"""Puts the services together over any ports."""

from dataclasses import dataclass
from datetime import timedelta

from byok.core.bounds import MAX_ROTATION_PERIOD
from byok.core.metric_list import SweeperFinding
from byok.crypto.keyring import MasterKeyRing
from byok.ports import (
    Clock,
    Kms,
    LeaseCache,
    Metrics,
    NoticeBoard,
    Random,
    RequestSpool,
    RowStore,
    Store,
    TaskQueue,
    WebhookSender,
)
from byok.services import pins
from byok.services.access import Access
from byok.services.async_vault import AsyncVault
from byok.services.audit_export import AuditExporter
from byok.services.auditing import Auditor
from byok.services.campaigns import CampaignRequests
from byok.services.certification import Certification
from byok.services.checkpoints import Checkpoints
from byok.services.checkups import Checkups
from byok.services.claims import Claims
from byok.services.destruction import Destruction
from byok.services.dispatching import Dispatcher
from byok.services.fanout import FanOut
from byok.services.filling import LeaseSource
from byok.services.following import KmsKeyFollower
from byok.services.held import Held
from byok.services.indexes import Indexes
from byok.services.key_export import KeyExporter
from byok.services.kill_switch import KillSwitch
from byok.services.lease import MAX_LEASE_USES, IvPool
from byok.services.leases import LeaseDesk
from byok.services.lookout import Lookout
from byok.services.moves import MoveRequests
from byok.services.moving import Moving
from byok.services.offboarding import Offboardings
from byok.services.offloading import Offloading
from byok.services.old_versions import OldVersions
from byok.services.onboarding import Onboarding
from byok.services.overview import Observer
from byok.services.periods import Periods
from byok.services.reconciliation import Reconciler
from byok.services.records import Records
from byok.services.reencryption import Reencryption
from byok.services.refreshing import Refresher
from byok.services.registry import Registry
from byok.services.request_log import RequestMover
from byok.services.requests import RotationRequests
from byok.services.resealing import Resealing
from byok.services.reseals import ResealRequests
from byok.services.rewrapping import Rewrapper
from byok.services.ring_status import RingStatus
from byok.services.rotations import Rotations
from byok.services.scheduling import Scheduling
from byok.services.setbacks import Setbacks
from byok.services.shred_proofs import ShredProofs
from byok.services.shredding import Shredding
from byok.services.suspension import Suspensions
from byok.services.targets import TargetRegistry
from byok.services.threads import Spawn, spawn
from byok.services.usage import UsageLedger
from byok.services.validation import Validator
from byok.services.vault import Vault
from byok.services.watch import Watch
from byok.services.webhooks import WebhookDeliveries
from byok.store.application import PostgresRows
from byok.webhooks import WebhookPoster

_NO_APPLICATION = PostgresRows(None)
_NO_PRIVATE_ADDRESS = WebhookPoster(public_only=True)


@dataclass(frozen=True, slots=True)
class Services:
    """Every service, over one set of ports."""

    desk: LeaseDesk
    watch: Watch
    usage: UsageLedger
    kill_switch: KillSwitch
    onboarding: Onboarding
    moves: MoveRequests
    moving: Moving
    registry: Registry
    indexes: Indexes
    follower: KmsKeyFollower
    requests: RotationRequests
    claims: Claims
    rotations: Rotations
    fan_out: FanOut
    scheduling: Scheduling
    checkups: Checkups
    key_exporter: KeyExporter
    destruction: Destruction
    old_versions: OldVersions
    offboardings: Offboardings
    observer: Observer
    auditor: Auditor
    audit_exporter: AuditExporter
    checkpoints: Checkpoints
    request_mover: RequestMover
    reconciler: Reconciler
    lookout: Lookout
    targets: TargetRegistry
    campaigns: CampaignRequests
    reencryption: Reencryption
    reseals: ResealRequests
    resealing: Resealing
    ring_status: RingStatus
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
    spool: RequestSpool,
    requests_kept: timedelta = timedelta(days=90),
    rows: RowStore = _NO_APPLICATION,
    longest_rotation: timedelta = MAX_ROTATION_PERIOD,
    refuse_excess: bool = False,
    max_lease_uses: int = MAX_LEASE_USES,
    rotations_in_flight: int = 5_000,
    kind: str = "service",
    webhooks: WebhookSender = _NO_PRIVATE_ADDRESS,
    spawn: Spawn = spawn,
) -> Services:
    """Put the services together over any ports."""
    records = Records(kms, master_keys)
    suspensions = Suspensions(store, cache, board, clock, random)
    held = Held(clock)
    usage = UsageLedger(store, held, metrics, clock)
    request_mover = RequestMover(store, spool, clock, requests_kept)
    watch = Watch(
        usage=usage,
        master_key_ids=master_keys.ids,
        request_mover=request_mover,
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
    reseals = ResealRequests(store, queue, master_keys, clock, random, periods.sweep)
    moves = MoveRequests(
        store=store,
        kms=kms,
        access=access,
        suspensions=suspensions,
        queue=queue,
        clock=clock,
        random=random,
        sweep_period=periods.sweep,
        refuse_excess=refuse_excess,
    )
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
    auditor = Auditor(store, master_keys)
    checkpoints = Checkpoints(store, auditor, master_keys, clock, random)
    fan_out = FanOut(store, queue, clock, random, periods)
    lookout = Lookout(
        store=store,
        kms=kms,
        auditor=auditor,
        checkpoints=checkpoints,
        clock=clock,
        random=random,
        period=periods.watch,
    )
    kill_switch = KillSwitch(
        store=store,
        suspensions=suspensions,
        access=access,
        clock=clock,
        recheck=recheck,
        longest_probe_period=periods.probe,
    )
    offboardings = Offboardings(
        store=store,
        suspensions=suspensions,
        kill_switch=kill_switch,
        shredding=Shredding(store, clock),
        certification=Certification(
            store=store,
            kms=kms,
            lookout=lookout,
            proofs=ShredProofs(
                store=store, cache=cache, desk=desk, records=records, auditor=auditor, clock=clock
            ),
            master_keys=master_keys,
            clock=clock,
        ),
        clock=clock,
        random=random,
    )
    return Services(
        desk=desk,
        watch=watch,
        usage=usage,
        kill_switch=kill_switch,
        onboarding=Onboarding(store, kms, clock, random, refuse_excess=refuse_excess),
        moves=moves,
        moving=Moving(
            store=store,
            rewrapper=Rewrapper(kms, records, clock),
            moves=moves,
            requests=requests,
            suspensions=suspensions,
            clock=clock,
            random=random,
            sweep_period=periods.sweep,
        ),
        registry=Registry(store, requests, clock, random, longest_rotation),
        indexes=Indexes(store, suspensions, clock, recheck),
        follower=KmsKeyFollower(store, kms, requests, clock, longest_rotation),
        requests=requests,
        claims=claims,
        rotations=rotations,
        fan_out=fan_out,
        scheduling=Scheduling(
            store=store,
            dispatcher=dispatcher,
            requests=requests,
            suspensions=suspensions,
            fan_out=fan_out,
            queue=queue,
            metrics=metrics,
            clock=clock,
            periods=periods,
            webhooks=WebhookDeliveries(store, webhooks, master_keys, clock),
            lost={
                SweeperFinding.CAMPAIGN: campaigns.sweep,
                SweeperFinding.RESEAL: reseals.sweep,
                SweeperFinding.MOVE: moves.sweep,
            },
            errands=(offboardings.finish_due, request_mover.remove_old),
        ),
        checkups=Checkups(
            store=store,
            access=access,
            desk=desk,
            validator=validator,
            suspensions=suspensions,
            clock=clock,
        ),
        key_exporter=KeyExporter(store=store, kms=kms, access=access, suspensions=suspensions, clock=clock),
        destruction=destruction,
        old_versions=OldVersions(
            store=store,
            rows=rows,
            campaigns=campaigns,
            destruction=destruction,
            clock=clock,
            recheck=recheck,
        ),
        offboardings=offboardings,
        observer=Observer(store, clock, periods),
        auditor=auditor,
        audit_exporter=AuditExporter(auditor, master_keys, clock),
        checkpoints=checkpoints,
        lookout=lookout,
        request_mover=request_mover,
        reconciler=Reconciler(store, request_mover, clock),
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
        reseals=reseals,
        resealing=Resealing(
            store=store,
            master_keys=master_keys,
            requests=reseals,
            metrics=metrics,
            clock=clock,
            random=random,
            sweep_period=periods.sweep,
        ),
        ring_status=RingStatus(store, master_keys, clock),
        vault=vault,
        async_vault=AsyncVault(vault, Offloading()),
    )
