"""What a cipher does without asking: it is as quick as it may be, and never further than it may go."""

import os
import threading
from datetime import timedelta

import pytest

from byok.core.wire import parse_token
from byok.errors import AccessStopped, CannotDecrypt, EmptyContext
from byok.services import held as held_module
from byok.services import lease as lease_module
from byok.services.fields import Cipher
from byok.services.lease import IvPool
from byok.services.page import MAX_PAGE_VALUES, Page
from byok.wiring import Services
from tests.fakes import CountingRandom
from tests.world import RECHECK, TTL, World

CONTEXT = b"users.email:42"


@pytest.fixture
def cipher(world: World) -> Cipher:
    """A cipher with an epoch on its lane, and the keys to open what it encrypts."""
    world.add_tenant()
    world.add_key()
    return warm(world.services)


def warm(services: Services) -> Cipher:
    cipher = services.vault.cipher("acme", "pii")
    for _ in range(3):  # fetched, armed, used
        cipher.decrypt(cipher.encrypt(b"x", context=CONTEXT), context=CONTEXT)
    return cipher


def salt(token: bytes) -> bytes:
    return parse_token(token).nonce[:12]


def never(*_: object, **__: object) -> None:
    raise AssertionError("asked though it need not")


def test_a_warm_cipher_asks_nobody(world: World, cipher: Cipher, monkeypatch: pytest.MonkeyPatch) -> None:
    token = cipher.encrypt(b"ada", context=CONTEXT)
    monkeypatch.setattr(cipher, "_desk", None)
    monkeypatch.setattr(world.services.desk._held, "_lock", None)
    monkeypatch.setattr(threading, "Lock", never)
    for _ in range(100):
        assert cipher.decrypt(cipher.encrypt(b"ada", context=CONTEXT), context=CONTEXT) == b"ada"
    assert cipher.decrypt(token, context=CONTEXT) == b"ada"
    assert len(cipher.encrypt_many([(b"x", CONTEXT)] * 100)) == 100


