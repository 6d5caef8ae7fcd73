"""Signed checkpoints: made daily and on demand, given away, and what they show of a chain written anew."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from byok.core.audit import AuditChain, ChainPlace, link_event
from byok.core.checkpoints import KeptCheckpoint, SignedCheckpoint
from byok.core.lookout import FindingKind
from byok.crypto.checkpoints import document_of, read_checkpoint, sign_checkpoint
from byok.crypto.hazmat import SecretBytes
from byok.crypto.keyring import MasterKeyRing
from byok.crypto.reports import PURPOSE
from byok.errors import AuditChainBroken, ReportNotAuthentic
from byok.services.auditing import Auditor, Verified
from byok.services.checkpoints import Checkpoints
from byok.services.webhooks import WebhookDeliveries
from byok.store import schema
from byok.store.rows import from_audit_event
from tests.fakes import FakeKmsKey
from tests.world import World, kms_key_arn

URL = "https://hooks.acme.example/byok"


@pytest.fixture
def acme(world: World) -> World:
    """A tenant with three events, and no finding to come."""
    world.kms.keys[kms_key_arn(1)] = FakeKmsKey(rotation_days=365)
    world.add_tenant()
    return world


def look(world: World) -> None:
    world.services.lookout.look("acme", actor="watch")
    world.clock.advance(days=1)


def sign(world: World) -> SignedCheckpoint:
    return world.services.checkpoints.sign("acme", actor="test")


def stored(world: World) -> list[tuple[int, int]]:
    """The numbers of the stored checkpoints, and of the events that they speak of."""
    with world.store.transaction() as tx:
        listed = tx.signed_checkpoints.list_after(world.tenant().id, 0, 100)
    return [(one.checkpoint.number, one.checkpoint.place.sequence) for one in listed]


def chain(world: World) -> AuditChain:
    return world.services.auditor.chain("acme")


def verify(world: World, *kept: SignedCheckpoint) -> Verified:
    from_outside = [
        KeptCheckpoint(f"kept-{number}.json", one.checkpoint) for number, one in enumerate(kept, 1)
    ]
    return world.services.auditor.verify(chain(world), kept=from_outside)


def write_anew(engine: sa.Engine, found: AuditChain, first: int, actor: str) -> None:
    """What somebody does who may write to PostgreSQL: change events, and make all hashes right again."""
    table = schema.audit_events
    with engine.begin() as connection:
        rows = connection.execute(
            sa.select(table).where(table.c.tenant_id == found.tenant_id).order_by(table.c.sequence)
        ).all()
        previous_hash = rows[first - 2].hash if first > 1 else bytes(32)
        for row in rows[first - 1 :]:
            event = link_event(
                tenant_id=row.tenant_id, sequence=row.sequence, previous_hash=previous_hash, at=row.at,
                actor=actor, action=row.action, details=row.details,
            )  # fmt: skip
            previous_hash = event.hash
            mine = sa.and_(table.c.tenant_id == row.tenant_id, table.c.sequence == row.sequence)
            connection.execute(table.update().where(mine).values(from_audit_event(event)))
        connection.execute(
            schema.audit_heads.update()
            .where(schema.audit_heads.c.tenant_id == found.tenant_id)
            .values(hash=previous_hash)
        )


def test_the_watch_signs_once_a_day_what_is_new(acme: World) -> None:
    look(acme)
    look(acme)  # nothing came but the event of the first checkpoint
    assert stored(acme) == [(1, 3)]
    acme.add_key()
    look(acme)
    assert stored(acme) == [(1, 3), (2, 9)]
    assert acme.audit_actions()[3] == "audit.checkpoint-signed"
    assert verify(acme) == Verified(ChainPlace(10, chain(acme).head.hash), 2, 0)


def test_a_broken_chain_is_not_signed(acme: World, engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE audit_events SET actor = 'nobody' WHERE sequence = 2"))
    look(acme)
    assert stored(acme) == []
    with pytest.raises(AuditChainBroken, match="event 2 "):
        sign(acme)


def test_a_chain_without_an_event_is_not_signed(world: World, engine: sa.Engine) -> None:
    world.add_tenant()
    with engine.begin() as connection:
        connection.execute(sa.text("TRUNCATE audit_events, audit_heads"))
    with pytest.raises(AuditChainBroken, match="event 1 is missing"):
        sign(world)


def test_an_event_is_never_signed_in_two_ways(acme: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that differ are proof that the vendor rewrote the log: whoever does that while one is signed."""
    signed = sign(acme).checkpoint
    anew = ChainPlace(signed.place.sequence, bytes(32))
    monkeypatch.setattr(acme.services.auditor, "walk", lambda *_: anew)
    with pytest.raises(AuditChainBroken, match="is not what checkpoint 1 signed"):
        sign(acme)


