"""Streams over real leases: the tenant's access counts at every segment, and a rotation disturbs none."""

import io
import os
from collections.abc import Callable
from datetime import timedelta

import pytest

from byok.core.segments import SEGMENT_BYTES, parse_header
from byok.errors import CannotDecrypt, EmptyContext, KmsUnavailable, NotReady, TenantNotActive, UnknownTenant
from byok.services.fields import Cipher
from tests.streams import HEADER, seal, tink_open, tink_seal
from tests.world import TTL, World

CONTEXT = b"exports/2026-11.csv"
PLAINTEXT = os.urandom(3 * SEGMENT_BYTES)  # four segments


class At(io.BytesIO):
    """Does something once so much of it has been read."""

    def __init__(self, data: bytes, place: int, act: Callable[[], object]) -> None:
        super().__init__(data)
        self._place, self._act = place, act

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if self.tell() >= self._place:
            self._place = len(self.getvalue()) + 1
            self._act()
        return data


@pytest.fixture
def cipher(world: World) -> Cipher:
    world.add_tenant()
    world.add_key()
    return world.services.vault.cipher("acme", "pii")


def sealed(cipher: Cipher, plaintext: bytes = PLAINTEXT, context: bytes = CONTEXT) -> bytes:
    sink = io.BytesIO()
    cipher.encrypt_stream(io.BytesIO(plaintext), sink, context=context)
    return sink.getvalue()


def opened(cipher: Cipher, stream: bytes, context: bytes = CONTEXT) -> bytes:
    sink = io.BytesIO()
    cipher.decrypt_stream(io.BytesIO(stream), sink, context=context)
    return sink.getvalue()


def suspend(world: World) -> None:
    world.services.kill_switch.suspend("acme", reason="an incident", actor="test")


def test_what_is_encrypted_opens(cipher: Cipher) -> None:
    stream = sealed(cipher)
    assert len(stream) == len(PLAINTEXT) + 61 + 3 * 16
    assert opened(cipher, stream) == PLAINTEXT


def test_writer_and_reader_are_files(cipher: Cipher) -> None:
    sink = io.BytesIO()
    with cipher.encrypting_writer(sink, context=CONTEXT) as writer:
        writer.write(PLAINTEXT)
    with cipher.decrypting_reader(io.BytesIO(sink.getvalue()), context=CONTEXT) as reader:
        assert reader.read() == PLAINTEXT


def test_streams_are_under_a_key_of_their_own_which_a_stock_tink_takes(cipher: Cipher, world: World) -> None:
    lease = world.services.desk.decrypting("acme", "pii", 1)
    with lease.secret.borrow() as secret, lease.derived(b"byok/stream/1").borrow() as stream_key:
        assert tink_open(bytes(stream_key), sealed(cipher, b"ada"), CONTEXT) == b"ada"
        assert opened(cipher, tink_seal(bytes(stream_key), b"ada", CONTEXT, 1)) == b"ada"
        with pytest.raises(CannotDecrypt):
            opened(cipher, seal(bytes(secret), b"ada", CONTEXT, HEADER._replace(version_number=1)))


def test_a_suspended_tenant_has_its_running_decryption_fail_at_the_next_segment(
    cipher: Cipher, world: World
) -> None:
    stream, sink = sealed(cipher), io.BytesIO()
    source = At(stream, SEGMENT_BYTES + 5, lambda: suspend(world))
    with pytest.raises(TenantNotActive):
        cipher.decrypt_stream(source, sink, context=CONTEXT)
    assert len(sink.getvalue()) == SEGMENT_BYTES - 56, "the segment that was under way, and no other"


