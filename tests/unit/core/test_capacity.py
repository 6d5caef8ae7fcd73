"""The capacity model against numbers reckoned by hand, and what must hold whatever the fleet."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byok.core.capacity import Fleet, Pace, Plan, mean_probe_gap, plan, usd_for
from byok.core.footprint import (
    CPU_MS,
    FIRST_LEASE_BYTES,
    KMS_REQUESTS,
    LEASE_BYTES,
    LEASE_RENEWED_FROM,
    LEASE_RENEWED_SPREAD,
    STORED,
    STORED_BY_TENANT,
    TARGET_LOAD,
    Act,
)
from byok.core.stops import next_probe_time
from byok.errors import OutOfBounds
from byok.services import filling
from byok.store import schema

PACE = Pace(
    probe=timedelta(minutes=5),
    probe_tick=timedelta(seconds=5),
    validate=timedelta(days=1),
    sync_rotation=timedelta(hours=12),
    watch=timedelta(days=1),
    recheck=timedelta(seconds=5),
    worker_concurrency=8,
    database_pool_size=10,
)
HOUR = timedelta(hours=1)
START = datetime(2026, 1, 1, tzinfo=UTC)
PROBE_GAP_SECONDS = 268  # (300 − 5) × 0.9 on average, and half a tick
FLEET = Fleet(keys=6000, tenants=1000, rotation_period=timedelta(days=30), processes=9, active_share=0.5)

fleets = st.builds(
    lambda tenants, more, days, processes, share, uses: Fleet(
        keys=tenants + more,
        tenants=tenants,
        rotation_period=timedelta(days=days),
        processes=processes,
        active_share=share,
        uses_per_second=uses,
    ),
    st.integers(1, 10**7),
    st.integers(0, 10**7),
    st.integers(1, 3650),
    st.integers(1, 1000),
    st.floats(0.001, 1.0),
    st.none() | st.floats(0.001, 10**7),
)
ttls = st.integers(1, 86_400).map(lambda seconds: timedelta(seconds=seconds))


def requests(act: Act) -> int:
    return sum(KMS_REQUESTS[act].values())


def test_acts_by_hand() -> None:
    acts = plan(FLEET, PACE, HOUR).acts
    assert acts[Act.ROTATION] == pytest.approx(6000 / (30 * 86_400))
    assert acts[Act.VALIDATION] == pytest.approx(6000 / 86_400)
    assert acts[Act.SYNC] == pytest.approx(1000 / 43_200)
    assert acts[Act.WATCH] == pytest.approx(1000 / 86_400)
    assert acts[Act.PROBE] == pytest.approx(1000 / PROBE_GAP_SECONDS)
    # Half of the keys, without each tenant's first, which probes renew; once in 0.81 TTL with nine processes.
    assert acts[Act.LEASE] == pytest.approx(0.5 * 5000 / (0.81 * 3600))


def test_requests_and_what_they_cost_by_hand() -> None:
    one = plan(FLEET, PACE, HOUR)
    a_second = (
        requests(Act.ROTATION) * 6000 / (30 * 86_400)
        + requests(Act.VALIDATION) * 6000 / 86_400
        + requests(Act.SYNC) * 1000 / 43_200
        + requests(Act.WATCH) * 1000 / 86_400
        + 1000 / PROBE_GAP_SECONDS
        + 2500 / 2916
    )
    assert one.requests_per_second == pytest.approx(a_second)
    assert one.requests_per_month == pytest.approx(a_second * 2_592_000)
    assert one.usd_of_a_customer == 1.0, "less than 20,000 requests a customer are free, its KMS key is not"
    assert one.usd_of_the_vendor == pytest.approx((one.requests_per_month - 20_000) * 0.03 / 10_000)
    sessions = 1000 / PROBE_GAP_SECONDS + 4 * 1000 / 86_400
    assert one.sessions_per_second == pytest.approx(sessions)
    assert one.sts_quota_share == pytest.approx(sessions / 600)


@pytest.mark.parametrize(
    ("a_month", "usd"), [(0, 0), (20_000, 0), (30_000, 0.03), (1_020_000, 3.0), (10_000_020_000, 30_000)]
)
def test_the_first_twenty_thousand_requests_are_free(a_month: int, usd: float) -> None:
    assert usd_for(a_month) == pytest.approx(usd)


def test_only_cryptographic_operations_share_the_quota() -> None:
    one = plan(FLEET, PACE, HOUR)
    described = one.acts[Act.ROTATION] * KMS_REQUESTS[Act.ROTATION].get("DescribeKey", 0)
    # Describing, reading the rotation status and tags; the look's dry run of CreateGrant, too.
    described += one.acts[Act.VALIDATION] + one.acts[Act.SYNC] * 3 + one.acts[Act.WATCH] * 4
    assert one.cryptographic_per_second == pytest.approx(one.requests_per_second - described)
    assert one.vendor_quota_share == pytest.approx(one.cryptographic_per_second / 10_000)
    assert one.customer_quota_share == pytest.approx(one.vendor_quota_share / 1000)


def test_bounds_with_push_without_it_and_cut_off() -> None:
    bound = plan(FLEET, PACE, HOUR).bound
    assert [bound.pushed, bound.polled, bound.unprobed] == [
        timedelta(seconds=306),
        timedelta(seconds=311),
        HOUR,
    ]


def test_memory_of_leases_by_hand() -> None:
    # 1,000 of the probes, half of the other 5,000 in use, and what validations and rotations leave.
    further = 2500 + 6000 / 24 + 6000 / 720
    assert plan(FLEET, PACE, HOUR).redis_bytes == pytest.approx(
        1000 * FIRST_LEASE_BYTES + further * LEASE_BYTES
    )
    assert plan(FLEET, PACE, timedelta(0)).redis_bytes == 0


def test_rows_by_hand() -> None:
    one = plan(FLEET, PACE, HOUR)
    rotations, validations = 6000 * 365 / 30, 6000 * 365
    assert one.growth_a_year["key_versions"].rows == pytest.approx(rotations)
    looks = 1000 * 365
    events = rotations * STORED[Act.ROTATION]["audit_events"].rows + validations + looks
    assert one.growth_a_year["audit_events"].rows == pytest.approx(events)
    assert one.rows_a_year == pytest.approx(events + 2 * rotations + looks)
    of_a_key = sum(stored.bytes for stored in STORED[Act.FIRST_ROTATION].values())
    of_a_tenant = sum(stored.bytes for stored in STORED_BY_TENANT.values())
    assert one.stored_bytes == pytest.approx(6000 * of_a_key + 1000 * of_a_tenant)


def test_workers_and_connections_by_hand() -> None:
    fleet = Fleet(keys=10**6, tenants=10**6, rotation_period=timedelta(days=30), processes=200)
    one = plan(fleet, PACE, HOUR)
    cpu = sum(one.acts[act] * cpu_ms / 1000 for act, cpu_ms in CPU_MS.items())
    asked = sum(one.acts[act] * requests(act) for act in CPU_MS) + one.sessions_per_second
    assert one.worker_threads == pytest.approx((cpu + asked * 0.020) / TARGET_LOAD, abs=1)
    assert one.worker_processes == pytest.approx(max(cpu / TARGET_LOAD, one.worker_threads / 8), abs=1)
    assert one.database_connections == (one.worker_processes + 200) * 10
    slow = plan(replace(fleet, kms_latency_ms=1000), PACE, HOUR)
    assert slow.worker_processes == -(-slow.worker_threads // 8), "waiting needs threads"


def test_without_caching_each_use_is_a_request() -> None:
    unknown = plan(FLEET, PACE, timedelta(0))
    assert not unknown.is_complete
    known = plan(replace(FLEET, uses_per_second=300.0), PACE, timedelta(0))
    assert known.is_complete
    assert known.requests_per_second - unknown.requests_per_second == pytest.approx(300)
    assert known.bound.unprobed == timedelta(0)


def test_leases_are_no_more_than_uses() -> None:
    busy, idle = (plan(replace(FLEET, uses_per_second=uses), PACE, HOUR) for uses in (1e6, 0.001))
    assert busy.acts == plan(FLEET, PACE, HOUR).acts
    assert idle.acts[Act.LEASE] == 0.001


def test_a_lease_that_ends_before_a_probe_is_renewed_by_nobody_else() -> None:
    seconds = timedelta(seconds=1)
    assert plan(FLEET, PACE, 6 * seconds).acts[Act.LEASE] == pytest.approx(3000 / (0.81 * 6))
    assert plan(FLEET, PACE, 7 * seconds).acts[Act.LEASE] == pytest.approx(2500 / (0.81 * 7))


@pytest.mark.parametrize("seconds", [5, 6, 20, 150, 300])
def test_the_mean_gap_is_that_of_the_scheduler(seconds: int) -> None:
    period, tick = timedelta(seconds=seconds), timedelta(seconds=5)
    at = [next_probe_time(START, period, tick, step / 1000) - START for step in range(1001)]
    mean = sum(at, timedelta(0)) / len(at) + tick / 2
    assert abs(mean_probe_gap(period, tick) - mean) < timedelta(milliseconds=1)


@given(fleets, ttls, ttls)
def test_a_longer_ttl_costs_no_more_and_guards_no_better(
    fleet: Fleet, one_ttl: timedelta, other_ttl: timedelta
) -> None:
    shorter, longer = (plan(fleet, PACE, ttl) for ttl in sorted([one_ttl, other_ttl]))
    assert longer.requests_per_second <= shorter.requests_per_second * (1 + 1e-9)
    assert longer.usd_of_a_customer <= shorter.usd_of_a_customer * (1 + 1e-9)
    assert longer.bound.polled >= shorter.bound.polled
    assert longer.bound.unprobed >= shorter.bound.unprobed
    assert longer.redis_bytes >= shorter.redis_bytes


@given(fleets, ttls | st.just(timedelta(0)))
def test_nothing_is_negative(fleet: Fleet, ttl: timedelta) -> None:
    one = plan(fleet, PACE, ttl)
    assert all(rate >= 0 for rate in one.acts.values())
    figures = [one.usd_of_the_vendor, one.redis_bytes, one.stored_bytes, one.bytes_a_year, one.rows_a_year]
    assert min(figures) >= 0
    assert min(one.worker_threads, one.worker_processes, one.database_connections) >= 1


@given(fleets, ttls)
def test_twice_the_fleet_is_twice_of_everything(fleet: Fleet, ttl: timedelta) -> None:
    uses = None if fleet.uses_per_second is None else 2 * fleet.uses_per_second
    twice = replace(fleet, keys=2 * fleet.keys, tenants=2 * fleet.tenants, uses_per_second=uses)
    one, two = plan(fleet, PACE, ttl), plan(twice, PACE, ttl)

    def figures(of: Plan) -> list[float]:
        return [
            of.requests_per_second,
            of.sessions_per_second,
            of.redis_bytes,
            of.stored_bytes,
            of.bytes_a_year,
        ]

    assert figures(two) == pytest.approx([2 * figure for figure in figures(one)])
    assert two.usd_of_a_customer == pytest.approx(one.usd_of_a_customer)
    assert two.bound == one.bound


@pytest.mark.parametrize(
    "absurd",
    [
        {"keys": 0, "tenants": 0},
        {"keys": 10**9 + 1},
        {"tenants": 0},
        {"tenants": 6001},
        {"processes": 0},
        {"active_share": 0.0},
        {"active_share": 1.1},
        {"active_share": float("nan")},
        {"uses_per_second": 0.0},
        {"uses_per_second": float("inf")},
        {"kms_latency_ms": 0.5},
        {"kms_latency_ms": 1e300},
        {"rotation_period": timedelta(minutes=59)},
    ],
)
def test_absurd_fleets_are_refused_with_a_remedy(absurd: dict[str, object]) -> None:
    with pytest.raises(OutOfBounds) as refused:
        replace(FLEET, **absurd)  # type: ignore[arg-type]  # one field each
    assert refused.value.remedy


def test_no_key_has_a_ttl_of_two_days() -> None:
    with pytest.raises(OutOfBounds):
        plan(FLEET, PACE, timedelta(days=2))


def test_the_footprint_is_that_of_this_code() -> None:
    assert filling._REFRESH_FROM == LEASE_RENEWED_FROM
    assert filling._REFRESH_SPREAD == LEASE_RENEWED_SPREAD
    tables = {table for stored in (*STORED.values(), STORED_BY_TENANT) for table in stored}
    assert tables <= set(schema.metadata.tables)
    assert set(CPU_MS) < set(KMS_REQUESTS)