def test_a_checkpoint_says_what_the_chain_has(acme: World) -> None:
    head = chain(acme).head
    signed = sign(acme)
    document = json.loads(json.dumps(document_of(signed)))
    trusted = acme.master_keys.signing_keys(PURPOSE).values()
    assert read_checkpoint(document, trusted) == signed.checkpoint
    assert document["kind"] == "audit-checkpoint"
    assert document["report"] == {
        "at": signed.checkpoint.at.isoformat(timespec="microseconds"),
        "checkpoint": 1,
        "hash": head.hash.hex(),
        "master_key_id": "mk-1",
        "sequence": 3,
        "tenant_id": str(acme.tenant().id),
    }
    document["report"]["sequence"] = 2
    with pytest.raises(ReportNotAuthentic):
        read_checkpoint(document, trusted)


def test_it_goes_to_the_customers_endpoint(acme: World) -> None:
    acme.services.registry.set_webhook("acme", URL, allow_http=False, actor="test")
    signed = sign(acme)
    look(acme)  # nothing new: nothing more to send
    WebhookDeliveries(acme.store, acme.webhooks, acme.master_keys, acme.clock).run()
    (body,) = [json.loads(body) for _, _, body in acme.webhooks.posted]
    assert (body["type"], body["data"]) == ("audit.checkpoint", document_of(signed))


def test_who_is_overtaken_gets_the_later_one(acme: World, monkeypatch: pytest.MonkeyPatch) -> None:
    walk, later = Auditor.walk, list[SignedCheckpoint]()

    def overtaken(auditor: Auditor, found: AuditChain, after: ChainPlace) -> ChainPlace:
        place = walk(auditor, found, after)
        monkeypatch.setattr(Auditor, "walk", walk)
        acme.add_key()
        later.append(sign(acme))
        return place

    monkeypatch.setattr(Auditor, "walk", overtaken)
    assert [sign(acme)] == later
    assert verify(acme).checkpoints == 1


# --- a chain that was written anew ----------------------------------------------------------------


def test_a_chain_written_anew_contradicts_the_stored_checkpoint(acme: World, engine: sa.Engine) -> None:
    sign(acme)
    acme.add_key()
    write_anew(engine, chain(acme), 2, "somebody")
    with pytest.raises(AuditChainBroken, match="event 3 is not what checkpoint 1 signed"):
        verify(acme)


def test_the_watch_sees_it_within_a_day(acme: World, engine: sa.Engine) -> None:
    look(acme)
    acme.add_key()
    write_anew(engine, chain(acme), 2, "somebody")
    with engine.begin() as connection:  # whoever wrote the chain anew hides it from the watch as well
        connection.execute(sa.text("UPDATE audit_checkpoints SET sequence = e.sequence, hash = e.hash"
                                   " FROM audit_events e WHERE e.sequence = 4"))  # fmt: skip
    found = acme.services.lookout.look("acme", actor="watch").open
    assert [one.kind for one in found] == [FindingKind.AUDIT_CHAIN_BROKEN]
    assert "event 3 is not what checkpoint 1 signed" in str(found[0].detail)


def forget_checkpoints(engine: sa.Engine) -> None:
    """What only a vendor's own administrator thinks of: the checkpoints' rows and their events."""
    with engine.begin() as connection:
        connection.execute(sa.text("TRUNCATE signed_checkpoints"))
        connection.execute(
            sa.text(
                "UPDATE audit_events SET action = 'tenant.verified', details = '{}'"
                " WHERE action = 'audit.checkpoint-signed'"
            )
        )


def test_the_watchs_own_mark_shows_it_without_any_checkpoint(acme: World, engine: sa.Engine) -> None:
    look(acme)
    forget_checkpoints(engine)
    write_anew(engine, chain(acme), 2, "somebody")
    found = acme.services.lookout.look("acme", actor="watch").open
    assert "event 3 is not what it was when it was last verified" in str(found[0].detail)


def test_what_the_customer_kept_shows_what_the_vendor_hid(acme: World, engine: sa.Engine) -> None:
    first = sign(acme)
    acme.add_key()
    second = sign(acme)
    forget_checkpoints(engine)
    write_anew(engine, chain(acme), 4, "somebody")
    assert verify(acme).checkpoints == 0
    assert verify(acme, first).last.sequence == 10
    with pytest.raises(AuditChainBroken, match=r"event 9 is not what kept-2\.json signed") as caught:
        verify(acme, first, second)
    assert "one of the events 4 to 9" in caught.value.message
    acme.services.checkpoints.sign("acme", actor="test")  # the vendor signs what it made of it


