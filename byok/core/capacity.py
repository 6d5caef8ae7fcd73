"""What a fleet needs: KMS requests and their price, the bound on a revocation, memory, rows, workers.

Pure. The steady state of a fleet whose tenants are all active and whose workers keep up; how the figures
come about is told in ``docs/capacity.md``. The numbers behind them are in `byok.core.footprint`.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil

from byok.core.bounds import check_lease_ttl, check_rotation_period
from byok.core.footprint import (
    ASSUMED_ROLES,
    CPU_MS,
    CRYPTOGRAPHIC_OPERATIONS,
    FIRST_LEASE_BYTES,
    KMS_PRICE,
    KMS_QUOTA,
    KMS_REQUESTS,
    LEASE_BYTES,
    LEASE_RENEWED_FROM,
    LEASE_RENEWED_SPREAD,
    STORED,
    STORED_BY_TENANT,
    STS_QUOTA,
    TARGET_LOAD,
    Act,
    Stored,
)
from byok.core.stops import RevocationBound, next_probe_time, probe_period, revocation_bound
from byok.errors import OutOfBounds

MONTH = timedelta(days=30)
YEAR = timedelta(days=365)
MAX_KEYS = 1_000_000_000
MAX_PROCESSES = 100_000
MAX_KMS_LATENCY_MS = 10_000
# A KMS call takes 5 to 50 ms; from another region or on a bad day more.
DEFAULT_KMS_LATENCY_MS = 20.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How often byok does what it does by itself, and how a worker is made: the settings of that name."""

    probe: timedelta
    probe_tick: timedelta
    validate: timedelta
    sync_rotation: timedelta
    watch: timedelta
    recheck: timedelta
    worker_concurrency: int
    database_pool_size: int


@dataclass(frozen=True, slots=True)
class Fleet:
    """What is asked about.

    ``active_share``: of the keys, how many are used within a TTL; each is taken to be in use all the time,
    under one version. ``processes``: of the services. ``uses_per_second``: encryptions and decryptions of
    the whole fleet, None: not known. ``kms_latency_ms``: of a request.

    Raises:
        OutOfBounds: no such fleet can be.
    """

    keys: int
    tenants: int
    rotation_period: timedelta
    processes: int
    active_share: float = 1.0
    uses_per_second: float | None = None
    kms_latency_ms: float = DEFAULT_KMS_LATENCY_MS

    def __post_init__(self) -> None:
        check_rotation_period(self.rotation_period)
        _require(1 <= self.keys <= MAX_KEYS, f"{self.keys} keys", f"between 1 and {MAX_KEYS}")
        _require(
            1 <= self.tenants <= self.keys, f"{self.tenants} tenants", f"between 1 and the keys, {self.keys}"
        )
        _require(
            1 <= self.processes <= MAX_PROCESSES,
            f"{self.processes} processes",
            f"between 1 and {MAX_PROCESSES}",
        )
        _require(0 < self.active_share <= 1, f"a share of {self.active_share:g}", "above 0 and at most 1")
        latency_ms = self.kms_latency_ms
        _require(
            1 <= latency_ms <= MAX_KMS_LATENCY_MS, f"{latency_ms:g} ms", f"between 1 and {MAX_KMS_LATENCY_MS}"
        )
        uses = self.uses_per_second
        _require(uses is None or 0 < uses <= 10**12, f"{uses} uses a second", "above 0 and at most 10^12")


