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
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

_RESOLVE_SECONDS = 3.0
_CONNECT_SECONDS = 3.0
_WHOLE_SECONDS = 8.0  # from the first byte of TLS on, however slowly it answers
# All that IANA has given out for unicast in the internet (RFC 3587); gateways' prefixes that stand for IPv4
# addresses (RFC 4291, 6052, 7915) lie outside.
_IPV6_INTERNET = ipaddress.ip_network("2000::/3")
# IANA's special-purpose registry within it: protocols (Teredo among them), examples, 6to4.
_IPV6_SPECIAL = tuple(
    ipaddress.ip_network(one) for one in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)
# 6to4 relays (RFC 7526), and the address under which Azure's virtual machines reach their host.
_IPV4_SPECIAL = tuple(ipaddress.ip_network(one) for one in ("192.88.99.0/24", "168.63.129.16/32"))


class WebhookPoster:
    """``public_only``: https and addresses of the public internet; always so in production."""

    def __init__(
        self,
        *,
        public_only: bool,
        resolve_seconds: float = _RESOLVE_SECONDS,
        whole_seconds: float = _WHOLE_SECONDS,
    ) -> None:
        self._public_only = public_only
        self._resolve_seconds = resolve_seconds
        self._whole_seconds = whole_seconds

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> str | None:
        parts = urlsplit(url)
        host, secure = parts.hostname or "", parts.scheme == "https"
        if not secure and self._public_only:
            return "the URL is not https"
        try:
            port = parts.port or (443 if secure else 80)
        except ValueError:
            return "the URL's port is none"
        try:
            addresses = _resolve(host, port, self._resolve_seconds)
        except (OSError, ValueError):
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


def _resolve(host: str, port: int, seconds: float) -> list[str]:
    """Raises OSError (TimeoutError among them) and ValueError."""
    answer: Future[list[str]] = Future()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, ValueError) as error:
            answer.set_exception(error)
        else:
            answer.set_result([str(one[4][0]) for one in found])

    # The system's resolver has no time limit of ours and can't be called off: the customer's name server may
    # keep it for half a minute. A daemon, so that nothing waits for a thread that was given up.
    threading.Thread(target=ask, name="byok-resolve", daemon=True).start()
    return answer.result(seconds)


def _cut(sock: socket.socket) -> None:
    # The socket's own method, not that of TLS, which another thread is in.
    with suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def is_public(text: str) -> bool:
    """Whether an IP address is one of the public internet, whatever gateways make of it."""
    address = ipaddress.ip_address(text.partition("%")[0])
    special = _IPV4_SPECIAL
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(str(address.ipv4_mapped))
        if address not in _IPV6_INTERNET:
            return False
        special = _IPV6_SPECIAL
    return address.is_global and not address.is_multicast and not any(address in one for one in special)
