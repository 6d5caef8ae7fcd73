"""TLS to PostgreSQL by libpq's own parameters, with a private CA; wrong servers are refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from byok.embedded.stack import Stack
from byok.errors import StoreUnavailable
from byok.store.postgres import PostgresStore, create_engine
from tests.tls import PrivateCa, TlsProxy

# The embedded server is built without TLS. A client that begins with the handshake needs none of its help.
DIRECT = "sslnegotiation=direct"


@contextmanager
def store_behind(proxy: TlsProxy, stack: Stack, parameters: str) -> Iterator[PostgresStore]:
    url = stack.environment["BYOK_DATABASE_URL"].replace(str(stack.postgres.port), str(proxy.port))
    store = PostgresStore(create_engine(f"{url}?{DIRECT}&{parameters}", 1))
    yield store
    store.close()


def test_a_private_ca_is_checked(stack: Stack, tmp_path: Path) -> None:
    ours, another = PrivateCa(tmp_path / "ours"), PrivateCa(tmp_path / "another")
    with TlsProxy(stack.postgres.port, ours, protocol="postgresql") as proxy:
        with store_behind(proxy, stack, f"sslmode=verify-full&sslrootcert={ours.file}") as store:
            store.ping()
        assert proxy.tls_connections == 1
        with (
            store_behind(proxy, stack, f"sslmode=verify-full&sslrootcert={another.file}") as store,
            pytest.raises(StoreUnavailable),
        ):
            store.ping()


def test_verify_full_checks_the_servers_name(stack: Stack, tmp_path: Path) -> None:
    ca = PrivateCa(tmp_path / "ca")
    with TlsProxy(stack.postgres.port, ca, address="127.0.0.9", protocol="postgresql") as proxy:
        with store_behind(proxy, stack, f"sslmode=verify-ca&sslrootcert={ca.file}") as store:
            store.ping()
        with (
            store_behind(proxy, stack, f"sslmode=verify-full&sslrootcert={ca.file}") as store,
            pytest.raises(StoreUnavailable),
        ):
            store.ping()