def test_a_suspended_tenant_has_its_running_encryption_fail_at_the_next_segment(
    cipher: Cipher, world: World
) -> None:
    sink = io.BytesIO()
    with pytest.raises(TenantNotActive):
        cipher.encrypt_stream(
            At(PLAINTEXT, 3 * SEGMENT_BYTES // 2, lambda: suspend(world)), sink, context=CONTEXT
        )
    assert len(sink.getvalue()) == SEGMENT_BYTES + 5
    world.services.kill_switch.resume("acme", actor="test")
    with pytest.raises(CannotDecrypt):
        opened(cipher, sink.getvalue())


def test_a_reader_of_a_tenant_that_resumes_goes_on_where_it_stopped(cipher: Cipher, world: World) -> None:
    reader = cipher.decrypting_reader(io.BytesIO(sealed(cipher)), context=CONTEXT)
    begun = reader.read(100)
    assert begun is not None
    suspend(world)
    begun += reader.read(2**21) or b""  # the rest of what had been opened
    with pytest.raises(TenantNotActive):
        reader.read(1)
    world.services.kill_switch.resume("acme", actor="test")
    assert begun + (reader.read() or b"") == PLAINTEXT


def test_an_outage_past_the_deadline_ends_a_stream(cipher: Cipher, world: World) -> None:
    reader = cipher.decrypting_reader(io.BytesIO(sealed(cipher)), context=CONTEXT)
    reader.read(2**21)
    world.clock.advance(seconds=TTL.total_seconds() + 1)
    world.kms.fail_next(KmsUnavailable("KMS is gone"), times=100)
    with pytest.raises(KmsUnavailable):
        reader.read(1)


def test_a_stream_ends_under_the_version_it_began_with(cipher: Cipher, world: World) -> None:
    def rotate() -> None:
        world.services.vault.request_rotation("acme", "pii")
        world.run_published()

    sink = io.BytesIO()
    cipher.encrypt_stream(At(PLAINTEXT, SEGMENT_BYTES, rotate), sink, context=CONTEXT)
    assert world.states() == ["retired", "active"]
    assert parse_header(sink.getvalue()[:45]).version_number == 1
    assert opened(cipher, sink.getvalue()) == PLAINTEXT
    assert parse_header(sealed(cipher)[:45]).version_number == 2


def test_without_a_cache_each_segment_is_a_kms_decrypt(world: World) -> None:
    world.add_tenant()
    world.add_key(ttl=timedelta(0))
    cipher = world.services.vault.cipher("acme", "pii")
    stream, asked = sealed(cipher), world.kms.count("Decrypt")
    assert opened(cipher, stream) == PLAINTEXT
    assert world.kms.count("Decrypt") == asked + 4


def test_streams_of_other_tenants_keys_and_versions_are_refused_in_the_same_words(
    cipher: Cipher, world: World
) -> None:
    world.add_tenant("globex")
    world.add_key("globex")
    world.add_key("acme", "billing")
    stream, answers = sealed(cipher, b"ada"), set()
    unknown = stream[:1] + (99).to_bytes(4) + stream[5:]
    other_key = world.services.vault.cipher("acme", "billing")
    for opener, given, context in (
        (world.services.vault.cipher("globex", "pii"), stream, CONTEXT),
        (other_key, stream, CONTEXT),
        (cipher, stream, b"exports/2026-12.csv"),
        (cipher, unknown, CONTEXT),
        (cipher, stream[:-1], CONTEXT),
        (cipher, b"", CONTEXT),
        (cipher, cipher.encrypt(b"ada", context=CONTEXT), CONTEXT),
        (cipher, tink_seal(os.urandom(32), b"ada", CONTEXT, 1), CONTEXT),
    ):
        with pytest.raises(CannotDecrypt) as refusal:
            opened(opener, given, context)
        assert refusal.value.__cause__ is None
        assert refusal.value.__suppress_context__
        answers.add((refusal.value.message, refusal.value.code, refusal.value.remedy))
    assert len(answers) == 1


def test_a_stream_is_no_token(cipher: Cipher) -> None:
    with pytest.raises(CannotDecrypt):
        cipher.decrypt(sealed(cipher, b"ada"), context=CONTEXT)


def test_the_context_is_required_before_anything_is_read_or_written(cipher: Cipher) -> None:
    sink = io.BytesIO()
    uses: tuple[Callable[[], object], ...] = (
        lambda: cipher.encrypt_stream(io.BytesIO(b"x"), sink, context=b""),
        lambda: cipher.decrypt_stream(io.BytesIO(b"x"), sink, context=b""),
        lambda: cipher.encrypting_writer(sink, context=b""),
        lambda: cipher.decrypting_reader(io.BytesIO(b"x"), context=b""),
    )
    for use in uses:
        with pytest.raises(EmptyContext):
            use()
    assert sink.getvalue() == b""


def test_a_writer_says_at_once_that_it_cannot_begin(world: World) -> None:
    cipher = world.services.vault.cipher("acme", "pii")
    with pytest.raises(UnknownTenant):
        cipher.encrypting_writer(io.BytesIO(), context=CONTEXT)
    world.add_tenant()
    world.services.registry.create_key("acme", "pii", rotation_period=None, lease_ttl=TTL, actor="test")
    with pytest.raises(NotReady):
        cipher.encrypting_writer(io.BytesIO(), context=CONTEXT)