@dataclass(frozen=True, slots=True)
class Plan:
    """What the fleet needs with one lease TTL.

    ``acts``: how many a second; a lease is missing without caching, where nobody said how many uses there
    are. ``sessions_per_second``: AssumeRole of probes and looks, where customers let us in by a role; further
    sessions live 15 minutes in each process and are not counted. ``stored_bytes`` is what is there from the
    start, ``growth`` what each year adds.
    """

    fleet: Fleet
    lease_ttl: timedelta
    probe_period: timedelta
    bound: RevocationBound
    acts: Mapping[Act, float]
    sessions_per_second: float
    redis_bytes: float
    stored_bytes: float
    growth_a_year: Mapping[str, Stored]
    worker_threads: int
    worker_processes: int
    database_connections: int

    @property
    def is_complete(self) -> bool:
        """Whether the requests are all of them: without caching, uses may be missing."""
        return Act.LEASE in self.acts

    @property
    def requests_per_second(self) -> float:
        """KMS requests of the whole fleet."""
        return sum(rate * sum(KMS_REQUESTS[act].values()) for act, rate in self.acts.items())

    @property
    def requests_per_month(self) -> float:
        """KMS requests of the whole fleet in 30 days."""
        return self.requests_per_second * MONTH.total_seconds()

    @property
    def cryptographic_per_second(self) -> float:
        """Of the requests those that share AWS's quota for symmetric operations."""
        return sum(
            rate * count
            for act, rate in self.acts.items()
            for operation, count in KMS_REQUESTS[act].items()
            if operation in CRYPTOGRAPHIC_OPERATIONS
        )

    @property
    def usd_of_a_customer(self) -> float:
        """What AWS bills one customer a month in role mode: its KMS key, and what is not free of requests."""
        return KMS_PRICE.per_kms_key_per_month + usd_for(self.requests_per_month / self.fleet.tenants)

    @property
    def usd_of_the_vendor(self) -> float:
        """What AWS bills the vendor a month for requests in key-policy mode, where it is the caller."""
        return usd_for(self.requests_per_month)

    @property
    def customer_quota_share(self) -> float:
        """How much of the quota for symmetric operations one customer's account spends on us in role mode."""
        return self.cryptographic_per_second / self.fleet.tenants / KMS_QUOTA.per_second

    @property
    def vendor_quota_share(self) -> float:
        """The same of the vendor's account in key-policy mode, all tenants in one region."""
        return self.cryptographic_per_second / KMS_QUOTA.per_second

    @property
    def sts_quota_share(self) -> float:
        """How much of the vendor's quota of AssumeRole byok spends in role mode, all in one region."""
        return self.sessions_per_second / STS_QUOTA.per_second

    @property
    def rows_a_year(self) -> float:
        """Rows that a year adds to PostgreSQL."""
        return sum(one.rows for one in self.growth_a_year.values())

    @property
    def bytes_a_year(self) -> float:
        """Bytes that a year adds to PostgreSQL, with indexes."""
        return sum(one.bytes for one in self.growth_a_year.values())


def usd_for(requests_per_month: float) -> float:
    """What one account pays for that many KMS requests in a month."""
    billed = max(requests_per_month - KMS_PRICE.free_requests_per_month, 0.0)
    return billed / 10_000 * KMS_PRICE.per_10_000_requests


def plan(fleet: Fleet, pace: Pace, lease_ttl: timedelta) -> Plan:
    """What ``fleet`` needs if all its keys have this lease TTL.

    Raises:
        OutOfBounds: there is no such TTL.
    """
    check_lease_ttl(lease_ttl)
    period = probe_period(pace.probe, [lease_ttl])
    acts = _acts(fleet, pace, lease_ttl, period)
    threads, processes = _workers(fleet, pace, acts)
    return Plan(
        fleet=fleet,
        lease_ttl=lease_ttl,
        probe_period=period,
        bound=revocation_bound(lease_ttl, period, pace.recheck),
        acts=acts,
        sessions_per_second=sum(acts[act] * roles for act, roles in ASSUMED_ROLES.items()),
        redis_bytes=_redis_bytes(fleet, pace, lease_ttl),
        stored_bytes=_stored_bytes(fleet),
        growth_a_year=_growth(acts),
        worker_threads=threads,
        worker_processes=processes,
        database_connections=(processes + fleet.processes) * pace.database_pool_size,
    )


def mean_probe_gap(period: timedelta, tick: timedelta) -> timedelta:
    """How long it is from one probe of a tenant to the next, on average: less than the period."""
    start = datetime.fromtimestamp(0, UTC)
    return next_probe_time(start, period, tick, 0.5) - start + tick / 2


