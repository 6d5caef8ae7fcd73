"""Leases over a real PostgreSQL: one absolute deadline, few KMS calls, and a stop that sticks."""

import threading
from dataclasses import replace
from datetime import timedelta

import pytest

from byok.core.model import TenantState
from byok.errors import (
    CannotDecrypt,
    EmptyContext,
    KmsAccessRevoked,
    KmsBackingOff,
    KmsIntegrityError,
    KmsUnavailable,
    NotReady,
    OutOfBounds,
    TenantNotActive,
    UnknownKey,
    UnknownTenant,
)
from byok.services.fields import Cipher
from byok.wiring import Services
from tests.world import World

CONTEXT = b"users.email:1"


def cipher(services: Services, tenant: str = "acme") -> Cipher:
    return services.vault.cipher(tenant, "pii")


@pytest.fixture
def token(world: World) -> bytes:
    world.add_tenant()
    world.add_key()
    return cipher(world.services).encrypt(b"ada@example.com", context=CONTEXT)


def test_a_new_process_finds_the_lease_in_the_cache_and_asks_no_kms(world: World, token: bytes) -> None:
    asked = world.kms.count("Decrypt")
    assert cipher(world.another_process()).decrypt(token, context=CONTEXT) == b"ada@example.com"
    assert world.kms.count("Decrypt") == asked


def test_the_deadline_counts_from_the_kms_decrypt_through_every_cache(world: World, token: bytes) -> None:
    world.clock.advance(minutes=59)
    late = world.another_process()
    cipher(late).decrypt(token, context=CONTEXT)
    asked = world.kms.count("Decrypt")
    world.clock.advance(minutes=2)  # 61 minutes after the Decrypt, 2 after this process got its lease
    cipher(late).decrypt(token, context=CONTEXT)
    assert world.kms.count("Decrypt") == asked + 1


def test_a_reader_with_a_shorter_ttl_applies_its_own(world: World, token: bytes) -> None:
    world.clock.advance(minutes=10)
    world.services.registry.set_rotation("acme", "pii", actor="test", lease_ttl=timedelta(minutes=5))
    asked = world.kms.count("Decrypt")
    cipher(world.another_process()).decrypt(token, context=CONTEXT)
    assert world.kms.count("Decrypt") == asked + 1


def test_a_ttl_that_is_shortened_shortens_the_leases_that_are_held(world: World, token: bytes) -> None:
    world.services.registry.set_rotation("acme", "pii", actor="test", lease_ttl=timedelta(minutes=5))
    world.clock.advance(minutes=6)
    asked = world.kms.count("Decrypt")
    cipher(world.services).decrypt(token, context=CONTEXT)
    assert world.kms.count("Decrypt") == asked + 1


def test_ttl_zero_caches_nothing(world: World) -> None:
    world.add_tenant()
    world.add_key(ttl=timedelta(0))
    asked = world.kms.count("Decrypt")
    token = cipher(world.services).encrypt(b"x", context=CONTEXT)
    cipher(world.services).decrypt(token, context=CONTEXT)
    assert world.kms.count("Decrypt") == asked + 2
    assert world.cache.entries == {}


def test_many_threads_that_miss_at_once_make_one_kms_call(world: World, token: bytes) -> None:
    world.cache.entries.clear()
    services = world.another_process()
    asked = world.kms.count("Decrypt")
    barrier = threading.Barrier(8)

    def use() -> None:
        barrier.wait()
        cipher(services).decrypt(token, context=CONTEXT)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert world.kms.count("Decrypt") == asked + 1


# --- bounded by a clock that nobody can set -------------------------------------------------------


def test_a_clock_that_is_set_back_lengthens_no_lease_in_hand(world: World, token: bytes) -> None:
    world.clock.step(hours=-5)
    world.clock.advance(minutes=61)
    asked = world.kms.count("Decrypt")
    cipher(world.services).decrypt(token, context=CONTEXT)
    assert world.kms.count("Decrypt") == asked + 1


def test_a_clock_that_is_set_back_lengthens_no_lease_in_the_cache(world: World, token: bytes) -> None:
    world.clock.advance(minutes=50)
    world.clock.step(minutes=-49)
    late = world.another_process()
    asked = world.kms.count("Decrypt")
    cipher(late).decrypt(token, context=CONTEXT)
    assert world.kms.count("Decrypt") == asked, "the cache's own clock has ten minutes left for it"
    world.clock.advance(minutes=11)
    cipher(late).decrypt(token, context=CONTEXT)
    assert world.kms.count("Decrypt") == asked + 1


