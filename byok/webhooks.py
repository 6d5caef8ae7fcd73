"""Implements `byok.ports.WebhookSender`: one HTTPS request to an address that somebody else chose.

The vendor's own network must not be reached by it (OWASP, Server-Side Request Forgery Prevention Cheat
Sheet): the name is resolved once, every address must be public, and the connection is made to the one that
was looked at. Redirects are not followed, and of the answer the status alone is read. The standard library,
since the socket is ours: that is what lets us choose the address and end a connection that drips on.
"""

import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

_CONNECT_SECONDS = 3.0
_WHOLE_SECONDS = 8.0  # from the first byte of TLS on, however slowly it answers
# Public by their prefix, but a gateway may lead them to any IPv4 address.
_TRANSLATED = tuple(
    ipaddress.ip_network(one) for one in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")
)


class WebhookPoster:
    """``public_only``: https and addresses of the public internet; always so in production."""

    def __init__(self, *, public_only: bool, whole_seconds: float = _WHOLE_SECONDS) -> None:
        self._public_only = public_only
        self._whole_seconds = whole_seconds

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> str | None:
        parts = urlsplit(url)
        host, secure = parts.hostname or "", parts.scheme == "https"
        if not secure and self._public_only:
            return "the URL is not https"
        port = parts.port or (443 if secure else 80)
        try:
            addresses = _resolve(host, port)
        except (OSError, UnicodeError):
            return "the host's name does not resolve"
        # All of them: which one is taken must not matter.
        if self._public_only and not all(map(is_public, addresses)):
            return "the host's address is not public"
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            with self._connected(addresses[0], port, host if secure else None) as connection:
                connection.request("POST", path, body, {"host": parts.netloc, **headers})
                status = connection.getresponse().status
        except (HTTPException, OSError, ValueError) as error:
            return f"no answer ({type(error).__name__})"
        return None if 200 <= status < 300 else f"HTTP {status}"

    @contextmanager
    def _connected(self, address: str, port: int, tls_name: str | None) -> Iterator[HTTPConnection]:
        """A connection to this address, which is cut when its time is up."""
        connection = HTTPConnection(address, port)
        sock = socket.create_connection((address, port), _CONNECT_SECONDS)
        if tls_name is not None:
            context = ssl.create_default_context()
            sock = context.wrap_socket(sock, server_hostname=tls_name, do_handshake_on_connect=False)
        timer = threading.Timer(self._whole_seconds, _cut, (sock,))
        timer.daemon = True
        timer.start()
        try:
            if isinstance(sock, ssl.SSLSocket):
                sock.do_handshake()
            connection.sock = sock
            yield connection
        finally:
            timer.cancel()
            sock.close()


def _resolve(host: str, port: int) -> list[str]:
    return [str(one[4][0]) for one in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _cut(sock: socket.socket) -> None:
    # The socket's own method, not that of TLS, which another thread is in.
    with suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def is_public(text: str) -> bool:
    """Whether an IP address is one of the public internet, whatever gateways make of it."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(str(address.ipv4_mapped))
        if any(address in network for network in _TRANSLATED):
            return False
    return address.is_global and not address.is_multicast
