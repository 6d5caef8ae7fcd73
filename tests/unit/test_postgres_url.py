"""Addresses of PostgreSQL: lists of servers, and wrong ones that are told in words that hold none of them."""

from pathlib import Path

import pytest

from byok.postgres_url import PostgresUrl
from byok.store.postgres import create_engine

ONE = "postgresql+psycopg://app:p%40ss@db.internal:5433/byok?sslmode=require"
LIST = "postgresql+psycopg://app:p%40ss@db-1,db-2:5433,[::1]:5434/byok?target_session_attrs=read-write"


def test_one_server() -> None:
    assert PostgresUrl.parse(ONE).servers == (("db.internal", "5433"),)
    assert PostgresUrl.parse("postgresql+psycopg:///byok?host=/run/postgresql").servers == ()


def test_several_servers() -> None:
    url = PostgresUrl.parse(LIST)
    assert url.servers == (("db-1", ""), ("db-2", "5433"), ("::1", "5434"))
    assert url.rest == "postgresql+psycopg://app:p%40ss@/byok?target_session_attrs=read-write"
    assert "p%40ss" not in repr(url)


@pytest.mark.parametrize(
    ("text", "hosts", "ports"),
    [
        (ONE, "db.internal", 5433),
        (LIST, "db-1,db-2,::1", ",5433,5434"),
        # SQLAlchemy's own spelling goes through as it is.
        ("postgresql+psycopg://app:p%40ss@/byok?host=a:1&host=b:2", "a,b", "1,2"),
    ],
)
def test_what_the_driver_gets(text: str, hosts: str, ports: str | int) -> None:
    engine = create_engine(text, 1)
    _, arguments = engine.dialect.create_connect_args(engine.url)
    assert (arguments["host"], arguments["port"]) == (hosts, ports)
    assert (arguments["user"], arguments["password"], arguments["dbname"]) == ("app", "p@ss", "byok")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("mysql://u:hidden@h/d", r"must begin with postgresql\+psycopg://"),
        ("postgresql+psycopg://u:hidden@[h/d", "is no URL"),
        ("postgresql+psycopg://u:hid#den@h/d", "write %23 and %40"),
        ("postgresql+psycopg://u:hid@den@h/d", "write %23 and %40"),
        ("postgresql+psycopg://u:hidden@h", "names no database"),
        ("postgresql+psycopg://u:hidden@h:hidden/d", "port"),
        ("postgresql+psycopg://u:hidden@h:99999/d", "port"),
        ("postgresql+psycopg://u:hid/den@h/d", "port"),
        ("postgresql+psycopg://u:hidden@h1,/d", "without a host"),
        (
            "postgresql+psycopg://u@h/d?sslmode=verify-full&sslrootcert=/hidden",
            "sslrootcert: there is no such",
        ),
    ],
)
def test_a_wrong_one_is_told_without_it(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        PostgresUrl.parse(text)
    assert not {"hidden", "hid", "den"} & set(str(caught.value).replace("/", " ").split())


def test_certificates_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    for authority in (tmp_path / "ca.pem", "system"):
        PostgresUrl.parse(f"postgresql+psycopg://u@h/d?sslmode=verify-full&sslrootcert={authority}")
