"""From an old version to the active one, without a service having to know of versions."""

import pytest

from byok.errors import CannotDecrypt
from byok.services.fields import token_info
from tests.world import World

CONTEXT = b"users.email:42"


@pytest.fixture
def rotated(world: World) -> tuple[World, bytes]:
    """A key on its second version, and a token under its first."""
    world.add_tenant()
    world.add_key()
    token = world.services.vault.cipher("acme", "pii").encrypt(b"ada@example.com", context=CONTEXT)
    world.services.vault.request_rotation("acme", "pii")
    world.run_published()
    return world, token


def test_an_old_token_is_rewrapped(rotated: tuple[World, bytes]) -> None:
    world, token = rotated
    cipher = world.services.vault.cipher("acme", "pii")
    assert cipher.needs_rewrap(token)
    fresh = cipher.rewrap(token, context=CONTEXT)
    assert not cipher.needs_rewrap(fresh)
    assert token_info(token) == (1, 15)
    assert token_info(fresh) == (2, 15)
    assert cipher.decrypt(fresh, context=CONTEXT) == b"ada@example.com"


def test_a_token_under_the_active_version_stays_as_it_is(rotated: tuple[World, bytes]) -> None:
    world, token = rotated
    cipher = world.services.vault.cipher("acme", "pii")
    fresh = cipher.rewrap(token, context=CONTEXT)
    assert cipher.rewrap(fresh, context=CONTEXT) is fresh


def test_rewrapping_opens_the_token_first(rotated: tuple[World, bytes]) -> None:
    world, token = rotated
    cipher = world.services.vault.cipher("acme", "pii")
    with pytest.raises(CannotDecrypt):
        cipher.rewrap(token, context=b"users.email:43")
    fresh = cipher.rewrap(token, context=CONTEXT)
    with pytest.raises(CannotDecrypt):
        cipher.rewrap(fresh, context=b"users.email:43")


@pytest.mark.parametrize("token", [b"", b"\x01" * 44, b"\x02" + b"\x01" * 60, b"\x01" + bytes(60)])
def test_what_is_no_token_has_no_info(token: bytes) -> None:
    with pytest.raises(CannotDecrypt):
        token_info(token)