def _acts(fleet: Fleet, pace: Pace, lease_ttl: timedelta, period: timedelta) -> Mapping[Act, float]:
    acts = {
        Act.ROTATION: fleet.keys / fleet.rotation_period.total_seconds(),
        Act.VALIDATION: fleet.keys / pace.validate.total_seconds(),
        Act.SYNC: fleet.tenants / pace.sync_rotation.total_seconds(),
        Act.WATCH: fleet.tenants / pace.watch.total_seconds(),
        Act.PROBE: fleet.tenants / mean_probe_gap(period, pace.probe_tick).total_seconds(),
    }
    leases = _leases_per_second(fleet, lease_ttl, period)
    return acts if leases is None else acts | {Act.LEASE: leases}


def _leases_per_second(fleet: Fleet, lease_ttl: timedelta, period: timedelta) -> float | None:
    """How often anybody asks KMS for a lease: one process does, and the others find it in Redis."""
    uses = fleet.uses_per_second
    if not lease_ttl:
        return uses
    # The first process to reach its moment renews the lease for all.
    lived = LEASE_RENEWED_FROM + LEASE_RENEWED_SPREAD / (fleet.processes + 1)
    # A probe's Decrypt renews the lease of its tenant's first key, mostly before anybody has to.
    renewed_by_probes = fleet.tenants if period <= LEASE_RENEWED_FROM * lease_ttl else 0
    keys = fleet.active_share * (fleet.keys - renewed_by_probes)
    leases = keys / (lived * lease_ttl.total_seconds())
    return leases if uses is None else min(leases, uses)


def _redis_bytes(fleet: Fleet, pace: Pace, lease_ttl: timedelta) -> float:
    """The leases that lie in Redis at a time: in use, of the probes, and what checks leave for a TTL."""
    if not lease_ttl:
        return 0.0
    in_use = fleet.active_share * (fleet.keys - fleet.tenants)
    left_by_checks = fleet.keys * (lease_ttl / pace.validate + lease_ttl / fleet.rotation_period)
    return fleet.tenants * FIRST_LEASE_BYTES + (in_use + left_by_checks) * LEASE_BYTES


def _stored_bytes(fleet: Fleet) -> float:
    """Tenants, and keys with their first version."""
    by_key = sum(one.bytes for one in STORED[Act.FIRST_ROTATION].values())
    by_tenant = sum(one.bytes for one in STORED_BY_TENANT.values())
    return fleet.keys * by_key + fleet.tenants * by_tenant


def _growth(acts: Mapping[Act, float]) -> Mapping[str, Stored]:
    rows: defaultdict[str, float] = defaultdict(float)
    size: defaultdict[str, float] = defaultdict(float)
    for act in acts.keys() & STORED.keys():
        acts_a_year = acts[act] * YEAR.total_seconds()
        for table, stored in STORED[act].items():
            rows[table] += acts_a_year * stored.rows
            size[table] += acts_a_year * stored.bytes
    return {table: Stored(rows[table], size[table]) for table in sorted(rows)}


def _workers(fleet: Fleet, pace: Pace, acts: Mapping[Act, float]) -> tuple[int, int]:
    """Threads and processes of workers, at the target load; one process, of one core, at least."""
    cpu = waiting = 0.0  # seconds in each second
    for act, cpu_ms in CPU_MS.items():
        requests = sum(KMS_REQUESTS[act].values()) + ASSUMED_ROLES.get(act, 0)
        cpu += acts[act] * cpu_ms / 1000
        waiting += acts[act] * requests * fleet.kms_latency_ms / 1000
    threads = max(ceil((cpu + waiting) / TARGET_LOAD), 1)
    return threads, max(ceil(threads / pace.worker_concurrency), ceil(cpu / TARGET_LOAD))


def _require(condition: bool, what: str, allowed: str) -> None:
    if not condition:
        raise OutOfBounds(f"{what}: no fleet has that", remedy=f"say a number {allowed}")
