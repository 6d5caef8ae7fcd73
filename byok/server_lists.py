"""Servers as URLs name them, several in one, which the standard library no longer takes apart."""

import ipaddress
from urllib.parse import SplitResult, urlsplit


def split(text: str) -> SplitResult:
    """As `urllib.parse.urlsplit`, whatever stands for the server.

    Newer Pythons refuse a list of servers with an IPv6 address in it: the brackets must come first.

    Raises:
        ValueError: it is no URL.
    """
    scheme, _, rest = text.partition("://")
    end = min((rest.index(mark) for mark in "/?#" if mark in rest), default=len(rest))
    if rest[:end].count("[") != rest[:end].count("]"):
        raise ValueError("a bracket is left open")
    return urlsplit(f"{scheme}://server{rest[end:]}")._replace(netloc=rest[:end])


def host_and_port(server: str) -> tuple[str | None, int | None]:
    """Of one server in such a list, as they are written.

    Raises:
        ValueError: the port is none.
    """
    try:
        parts = urlsplit(f"//{server}")
        return parts.hostname, parts.port
    except ValueError:
        raise ValueError("has a port that is none: percent-encode what is special in the password") from None


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, for certain: localhost, an address of loopback, or a socket's path."""
    if host == "localhost" or host.startswith("/"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
