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
    KmsUnavailable,
    NotReady,
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
