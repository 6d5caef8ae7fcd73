"""The benchmark of scale runs, on a small fleet; what it says at a million keys is in docs/scale.md."""

import pytest
import sqlalchemy as sa

from benchmarks.bulk import load
from benchmarks.scale import exponent, verdict
from benchmarks.scale_queries import ACTIONS, measure
from benchmarks.scale_sizes import bytes_per_rotation, relations
from byok.store.postgres import PostgresStore


def test_every_query_is_timed_and_explained_and_changes_nothing(
    store: PostgresStore, engine: sa.Engine
) -> None:
    load(engine, keys=5_000, keys_per_tenant=50, due_share=0.05)  # fewer, and a plan may read the whole table
    with engine.connect() as connection:
        before = connection.execute(sa.text("SELECT max(next_validation_at) FROM keys")).scalar_one()
    costs = measure(engine)
    assert costs.keys() == ACTIONS.keys()
    assert all(cost.scans and cost.milliseconds > 0 for cost in costs.values())
    assert costs["dispatch: claim of 500 keys"].pages >= 100
    assert any("ix_keys_due" in scan for scan in costs["dispatch: a page of 500 due keys"].scans)
    with engine.connect() as connection:
        after = connection.execute(sa.text("SELECT max(next_validation_at) FROM keys")).scalar_one()
    assert before == after
    assert 1_000 < bytes_per_rotation(relations(engine)) < 10_000


@pytest.mark.parametrize(
    ("values", "kind"),
    [([5, 5, 5], "flat"), ([30, 60, 120], "log"), ([10, 100, 1_000], "[red]linear[/]")],
)
def test_the_verdict_is_by_the_slope(values: list[float], kind: str) -> None:
    assert verdict(exponent([1_000, 10_000, 100_000], values)) == kind