def test_randomness_is_drawn_many_ivs_at_a_time(
    world: World, cipher: Cipher, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def draw(count: int) -> bytes:
        drawn.append(count)
        return os.urandom(count)

    monkeypatch.setattr(world.random, "bytes", draw)
    for _ in range(1000):
        cipher.encrypt(b"x", context=CONTEXT)
    assert 3 <= len(drawn) <= 4
    assert set(drawn) == {12 * 256}


def test_messages_of_a_lease_share_a_salt_and_no_iv(cipher: Cipher) -> None:
    tokens = [cipher.encrypt(b"x", context=CONTEXT) for _ in range(2000)]
    assert len({salt(token) for token in tokens}) == 1
    assert len({parse_token(token).nonce for token in tokens}) == 2000


def test_another_lease_has_another_salt(world: World, cipher: Cipher) -> None:
    before = salt(cipher.encrypt(b"x", context=CONTEXT))
    world.clock.advance(seconds=TTL.total_seconds())
    after = salt(warm(world.services).encrypt(b"x", context=CONTEXT))
    assert after not in (before, salt(warm(world.another_process()).encrypt(b"x", context=CONTEXT)))


def test_a_salt_serves_no_more_messages_than_a_lease_has_uses(world: World) -> None:
    world.add_tenant()
    world.add_key()
    cipher = warm(world.another_process(max_lease_uses=50))
    salts = [salt(cipher.encrypt(b"x", context=CONTEXT)) for _ in range(500)]
    assert max(salts.count(one) for one in salts) <= 50


def rotate(world: World) -> None:
    world.services.vault.request_rotation("acme", "pii")
    world.run_published()


def test_rewrapping_many_keeps_to_that_bound(world: World) -> None:
    world.add_tenant()
    world.add_key()
    cipher = warm(world.another_process(max_lease_uses=50))
    token = cipher.encrypt(b"ada", context=CONTEXT)
    rotate(world)
    fresh = cipher.rewrap_many([(token, CONTEXT)] * 200)
    salts = [salt(one) for one in fresh if one is not None]
    assert len(salts) == 200
    assert max(salts.count(one) for one in salts) <= 50


def test_a_stop_reaches_whoever_rewraps_many(
    world: World, cipher: Cipher, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = cipher.encrypt(b"ada", context=CONTEXT)
    rotate(world)
    done = []

    def rewrap(page: Page, *item: bytes) -> bytes:
        done.append(item)
        if len(done) == 3:
            world.services.kill_switch.suspend("acme", reason="now", actor="test")
        return b""

    monkeypatch.setattr(Page, "rewrap", rewrap)
    with pytest.raises(AccessStopped):
        cipher.rewrap_many([(token, CONTEXT)] * 5000)
    assert len(done) == MAX_PAGE_VALUES


def test_threads_never_get_the_same_iv() -> None:
    pool = IvPool(CountingRandom())
    got: list[bytes] = []
    start = threading.Barrier(8)

    def take() -> None:
        start.wait()
        got.extend(pool.iv() for _ in range(5000))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(got)) == len(got) == 40_000


def test_who_decrypts_what_is_old_does_not_encrypt_under_it(world: World, cipher: Cipher) -> None:
    """The old version's lease is armed again by the decryptions, and its epoch is still on the lane."""
    old = cipher.encrypt(b"ada", context=CONTEXT)
    world.board.ears.remove(world.services.watch.hear)  # this process is not told of the rotation
    world.services.vault.request_rotation("acme", "pii")
    world.run_published()
    world.clock.advance(seconds=RECHECK.total_seconds())
    for _ in range(3):
        assert cipher.decrypt(old, context=CONTEXT) == b"ada"
    assert parse_token(cipher.encrypt(b"ada", context=CONTEXT)).version_number == 2


def test_a_rotation_that_is_pushed_is_used_at_once(world: World, cipher: Cipher) -> None:
    world.services.vault.request_rotation("acme", "pii")
    world.run_published()
    assert parse_token(cipher.encrypt(b"ada", context=CONTEXT)).version_number == 2


def test_a_stop_clears_the_lane(world: World, cipher: Cipher) -> None:
    token = cipher.encrypt(b"ada", context=CONTEXT)
    assert cipher._lane.sealing is not None
    world.services.kill_switch.suspend("acme", reason="now", actor="test")
    assert cipher._lane.sealing is None
    assert not cipher._lane.openings
    for _ in range(2):
        with pytest.raises(AccessStopped):
            cipher.encrypt(b"x", context=CONTEXT)
        with pytest.raises(AccessStopped):
            cipher.decrypt(token, context=CONTEXT)


def test_what_is_begun_before_a_stop_is_not_put_on_the_lane_after_it(
    world: World, cipher: Cipher, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = warm(world.another_process()).encrypt(b"ada", context=CONTEXT)  # a salt it has not seen
    desk = world.services.desk
    put = desk.keep_opening

    def stop_first(*arguments: object) -> None:
        world.services.kill_switch.suspend("acme", reason="now", actor="test")
        put(*arguments)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(desk, "keep_opening", stop_first)
    assert cipher.decrypt(token, context=CONTEXT) == b"ada", "it was opened before the stop"
    assert not cipher._lane.openings
    with pytest.raises(AccessStopped):
        cipher.decrypt(token, context=CONTEXT)


def test_a_lease_is_not_armed_by_who_looked_before_a_stop(
    world: World, cipher: Cipher, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = world.services.desk._held
    arm = held.arm
    (lease,) = held.leases.values()

    def stop_first(*arguments: object) -> None:
        world.services.kill_switch.suspend("acme", reason="now", actor="test")
        arm(*arguments)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(held, "arm", stop_first)
    world.clock.advance(seconds=RECHECK.total_seconds())
    cipher.encrypt(b"x", context=CONTEXT)  # what was looked up before the stop is used once
    assert (lease.encrypts_until_ticks, lease.decrypts_until_ticks) == (0.0, 0.0)
    with pytest.raises(AccessStopped):
        cipher.encrypt(b"x", context=CONTEXT)


def test_a_lease_is_not_armed_by_who_looked_before_a_rotation(
    world: World, cipher: Cipher, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = world.services.desk._held
    arm = held.arm

    def rotate_first(*arguments: object) -> None:
        monkeypatch.setattr(held, "arm", arm)
        rotate(world)
        arm(*arguments)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(held, "arm", rotate_first)
    world.clock.advance(seconds=RECHECK.total_seconds())
    cipher.encrypt(b"x", context=CONTEXT)  # what was looked up before the rotation is used once
    assert parse_token(cipher.encrypt(b"x", context=CONTEXT)).version_number == 2


def test_a_lease_is_armed_to_the_next_look_its_renewal_or_its_end(world: World) -> None:
    world.add_tenant()
    world.add_key(ttl=timedelta(seconds=12))
    warm(world.services)
    (lease,) = world.services.desk._held.leases.values()
    began = lease.began_ticks
    assert lease.decrypts_until_ticks == began + RECHECK.total_seconds()
    world.clock.advance(seconds=RECHECK.total_seconds() + 1)
    warm(world.services)
    assert lease.decrypts_until_ticks == min(lease.refresh_ticks, began + 6 + RECHECK.total_seconds())


def test_keys_of_tokens_that_do_not_open_are_not_kept(world: World, cipher: Cipher) -> None:
    token = cipher.encrypt(b"ada", context=CONTEXT)
    known = set(cipher._lane.openings)
    for number in range(50):
        with pytest.raises(CannotDecrypt):
            cipher.decrypt(token[:5] + number.to_bytes(12) + token[17:], context=CONTEXT)
    assert set(cipher._lane.openings) == known


def test_derived_keys_are_bounded(world: World, cipher: Cipher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "MAX_LANE_OPENINGS", 5)
    tokens = [warm(world.another_process()).encrypt(b"x", context=CONTEXT) for _ in range(12)]
    for token in tokens * 2:
        assert cipher.decrypt(token, context=CONTEXT) == b"x"
        assert len(cipher._lane.openings) <= 5


@pytest.mark.parametrize("length", range(17, 46))
def test_a_token_cut_short_meets_the_flat_answer_on_a_warm_cipher(cipher: Cipher, length: int) -> None:
    token = cipher.encrypt(b"", context=CONTEXT)
    cipher.decrypt(token, context=CONTEXT)
    if length == len(token):
        return
    with pytest.raises(CannotDecrypt) as caught:
        cipher.decrypt(token[:length], context=CONTEXT)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_an_empty_context_is_refused_on_a_warm_cipher(cipher: Cipher) -> None:
    token = cipher.encrypt(b"x", context=CONTEXT)
    with pytest.raises(EmptyContext):
        cipher.encrypt(b"x", context=b"")
    with pytest.raises(EmptyContext):
        cipher.decrypt(token, context=b"")


def test_a_vault_asked_again_gives_the_same_cipher(world: World) -> None:
    vault = world.services.vault
    assert vault.cipher("acme", "pii") is vault.cipher("acme", "pii")
    assert vault.cipher("acme", "pii") is not vault.cipher("acme", "other")


def test_an_empty_context_is_refused_though_the_token_was_made_without(cipher: Cipher) -> None:
    """byok makes no such token; who has the secret can, with any XAES."""
    sealing = cipher._lane.sealing
    assert sealing is not None
    token = sealing.prefix + bytes(12) + sealing.encrypt(bytes(12), b"x", b"")
    with pytest.raises(EmptyContext):
        cipher.decrypt(token, context=b"")


def test_derived_keys_of_all_ciphers_are_bounded_together(
    world: World, cipher: Cipher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_module, "MAX_OPENINGS", 8)
    world.add_key(key="cards")
    ciphers = [world.services.vault.cipher("acme", key) for key in ("pii", "cards")]
    for one in ciphers * 2:
        tokens = [
            world.another_process().vault.cipher("acme", one._key).encrypt(b"x", context=CONTEXT)
            for _ in range(6)
        ]
        for token in tokens:
            one.decrypt(token, context=CONTEXT)
            assert sum(len(each._lane.openings) for each in ciphers) <= 8
