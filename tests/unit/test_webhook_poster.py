"""Posting to an address that somebody else chose: what is reached, and for how long."""

import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from byok.webhooks import WebhookPoster, is_public
from tests.tls import PrivateCa

PUBLIC, ANY = WebhookPoster(public_only=True), WebhookPoster(public_only=False)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
        "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fd00::1", "ff02::1",
        "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2001:0:1::",
        "::127.0.0.1", "::10.0.0.1", "::ffff:0:7f00:1", "fec0::1", "5f00::1", "3fff::1", "100:0:0:1::1",
        "64:ff9b:1::7f00:1", "2001:db8::1", "192.88.99.1", "168.63.129.16",
    ],
)  # fmt: skip
def test_the_vendors_own_network_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "168.63.129.17", "2606:4700::1111", "2a00:1450::1", "::ffff:1.1.1.1"]
)
def test_the_internet_is(address: str) -> None:
    assert is_public(address)


class Endpoint(BaseHTTPRequestHandler):
    """Answers with the status that the path names; remembers what it got."""

    seen: ClassVar[list[tuple[str, str, bytes]]] = []  # emptied by each test's server
    headers_seen: ClassVar[list[Mapping[str, str]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.seen.append((self.path, self.headers["host"], body))
        self.headers_seen.append({name.lower(): text for name, text in self.headers.items()})
        self.send_response(int(self.path.strip("/").partition("?")[0] or 200))
        self.send_header("location", "http://127.0.0.1:1/elsewhere")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the library's name
        """Say nothing."""


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), Endpoint)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    Endpoint.seen.clear()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_any_2xx_is_accepted_and_nothing_else_not_even_a_redirect() -> None:
    with serving() as port:
        assert ANY.post(f"http://127.0.0.1:{port}/204?a=b", {"x": "y"}, b"body") is None
        assert ANY.post(f"http://127.0.0.1:{port}/302", {}, b"") == "HTTP 302"
        assert ANY.post(f"http://127.0.0.1:{port}/500", {}, b"") == "HTTP 500"
    assert Endpoint.seen[0] == ("/204?a=b", f"127.0.0.1:{port}", b"body")
    assert len(Endpoint.seen) == 3


def test_in_production_it_does_not_reach_inside() -> None:
    with serving() as port:
        assert PUBLIC.post(f"http://127.0.0.1:{port}/", {}, b"") == "the URL is not https"
        for host in ("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433"):
            assert PUBLIC.post(f"https://{host}:{port}/", {}, b"") == "the host's address is not public"
    assert Endpoint.seen == []


def test_one_inner_address_among_public_ones_is_enough_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(0, 0, 0, "", ("1.1.1.1", 443)), (0, 0, 0, "", ("10.0.0.1", 443))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert PUBLIC.post("https://acme.example/", {}, b"") == "the host's address is not public"


def test_a_name_that_does_not_resolve() -> None:
    assert PUBLIC.post("https://nobody.invalid/", {}, b"") == "the host's name does not resolve"


def test_a_name_server_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def hang(*_: object, **__: object) -> list[object]:
        answered.wait(5)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    began = time.monotonic()
    poster = WebhookPoster(public_only=True, resolve_seconds=0.1)
    assert poster.post("https://acme.example/", {}, b"") == "the host's name does not resolve"
    assert time.monotonic() - began < 2
    answered.set()


def test_certificates_are_verified_by_the_name_in_the_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = PrivateCa(tmp_path / "ca")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*ca.issue("endpoint"))
    with serving(context) as port:
        assert ANY.post(f"https://127.0.0.1:{port}/", {}, b"") == "no answer (SSLCertVerificationError)"
        monkeypatch.setenv("SSL_CERT_FILE", str(ca.file))
        assert ANY.post(f"https://127.0.0.1:{port}/", {}, b"") is None
        monkeypatch.setattr("byok.webhooks._resolve", lambda *_: ["127.0.0.1"])
        refused = ANY.post(f"https://acme.example:{port}/", {}, b"")
        assert refused == "no answer (SSLCertVerificationError)"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_endpoint_that_drips_is_cut_off(scheme: str) -> None:
    """A byte now and then keeps every time-out of a single read from striking."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        stop = threading.Event()

        def drip() -> None:
            connection, _ = server.accept()
            with connection:
                while not stop.wait(0.05):
                    try:
                        connection.sendall(b"\x16" if scheme == "https" else b"H")
                    except OSError:
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        began = time.monotonic()
        poster = WebhookPoster(public_only=False, whole_seconds=0.5)
        failure = poster.post(f"{scheme}://127.0.0.1:{server.getsockname()[1]}/", {}, b"")
        assert failure is not None
        assert time.monotonic() - began < 5
        stop.set()
        thread.join()


def test_nobody_there(unused_port: int) -> None:
    assert ANY.post(f"http://127.0.0.1:{unused_port}/", {}, b"") == "no answer (ConnectionRefusedError)"


def test_a_port_that_is_none_is_said() -> None:
    assert ANY.post("http://127.0.0.1:99999/", {}, b"") == "the URL's port is none"