def test_an_end_that_was_cut_off_is_missed_by_who_kept_more(acme: World, engine: sa.Engine) -> None:
    acme.add_key()
    kept = sign(acme)
    with engine.begin() as connection:
        connection.execute(sa.text("TRUNCATE signed_checkpoints"))
        connection.execute(sa.text("DELETE FROM audit_events WHERE sequence > 5"))
        connection.execute(
            sa.text(
                "UPDATE audit_heads SET sequence = e.sequence, hash = e.hash"
                " FROM audit_events e WHERE e.sequence = 5"
            )
        )
    assert verify(acme).last.sequence == 5
    with pytest.raises(AuditChainBroken, match=r"event 6 is missing; kept-1\.json signed event 8"):
        verify(acme, kept)


def test_two_of_one_event_are_proof(acme: World) -> None:
    honest = sign(acme)
    other = replace(honest.checkpoint, place=ChainPlace(3, bytes(32)))
    with pytest.raises(
        AuditChainBroken, match=r"kept-\d.json and kept-\d.json contradict .* event 3.* proof"
    ):
        verify(acme, honest, sign_checkpoint(acme.master_keys, other))


def test_a_checkpoint_put_in_is_in_no_event(acme: World) -> None:
    more = sign_checkpoint(acme.master_keys, replace(sign(acme).checkpoint, number=2))
    with acme.store.transaction() as tx:
        tx.signed_checkpoints.add(more)
    with pytest.raises(AuditChainBroken, match="checkpoint 2 of event 3 is in no event"):
        verify(acme)


def test_a_checkpoint_taken_out_is_missed(acme: World, engine: sa.Engine) -> None:
    sign(acme)
    with engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM signed_checkpoints"))
    with pytest.raises(AuditChainBroken, match="checkpoint 1 of event 3 is missing; event 4 says"):
        verify(acme)


# --- master keys that come and go -----------------------------------------------------------------


def ring(world: World, *key_ids: str) -> MasterKeyRing:
    keys = {"mk-1": bytes(32), "mk-2": b"2" * 32}
    return MasterKeyRing([(one, SecretBytes(keys[one])) for one in key_ids], world.random.bytes)


def checkpoints_by(world: World, keys: MasterKeyRing) -> tuple[Auditor, Checkpoints]:
    auditor = Auditor(world.store, keys)
    return auditor, Checkpoints(world.store, auditor, keys, world.clock, world.random)


def test_checkpoints_outlive_their_master_key(acme: World) -> None:
    old, both, new = ring(acme, "mk-1"), ring(acme, "mk-2", "mk-1"), ring(acme, "mk-2")
    by_old = checkpoints_by(acme, old)[1].sign("acme", actor="test")
    auditor, checkpoints = checkpoints_by(acme, both)
    by_new = checkpoints.sign("acme", actor="test")
    assert (by_old.master_key_id, by_new.master_key_id) == ("mk-1", "mk-2")
    assert auditor.verify(chain(acme)).unknown_signers == 0
    auditor = Auditor(acme.store, new)
    assert auditor.verify(chain(acme)).unknown_signers == 1
    kept = old.signing_keys(PURPOSE).values()
    assert auditor.verify(chain(acme), trusted=kept).unknown_signers == 0


def test_a_new_master_key_signs_what_the_old_one_had(acme: World) -> None:
    place = chain(acme).head
    for keys in (ring(acme, "mk-1"), ring(acme, "mk-1"), ring(acme, "mk-2", "mk-1")):
        with acme.store.transaction() as tx:
            checkpoints_by(acme, keys)[1].sign_news(tx, acme.tenant(), place, actor="watch")
    assert stored(acme) == [(1, 3), (2, 3)]


def signers(world: World, engine: sa.Engine) -> Sequence[str]:
    with engine.connect() as connection:
        return connection.execute(sa.select(schema.signed_checkpoints.c.master_key_id)).scalars().all()


def test_a_signer_cannot_be_made_up(acme: World, engine: sa.Engine) -> None:
    """A key of one's own under the name of one of ours is not ours."""
    stranger = MasterKeyRing([("mk-1", SecretBytes(b"x" * 32))], acme.random.bytes)
    with acme.store.transaction() as tx:
        checkpoints_by(acme, stranger)[1].sign_news(tx, acme.tenant(), chain(acme).head, actor="x")
    assert signers(acme, engine) == ["mk-1"]
    with pytest.raises(AuditChainBroken, match="checkpoint 1 of event 3 was changed"):
        verify(acme)


def test_checkpoints_are_as_old_as_they_say(acme: World) -> None:
    before = acme.clock.now()
    assert sign(acme).checkpoint.at - before < timedelta(seconds=1)
