"""Counts of the fleet: exact while small, and a lower bound or an estimate where they are not."""

from datetime import timedelta

import pytest
import sqlalchemy as sa

from benchmarks.bulk import load
from byok.core.counts import Count, Precision
from byok.core.model import RotationState, TenantState
from byok.store import counts
from byok.store.postgres import PostgresStore

DAY = timedelta(days=1)


@pytest.fixture
def fleet(store: PostgresStore, engine: sa.Engine) -> PostgresStore:
    """1000 tenants, one of them suspended; 3000 keys."""
    load(engine, keys=3_000, keys_per_tenant=3, due_share=0.1)
    return store


def exact(engine: sa.Engine, question: str) -> int:
    with engine.connect() as connection:
        return int(connection.execute(sa.text(question)).scalar_one())


def test_small_numbers_are_exact(fleet: PostgresStore, engine: sa.Engine) -> None:
    now = fleet.now()
    overdue = exact(
        engine,
        "SELECT count(*) FROM keys JOIN tenants ON tenants.id = tenant_id"
        " WHERE next_rotation_at <= now() AND state = 'active'",
    )
    done = exact(
        engine,
        "SELECT count(*) FROM rotations WHERE state = 'done' AND requested_at >= now() - interval '1 day'",
    )
    with fleet.transaction() as tx:
        assert tx.counts.tenants() == {TenantState.ACTIVE: Count(999), TenantState.SUSPENDED: Count(1)}
        assert [tenant.name for tenant in tx.tenants.list_suspended(20)] == ["tenant-999"]
        assert tx.counts.keys() == Count(3_000)
        assert tx.counts.overdue(now) == Count(overdue)
        within_a_day = tx.counts.rotations(now - DAY)
        ever = tx.counts.rotations(now - 60 * DAY)
    assert 0 < done < 200
    # The ids were made a moment after the times that they carry.
    assert abs(within_a_day[RotationState.DONE].number - done) <= 1
    assert within_a_day[RotationState.REQUESTED] == ever[RotationState.REQUESTED] == Count(3)
    assert ever[RotationState.FAILED] == Count(3)
    assert ever[RotationState.DONE] == Count(3_000)


def test_large_numbers_are_not_counted_out(fleet: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "COUNTED", 100)
    now = fleet.now()
    with fleet.transaction() as tx:
        assert tx.counts.keys() == Count(3_000, Precision.ABOUT)
        assert tx.counts.tenants() == {
            TenantState.ACTIVE: Count(999, Precision.ABOUT), TenantState.SUSPENDED: Count(1)
        }  # fmt: skip
        overdue = tx.counts.overdue(now)
        done = tx.counts.rotations(now - 60 * DAY)[RotationState.DONE]
    assert overdue.number <= 100
    assert overdue.precision is Precision.AT_LEAST
    assert done == Count(100, Precision.AT_LEAST)


def test_what_vacuum_has_not_seen_is_a_lower_bound(
    fleet: PostgresStore, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts, "COUNTED", 100)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE pg_class SET reltuples = -1 WHERE relname = 'keys'"))
    with fleet.transaction() as tx:
        assert tx.counts.keys() == Count(100, Precision.AT_LEAST)


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (Count(12), "12"),
        (Count(1_000_123, Precision.ABOUT), "about 1000123"),
        (Count(10_000, Precision.AT_LEAST), "10000+"),
    ],
)
def test_a_count_says_how_precise_it_is(count: Count, shown: str) -> None:
    assert str(count) == shown
