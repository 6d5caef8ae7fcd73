"""Verification of audit chains: page by page, and all tenants' in a row."""

import pytest
import sqlalchemy as sa

from benchmarks.bulk import add_chain
from byok.crypto.hazmat import SecretBytes
from byok.crypto.keyring import MasterKeyRing
from byok.errors import AuditChainBroken, UnknownTenant
from byok.services.auditing import Auditor
from byok.store.postgres import PostgresStore

MASTER_KEYS = MasterKeyRing([("mk-1", SecretBytes(bytes(32)))], bytes)


@pytest.mark.parametrize("events", [1, 2_000, 4_001])
def test_a_chain_of_several_pages_is_walked_to_its_end(
    store: PostgresStore, engine: sa.Engine, events: int
) -> None:
    add_chain(engine, "acme", events)
    auditor, pages = Auditor(store, MASTER_KEYS), list[int]()
    assert auditor.verify(auditor.chain("acme"), pages.append).last.sequence == events
    assert sum(pages) == events
    assert max(pages) <= 2_000


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("UPDATE audit_events SET actor = 'x' WHERE sequence = 2500", "event 2500 was changed"),
        ("DELETE FROM audit_events WHERE sequence = 2001", "event 2001 is missing; 2002 follows"),
        ("DELETE FROM audit_events WHERE sequence > 2000", "event 2001 is missing; the head"),
        ("DELETE FROM audit_events", "event 1 is missing; the head"),
        ("UPDATE audit_heads SET sequence = 2500", "event 2501 is behind the head of the chain"),
        ("DELETE FROM audit_heads", "event 1 is behind the head of the chain"),
        ("TRUNCATE audit_events, audit_heads", "event 1 is missing, and all others"),
        ("UPDATE audit_heads SET hash = sha256('x')", "event 3000 is not the one that the head"),
        ("UPDATE audit_events SET at = 'infinity' WHERE sequence = 2500", "event 2500 was changed"),
        ("UPDATE audit_events SET details = '[]' WHERE sequence = 2500", "event 2500 was changed"),
    ],
)
def test_damage_behind_the_first_page_is_found(
    store: PostgresStore, engine: sa.Engine, damage: str, told: str
) -> None:
    add_chain(engine, "acme", 3_000)
    with engine.begin() as connection:
        connection.execute(sa.text(damage))
    auditor = Auditor(store, MASTER_KEYS)
    with pytest.raises(AuditChainBroken, match=told):
        auditor.verify(auditor.chain("acme"))
    [among_all] = auditor.chains()
    with pytest.raises(AuditChainBroken, match=told):
        auditor.verify(among_all)


def test_events_that_are_added_meanwhile_are_walked_too(store: PostgresStore, engine: sa.Engine) -> None:
    add_chain(engine, "acme", 10)
    auditor = Auditor(store, MASTER_KEYS)
    chain = auditor.chain("acme")
    with store.transaction() as tx:
        tx.audit.append(chain.tenant_id, store.now(), "test", "key.created")
    assert auditor.verify(chain).last.sequence == 11


def test_chains_of_all_tenants_are_found_once(store: PostgresStore, engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                "WITH made AS (INSERT INTO tenants (id, name, state, generation, external_id, created_at)"
                " SELECT gen_random_uuid(), n, 'pending', 0, n, now() FROM generate_series(1, 2001) AS n"
                " RETURNING id) INSERT INTO audit_heads"
                " SELECT id, 0, decode(repeat('00', 32), 'hex') FROM made"
            )
        )
    assert len({chain.tenant for chain in Auditor(store, MASTER_KEYS).chains()}) == 2_001


def test_an_unknown_tenant_has_no_chain(store: PostgresStore) -> None:
    with pytest.raises(UnknownTenant):
        Auditor(store, MASTER_KEYS).chain("acme")