def test_a_lease_is_used_so_often_and_then_fetched_again(world: World, token: bytes) -> None:
    process = world.another_process(max_lease_uses=10)
    before = world.metrics.counts["lease", "cache"]
    for _ in range(31):
        cipher(process).decrypt(token, context=CONTEXT)
    assert world.metrics.counts["lease", "cache"] - before >= 3


# --- one request for the whole fleet --------------------------------------------------------------


def test_a_lease_that_nears_its_end_is_renewed_once_for_the_fleet_and_nobody_waits(
    world: World, token: bytes
) -> None:
    fleet = [world.another_process() for _ in range(4)]
    for process in fleet:
        cipher(process).decrypt(token, context=CONTEXT)
    asked = world.kms.count("Decrypt")
    world.clock.advance(minutes=52)
    for process in fleet:
        cipher(process).decrypt(token, context=CONTEXT)
    assert world.kms.count("Decrypt") == asked + 1, "renewed ahead of time, by one"
    world.clock.advance(minutes=30)  # past the end of the first lease
    for process in fleet:
        cipher(process).decrypt(token, context=CONTEXT)
    assert world.kms.count("Decrypt") == asked + 1


def test_a_renewal_that_fails_leaves_the_lease_to_its_deadline(world: World, token: bytes) -> None:
    world.clock.advance(minutes=52)
    world.kms.fail_next(KmsUnavailable("timeout"))
    assert cipher(world.services).decrypt(token, context=CONTEXT) == b"ada@example.com"
    world.clock.advance(minutes=1)
    asked = world.kms.count("Decrypt")
    assert cipher(world.services).decrypt(token, context=CONTEXT) == b"ada@example.com"
    assert world.kms.count("Decrypt") == asked + 1, "and is tried again"


def test_a_renewal_that_is_refused_stops_the_tenant(world: World, token: bytes) -> None:
    world.kms.disable(world.versions()[0].kms_key_arn)
    world.clock.advance(minutes=52)
    cipher(world.services).decrypt(token, context=CONTEXT)  # the last one, by a lease that was still good
    assert world.tenant().state is TenantState.SUSPENDED
    with pytest.raises(TenantNotActive):
        cipher(world.services).decrypt(token, context=CONTEXT)


def test_a_probe_renews_the_lease_of_the_fleet(world: World, token: bytes) -> None:
    world.clock.advance(minutes=30)
    world.services.checkups.probe("acme")
    asked = world.kms.count("Decrypt")
    world.clock.advance(minutes=45)
    cipher(world.another_process()).decrypt(token, context=CONTEXT)
    assert world.kms.count("Decrypt") == asked


def test_after_a_failure_nobody_asks_for_a_moment(world: World, token: bytes) -> None:
    world.cache.entries.clear()
    world.kms.fail_next(KmsUnavailable("timeout"), times=1)
    with pytest.raises(KmsUnavailable):
        cipher(world.another_process()).decrypt(token, context=CONTEXT)
    asked = world.kms.count("Decrypt")
    for _ in range(20):
        with pytest.raises(KmsBackingOff):
            cipher(world.another_process()).decrypt(token, context=CONTEXT)
    assert world.kms.count("Decrypt") == asked
    world.clock.advance(seconds=2)
    assert cipher(world.another_process()).decrypt(token, context=CONTEXT) == b"ada@example.com"


def test_after_a_refusal_the_others_look_instead_of_asking(world: World, token: bytes) -> None:
    other = world.another_process()
    cipher(other).decrypt(token, context=CONTEXT)
    other.desk._held.drop_lease(next(iter(other.desk._held.leases)))
    world.cache.entries.clear()
    world.board.loses_all = True
    world.kms.disable(world.versions()[0].kms_key_arn)
    with pytest.raises(KmsAccessRevoked):
        cipher(world.another_process()).decrypt(token, context=CONTEXT)
    asked = world.kms.count("Decrypt")
    with pytest.raises(TenantNotActive):
        cipher(other).decrypt(token, context=CONTEXT)  # its view still says active
    assert world.kms.count("Decrypt") == asked


def test_a_version_that_kms_makes_no_sense_of_is_in_quarantine_for_all(world: World, token: bytes) -> None:
    world.cache.entries.clear()
    world.kms.fail_next(KmsIntegrityError("Decrypt: InvalidCiphertextException"), times=1)
    with pytest.raises(KmsIntegrityError):
        cipher(world.another_process()).decrypt(token, context=CONTEXT)
    asked = world.kms.count("Decrypt")
    for _ in range(5):
        with pytest.raises(KmsIntegrityError, match="quarantine"):
            cipher(world.another_process()).decrypt(token, context=CONTEXT)
    assert world.kms.count("Decrypt") == asked
    assert world.metrics.counts["integrity-alarm"] == 1
    assert world.tenant().state is TenantState.ACTIVE, "an alarm is no revocation"
    world.clock.advance(seconds=11)
    assert cipher(world.another_process()).decrypt(token, context=CONTEXT) == b"ada@example.com"


