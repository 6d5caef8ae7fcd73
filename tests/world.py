"""A small world for service tests: real PostgreSQL, everything else a fake that can be told to fail."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from byok.core.model import Key, KeyVersion, Rotation, Tenant, TenantState
from byok.crypto.hazmat import SecretBytes
from byok.crypto.keyring import MasterKeyRing
from byok.ports import RowStore, Store
from byok.services.periods import Periods
from byok.services.registry import KeyDetails
from byok.store.application import PostgresRows
from byok.wiring import Services, assemble
from tests.audited import AuditedStore
from tests.fakes import (
    CountingMetrics,
    CountingRandom,
    FakeClock,
    FakeKms,
    MemoryLeaseCache,
    MemoryNoticeBoard,
    MemorySpool,
    RecordingQueue,
    RecordingSender,
)

RECHECK = timedelta(seconds=5)
PERIOD = timedelta(days=30)
TTL = timedelta(hours=1)
SWEEP = timedelta(seconds=15)
PERIODS = Periods(
    dispatch_due=timedelta(seconds=30),
    sweep=SWEEP,
    probe=timedelta(minutes=5),
    probe_tick=timedelta(seconds=5),
    validate=timedelta(days=1),
    validate_tick=timedelta(seconds=10),
    sync_rotation=timedelta(hours=12),
    sync_tick=timedelta(seconds=10),
    watch=timedelta(days=1),
    watch_tick=timedelta(seconds=10),
    webhooks=timedelta(seconds=10),
)


def kms_key_arn(number: int = 1) -> str:
    """The ARN of the number-th customer's KMS key."""
    return f"arn:aws:kms:eu-central-1:{222222222000 + number}:key/00000000-0000-4000-8000-{number:012d}"


def flush(*processes: Services) -> int:
    """Have processes write what they used; how much that was."""
    written = 0
    for process in processes:
        assert process.watch.member is not None
        written += process.usage.flush(process.watch.member.id)
    return written


def _run_renewals_at_once(name: str, target: Callable[[], None]) -> None:
    if name == "byok-refresh":
        target()


@dataclass
class World:
    """Services over a store and fakes, with one more process of the same fleet on demand."""

    store: Store
    clock: FakeClock = field(default_factory=FakeClock)
    kms: FakeKms = field(default_factory=FakeKms)
    queue: RecordingQueue = field(default_factory=RecordingQueue)
    random: CountingRandom = field(default_factory=CountingRandom)
    metrics: CountingMetrics = field(default_factory=CountingMetrics)
    board: MemoryNoticeBoard = field(default_factory=MemoryNoticeBoard)
    spool: MemorySpool = field(default_factory=MemorySpool)
    webhooks: RecordingSender = field(default_factory=RecordingSender)
    rows: RowStore = field(default_factory=lambda: PostgresRows(None))

    def __post_init__(self) -> None:
        self.cache = MemoryLeaseCache(self.clock)
        self.audited = AuditedStore(self.store)
        self.master_keys = MasterKeyRing([("mk-1", SecretBytes(self.random.bytes(32)))], self.random.bytes)
        self.services = self.another_process()
        self._tenants = 0

    def another_process(self, **settings: Any) -> Services:
        """Services that share the stores but no memory. No thread of theirs runs: notices are heard at once,
        and renewals are done when they are submitted."""
        defaults: dict[str, Any] = {
            "recheck": RECHECK,
            "periods": PERIODS,
            "random": self.random,
            "rows": self.rows,
            "spawn": _run_renewals_at_once,
            "webhooks": self.webhooks,
        }
        services = assemble(
            store=self.audited,
            cache=self.cache,
            board=self.board,
            kms=self.kms,
            queue=self.queue,
            master_keys=self.master_keys,
            metrics=self.metrics,
            clock=self.clock,
            spool=self.spool,
            **(defaults | settings),
        )
        self.board.ears.append(services.watch.hear)
        return services

    def add_tenant(self, name: str = "acme") -> Tenant:
        """Register and verify a tenant."""
        self._tenants += 1
        self.services.onboarding.add_tenant(name, actor="test")
        verification = self.services.onboarding.verify_tenant(
            name, actor="test", kms_key_arn=kms_key_arn(self._tenants)
        )
        assert verification.tenant.state is TenantState.ACTIVE
        return verification.tenant

    def add_key(
        self, tenant: str = "acme", key: str = "pii", *, ttl: timedelta = TTL, period: timedelta = PERIOD
    ) -> Key:
        """Create a key and run its first rotation."""
        created, _ = self.services.registry.create_key(
            tenant, key, rotation_period=period, lease_ttl=ttl, actor="test"
        )
        self.run_published()
        return created

    def run_published(self) -> list[Rotation | None]:
        """Run each published rotation once, as a worker would."""
        published, self.queue.rotations = self.queue.rotations, []
        return [self.services.rotations.run(rotation.id) for _, _, rotation in published]

    def show(self, tenant: str = "acme", key: str = "pii") -> KeyDetails:
        """A key with its versions and rotations."""
        return self.services.registry.show_key(tenant, key)

    def versions(self, tenant: str = "acme", key: str = "pii") -> list[KeyVersion]:
        """A key's versions, by number."""
        return list(self.show(tenant, key).versions)

    def states(self, tenant: str = "acme", key: str = "pii") -> list[str]:
        """The states of a key's versions, by number."""
        return [version.state.value for version in self.versions(tenant, key)]

    def rotation(self, rotation_id: UUID) -> Rotation:
        """A rotation as it stands."""
        return self.services.requests.get(rotation_id)

    def tenant(self, name: str = "acme") -> Tenant:
        """A tenant as it stands."""
        return self.services.registry.show_tenant(name)[0]

    def audit_actions(self, tenant: str = "acme") -> list[str]:
        """What the audit log says was done, oldest first."""
        return [event.action for event in self.services.registry.audit_log(tenant)]
