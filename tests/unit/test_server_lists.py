"""Which hosts are this machine."""

import pytest

from byok.server_lists import is_loopback


@pytest.mark.parametrize(
    ("host", "is_here"),
    [
        ("localhost", True),
        ("127.0.0.2", True),
        ("[::1]", True),
        ("::1", True),
        ("/run/postgresql", True),
        ("0.0.0.0", False),
        ("::", False),
        ("localhost.example", False),
        ("", False),
    ],
)
def test_only_loopback_and_sockets_are_this_machine(host: str, is_here: bool) -> None:
    assert is_loopback(host) is is_here