def test_who_died_while_asking_holds_the_others_up_for_seconds(world: World, token: bytes) -> None:
    (lease_id,) = world.cache.entries
    world.cache.entries.clear()
    assert world.cache.take(lease_id, "dead", timedelta(seconds=3), world.clock.now()).is_ours  # and dies
    began = world.clock.now()
    assert cipher(world.another_process()).decrypt(token, context=CONTEXT) == b"ada@example.com"
    assert timedelta(seconds=3) <= world.clock.now() - began < timedelta(seconds=4)


def test_without_a_cache_a_process_spaces_its_kms_calls(world: World) -> None:
    world.add_tenant()
    for number in range(40):
        world.add_key(key=f"key-{number}")
    world.cache.is_down = True
    process = world.another_process()
    began = world.clock.now()
    for number in range(40):
        process.vault.cipher("acme", f"key-{number}").encrypt(b"x", context=CONTEXT)
    assert world.clock.now() - began >= timedelta(seconds=39 / 20)


# --- outages --------------------------------------------------------------------------------------


def test_in_an_outage_a_call_fails_at_once_unless_the_tenant_says_wait(world: World, token: bytes) -> None:
    world.cache.entries.clear()
    world.kms.fail_next(KmsUnavailable("timeout"), times=100)
    began = world.clock.now()
    with pytest.raises(KmsUnavailable):
        cipher(world.another_process()).decrypt(token, context=CONTEXT)
    assert world.clock.now() - began < timedelta(seconds=1)

    world.services.registry.set_outage_wait("acme", timedelta(seconds=30), actor="test")
    process, began = world.another_process(), world.clock.now()
    with pytest.raises(KmsUnavailable):
        cipher(process).decrypt(token, context=CONTEXT)
    assert timedelta(seconds=25) < world.clock.now() - began <= timedelta(seconds=31)

    world.kms.clear_faults()
    world.kms.fail_next(KmsUnavailable("timeout"), times=3)
    world.clock.advance(seconds=2)
    assert cipher(process).decrypt(token, context=CONTEXT) == b"ada@example.com"


def test_waiting_is_bounded(world: World, token: bytes) -> None:
    with pytest.raises(OutOfBounds):
        world.services.registry.set_outage_wait("acme", timedelta(minutes=6), actor="test")


def test_cache_down_means_kms_not_failure(world: World, token: bytes) -> None:
    world.cache.is_down = True
    assert cipher(world.another_process()).decrypt(token, context=CONTEXT) == b"ada@example.com"


def test_an_entry_moved_to_another_version_or_tampered_with_is_ignored(world: World, token: bytes) -> None:
    ((lease_id, (lease, expires)),) = world.cache.entries.items()
    forged = replace(lease, decrypted_at=lease.decrypted_at + timedelta(minutes=30))
    world.cache.entries[lease_id] = (forged, expires)
    asked = world.kms.count("Decrypt")
    assert cipher(world.another_process()).decrypt(token, context=CONTEXT) == b"ada@example.com"
    assert world.kms.count("Decrypt") == asked + 1


def test_kms_outage_serves_leases_to_their_deadline_and_not_past_it(world: World, token: bytes) -> None:
    world.kms.fail_next(KmsUnavailable("timeout"), times=10)
    world.clock.advance(minutes=59)
    assert cipher(world.services).decrypt(token, context=CONTEXT) == b"ada@example.com"
    world.clock.advance(minutes=2)
    with pytest.raises(KmsUnavailable):
        cipher(world.services).decrypt(token, context=CONTEXT)
    assert world.tenant().state is TenantState.ACTIVE


def test_revocation_on_a_miss_suspends_and_stops_every_process_within_the_recheck(
    world: World, token: bytes
) -> None:
    other = world.another_process()
    cipher(other).decrypt(token, context=CONTEXT)
    world.kms.disable(world.versions()[0].kms_key_arn)
    world.cache.entries.clear()
    with pytest.raises(KmsAccessRevoked):
        cipher(world.another_process()).decrypt(token, context=CONTEXT)
    assert world.tenant().state is TenantState.SUSPENDED
    world.clock.advance(
        seconds=6
    )  # one recheck later the other process knows, though its lease lasts an hour
    with pytest.raises(TenantNotActive):
        cipher(other).decrypt(token, context=CONTEXT)
    with pytest.raises(TenantNotActive):
        cipher(other).encrypt(b"x", context=CONTEXT)


