"""The benchmarks' bulk loader: its rows are ones that the code takes for its own."""

import sqlalchemy as sa

from benchmarks.bulk import add_chain, load
from byok.core.audit import verify_chain
from byok.core.lifecycle import check_versions
from byok.store.postgres import PostgresStore


def test_a_loaded_fleet_is_read_as_one_that_grew(store: PostgresStore, engine: sa.Engine) -> None:
    loaded = load(engine, keys=2_500, keys_per_tenant=2, versions_per_key=3, due_share=0.1, real_chains=3)
    assert (loaded.tenants, loaded.keys, loaded.versions) == (1_250, 2_500, 7_500)
    with store.transaction() as tx:
        due = [key for key in tx.keys.list_due(store.now(), None, 1_000) if key.is_free]
        first = tx.tenants.get("tenant-0")
        keys = tx.keys.list(first.id)
        versions = tx.versions.list(keys[1].id)
        assert verify_chain(tx.audit.list(first.id)) == 3 + 2 * (1 + 3 * 4)
        tx.audit.append(first.id, store.now(), "test", "key.shown")
        assert verify_chain(tx.audit.list(first.id)) == 30
    assert len(due) == loaded.due
    assert 150 < loaded.due < 350
    assert [version.number for version in versions] == [1, 2, 3]
    check_versions(versions)


def test_a_long_chain_is_a_real_one(store: PostgresStore, engine: sa.Engine) -> None:
    add_chain(engine, "old", 1_000)
    with store.transaction() as tx:
        assert verify_chain(tx.audit.list(tx.tenants.get("old").id)) == 1_000