def test_suspension_purges_the_cache(world: World, token: bytes) -> None:
    assert world.cache.entries
    world.kms.disable(world.versions()[0].kms_key_arn)
    world.services.checkups.probe("acme")
    assert world.cache.entries == {}


def test_a_refill_after_the_purge_is_never_found(world: World, token: bytes) -> None:
    stale = dict(world.cache.entries)
    arn = world.versions()[0].kms_key_arn
    world.kms.disable(arn)
    world.services.checkups.probe("acme")
    world.cache.entries.update(stale)  # a slow process writes what it had fetched before
    world.kms.enable(arn)
    world.services.checkups.probe("acme")
    asked = world.kms.count("Decrypt")
    assert cipher(world.another_process()).decrypt(token, context=CONTEXT) == b"ada@example.com"
    assert world.kms.count("Decrypt") == asked + 1


def test_access_that_returns_lifts_the_suspension_after_a_real_decrypt(world: World, token: bytes) -> None:
    arn = world.versions()[0].kms_key_arn
    world.kms.disable(arn)
    world.services.checkups.probe("acme")
    assert world.services.checkups.probe("acme") is TenantState.SUSPENDED
    world.kms.enable(arn)
    assert world.services.checkups.probe("acme") is TenantState.ACTIVE
    world.clock.advance(seconds=6)
    assert cipher(world.services).decrypt(token, context=CONTEXT) == b"ada@example.com"
    assert world.audit_actions()[-2:] == ["tenant.suspended", "tenant.resumed"]


def test_one_tenant_cannot_open_what_another_encrypted(world: World, token: bytes) -> None:
    world.add_tenant("globex")
    world.add_key("globex")
    with pytest.raises(CannotDecrypt):
        cipher(world.services, "globex").decrypt(token, context=CONTEXT)


def test_every_bad_ciphertext_gets_the_same_answer(world: World, token: bytes) -> None:
    flipped = [token[:i] + bytes([token[i] ^ 1]) + token[i + 1 :] for i in range(len(token))]
    bad = [b"", token[:-1], token + b"x", token[:44], *flipped]
    messages = set()
    for one in bad:
        with pytest.raises(CannotDecrypt) as caught:
            cipher(world.services).decrypt(one, context=CONTEXT)
        messages.add(str(caught.value))
        assert caught.value.__cause__ is None
    with pytest.raises(CannotDecrypt) as caught:
        cipher(world.services).decrypt(token, context=b"users.email:2")
    messages.add(str(caught.value))
    assert len(messages) == 1


def test_a_context_of_zero_length_is_refused(world: World, token: bytes) -> None:
    with pytest.raises(EmptyContext):
        cipher(world.services).encrypt(b"x", context=b"")
    with pytest.raises(EmptyContext):
        cipher(world.services).decrypt(token, context=b"")
    with pytest.raises(EmptyContext):
        cipher(world.services).encrypt_many([(b"x", CONTEXT), (b"y", b"")])


def test_encrypt_many_gives_tokens_that_open_one_by_one(world: World, token: bytes) -> None:
    items = [(f"user{i}@example.com".encode(), f"users.email:{i}".encode()) for i in range(100)]
    tokens = cipher(world.services).encrypt_many(items)
    assert len(set(tokens)) == 100
    for sealed, (plaintext, context) in zip(tokens, items, strict=True):
        assert cipher(world.services).decrypt(sealed, context=context) == plaintext


def test_unknown_names_and_unready_keys_say_so(world: World) -> None:
    with pytest.raises(UnknownTenant):
        world.services.vault.cipher("nobody", "pii").encrypt(b"x", context=CONTEXT)
    world.add_tenant()
    with pytest.raises(UnknownKey):
        world.services.vault.cipher("acme", "pii").encrypt(b"x", context=CONTEXT)
    world.services.registry.create_key(
        "acme", "pii", rotation_period=timedelta(days=1), lease_ttl=timedelta(0), actor="test"
    )
    with pytest.raises(NotReady):
        world.services.vault.cipher("acme", "pii").encrypt(b"x", context=CONTEXT)


def test_a_forged_version_number_upsets_nobody(world: World, token: bytes) -> None:
    """Many try the same number at once: each is told that it does not open, and all views stay."""
    process = world.services
    cipher(process).decrypt(token, context=CONTEXT)
    view = process.desk._held.views["acme", "pii"]
    forged = token[:1] + (99).to_bytes(4) + token[5:]
    for other in (process, process, world.another_process()):  # within the mark that the first leaves
        with pytest.raises(CannotDecrypt):
            cipher(other).decrypt(forged, context=CONTEXT)
    assert process.desk._held.views["acme", "pii"] is view
