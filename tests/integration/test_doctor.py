"""``byok doctor`` over real servers: each fault is put into one, found, and gone when it is mended."""

import base64
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import sqlalchemy as sa

from byok.core.findings import Verdict
from byok.doctor import clocks, examine
from byok.doctor.database import _timeouts
from byok.doctor.examination import CHECKS
from byok.doctor.flower import check_flower
from byok.doctor.result import Result
from byok.embedded.stack import Stack
from byok.settings import load_settings
from byok.store import migrate, server
from byok.store.postgres import create_engine
from byok.wiring import Runtime, build
from tests.customers import Customer, add_key
from tests.integration.test_cli import Byok, acme, byok
from tests.redis_servers import valkey

__all__ = ["acme", "byok"]

Doctor = Callable[[], dict[str, Result]]
Put = Callable[[str, str], None]


@pytest.fixture
def put(environment: object, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Set a variable of the environment."""
    return monkeypatch.setenv


@pytest.fixture
def doctor(put: Put, runtime: Runtime) -> Doctor:
    """What is found under the environment as it is now, by the names of the checks."""

    def run() -> dict[str, Result]:
        examined = build(load_settings(), kind="command")
        try:
            found = examine(examined)
        finally:
            examined.close()
        assert len({one.name for one in found}) == len(found)
        for one in found:
            assert one.remedy or one.verdict in (Verdict.PASSED, Verdict.NOTE), one
        return {one.name: one for one in found}

    return run


def verdict(found: dict[str, Result], name: str) -> str:
    return found[name].verdict.value


# --- PostgreSQL -----------------------------------------------------------------------------------


@contextmanager
def database(stack: Stack, name: str) -> Iterator[sa.URL]:
    """An empty database of its own."""
    url = sa.make_url(stack.environment["BYOK_DATABASE_URL"])
    admin = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    try:
        yield url.set(database=name)
    finally:
        with admin.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))


def test_a_schema_that_is_behind(stack: Stack, doctor: Doctor, put: Put) -> None:
    with database(stack, "doctor_schema") as url:
        put("BYOK_DATABASE_URL", url.render_as_string(hide_password=False))
        empty = doctor()
        assert verdict(empty, "schema") == verdict(empty, "rights") == "failed"
        assert "no table" in empty["rights"].seen
        engine = create_engine(url.render_as_string(hide_password=False), 1)
        migrate.upgrade(engine, "0005")
        behind = doctor()["schema"]
        assert (behind.verdict, "0005" in behind.seen) == (Verdict.FAILED, True)
        assert "byok db upgrade" in behind.remedy
        migrate.upgrade(engine)
        upgraded = doctor()
        assert (verdict(upgraded, "records"), "none" in upgraded["records"].seen) == ("note", True)
        assert verdict(upgraded, "schema") == verdict(upgraded, "rights") == "passed"
        with engine.begin() as connection:
            connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
        engine.dispose()
        assert "newer code" in doctor()["schema"].remedy


def test_rights_that_are_missing(stack: Stack, doctor: Doctor, put: Put, engine: sa.Engine) -> None:
    login = "CREATE ROLE doctor_poor LOGIN PASSWORD 'poor'"
    granted = "GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO doctor_poor"
    emptied = ("audit_checkpoints", "findings", "members", "webhook_messages")
    url = sa.make_url(stack.environment["BYOK_DATABASE_URL"]).set(username="doctor_poor", password="poor")
    put("BYOK_DATABASE_URL", url.render_as_string(hide_password=False))
    with engine.begin() as connection:
        connection.execute(sa.text(login))
        connection.execute(sa.text(granted))
        connection.execute(sa.text("REVOKE UPDATE ON keys, audit_events FROM doctor_poor"))
    try:
        missing = doctor()["rights"]
        assert missing.verdict is Verdict.FAILED
        named = missing.seen.removeprefix("we have no ").split(", ")
        assert sorted(named) == [*(f"DELETE on {table}" for table in emptied), "UPDATE on keys"]
        with engine.begin() as connection:
            connection.execute(sa.text("GRANT UPDATE ON keys TO doctor_poor"))
            connection.execute(sa.text(f"GRANT DELETE ON {', '.join(emptied)} TO doctor_poor"))
        assert verdict(doctor(), "rights") == "passed"
    finally:
        with engine.begin() as connection:
            connection.execute(sa.text("DROP OWNED BY doctor_poor"))
            connection.execute(sa.text("DROP ROLE doctor_poor"))


def test_timeouts_that_a_pooler_dropped(stack: Stack, doctor: Doctor) -> None:
    without_options = sa.create_engine(stack.environment["BYOK_DATABASE_URL"], poolclass=sa.NullPool)
    dropped = _timeouts(server.read_facts(without_options))
    assert dropped.verdict is Verdict.WARNING
    assert "statement_timeout" in dropped.seen
    assert verdict(doctor(), "time-outs") == "passed"


def test_without_postgresql_the_others_are_still_examined(doctor: Doctor, put: Put, unused_port: int) -> None:
    put("BYOK_DATABASE_URL", f"postgresql+psycopg://u:p@127.0.0.1:{unused_port}/byok")
    found = doctor()
    assert verdict(found, "postgresql") == "failed"
    assert (verdict(found, "master-keys"), verdict(found, "records")) == ("passed", "note")
    assert verdict(found, "broker") == verdict(found, "cache") == verdict(found, "aws-identity") == "passed"


def test_a_clock_that_is_off(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    right = clocks.wall_clock

    def off(seconds: float) -> tuple[str, str]:
        monkeypatch.setattr(clocks, "wall_clock", lambda: right() + timedelta(seconds=seconds))
        found = doctor()
        return verdict(found, "clock-postgresql"), verdict(found, "clock-aws")

    assert off(0) == ("passed", "passed")
    assert off(-120) == ("warning", "warning")
    assert off(600) == ("failed", "failed")


# --- master keys ----------------------------------------------------------------------------------

OTHER = base64.b64encode(bytes(32)).decode()


def test_a_wrong_master_key(acme: Customer, stack: Stack, doctor: Doctor, put: Put) -> None:
    ring = stack.environment["BYOK_MASTER_KEYS"]
    right_id = ring.partition(":")[0]
    name = f"master-key {right_id}"
    assert verdict(doctor(), name) == "passed"

    put("BYOK_MASTER_KEYS", f"other:{OTHER}")
    missing = doctor()[name]
    assert (missing.verdict, "not in the ring" in missing.seen) == (Verdict.FAILED, True)
    assert "sealed 1 record;" in missing.seen

    put("BYOK_MASTER_KEYS", f"{right_id}:{OTHER}")
    wrong = doctor()[name]
    assert (wrong.verdict, "another key under this name" in wrong.seen) == (Verdict.FAILED, True)

    put("BYOK_MASTER_KEYS", f"other:{OTHER},{ring}")
    found = doctor()
    assert verdict(found, name) == "passed"
    assert found["master-keys"].seen == f"sealing with other, opening with {right_id}"


def test_one_row_that_was_changed_is_not_taken_for_a_wrong_master_key(
    acme: Customer, runtime: Runtime, stack: Stack, doctor: Doctor, engine: sa.Engine
) -> None:
    add_key(runtime, "acme", "cards")
    with engine.begin() as connection:
        one = "SELECT id FROM keys WHERE name = 'cards'"
        changed_body = "set_byte(encrypted_key, 0, get_byte(encrypted_key, 0) # 255)"
        connection.execute(
            sa.text(f"UPDATE key_versions SET encrypted_key = {changed_body} WHERE key_id = ({one})")
        )
    changed = doctor()[f"master-key {stack.environment['BYOK_MASTER_KEYS'].partition(':')[0]}"]
    assert changed.verdict is Verdict.FAILED
    assert "of 2 tried 1 don't open" in changed.seen
    assert "seal-broken" in changed.remedy


# --- Redis ----------------------------------------------------------------------------------------

QUIET = ('save ""', "appendonly no")


@pytest.mark.parametrize(
    ("lines", "eviction", "disk"),
    [
        (("maxmemory-policy noeviction", "appendonly yes"), "passed", "passed"),
        (("maxmemory-policy allkeys-lru", "appendonly yes"), "failed", "passed"),
        (("maxmemory-policy noeviction", *QUIET), "passed", "warning"),
        # Managed ones: no CONFIG, and no INFO either.
        (("user default on nopass ~* &* +@all -config -info",), "note", "note"),
    ],
)
def test_the_broker(
    stack: Stack, tmp_path: Path, doctor: Doctor, put: Put, lines: tuple[str, ...], eviction: str, disk: str
) -> None:
    with valkey(stack, tmp_path / "broker", *lines) as broker:
        put("BYOK_BROKER_URL", f"redis://127.0.0.1:{broker.port}/0")
        found = doctor()
    assert verdict(found, "broker") == "passed"
    assert (verdict(found, "broker-eviction"), verdict(found, "broker-disk")) == (eviction, disk)


@pytest.mark.parametrize(
    ("lines", "eviction", "disk", "notices"),
    [
        (("maxmemory-policy volatile-ttl", *QUIET), "passed", "passed", "passed"),
        (("maxmemory-policy noeviction", *QUIET), "warning", "passed", "passed"),
        (("maxmemory-policy volatile-ttl", 'save ""', "appendonly yes"), "passed", "warning", "passed"),
        (("maxmemory-policy volatile-ttl", "save 60 1"), "passed", "warning", "passed"),
        (("user default on nopass ~* &* +@all -config -info",), "note", "note", "passed"),
        (
            ("maxmemory-policy volatile-ttl", *QUIET, "user default on nopass ~* resetchannels +@all"),
            "passed", "passed", "failed",
        ),
    ],
)  # fmt: skip
def test_the_cache(
    stack: Stack, tmp_path: Path, doctor: Doctor, put: Put, lines: tuple[str, ...], eviction: str, disk: str,
    notices: str,
) -> None:  # fmt: skip
    with valkey(stack, tmp_path / "cache", *lines) as cache:
        put("BYOK_CACHE_URL", f"redis://127.0.0.1:{cache.port}/0")
        found = doctor()
    assert verdict(found, "cache") == "passed"
    assert (verdict(found, "cache-eviction"), verdict(found, "cache-disk")) == (eviction, disk)
    assert verdict(found, "notices") == notices


def test_broker_and_cache_in_one(stack: Stack, doctor: Doctor, put: Put) -> None:
    assert verdict(doctor(), "separation") == "passed"
    broker = stack.environment["BYOK_BROKER_URL"]
    put("BYOK_CACHE_URL", broker)
    assert verdict(doctor(), "separation") == "failed"
    put("BYOK_CACHE_URL", broker.replace("/0", "/1"))
    assert verdict(doctor(), "separation") == "warning"


def test_without_broker_and_cache(doctor: Doctor, put: Put, unused_port: int) -> None:
    for variable in ("BYOK_BROKER_URL", "BYOK_CACHE_URL"):
        put(variable, f"redis://127.0.0.1:{unused_port}/0")
    found = doctor()
    assert verdict(found, "broker") == verdict(found, "cache") == "failed"
    assert verdict(found, "separation") == verdict(found, "fleet") == "note"
    assert verdict(found, "postgresql") == "passed"


# --- AWS, Flower ----------------------------------------------------------------------------------


def test_our_aws_identity(doctor: Doctor, put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    assert verdict(doctor(), "aws-identity") == "passed"
    put("BYOK_VENDOR_ROLE_ARN", "arn:aws:iam::111111111111:role/somebody-else")
    assert verdict(doctor(), "aws-identity") == "warning"
    monkeypatch.delenv("BYOK_VENDOR_ROLE_ARN")
    unknown = doctor()["aws-identity"]
    assert (unknown.verdict, "compared with nothing" in unknown.seen) == (Verdict.NOTE, True)
    put("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    without = doctor()["aws"]
    assert without.verdict is Verdict.FAILED
    assert "credentials" in without.seen


@contextmanager
def web_server(answer: Callable[[str], tuple[int, str | None]]) -> Iterator[str]:
    """A server that answers each path with a status, and a place to go to."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, location = answer(self.path)
            self.send_response(status)
            if location is not None:
                self.send_header("Location", location)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}"
        finally:
            http.shutdown()
            thread.join()


AskFlower = Callable[[str], Result]


@pytest.fixture
def ask_flower(put: Put, runtime: Runtime) -> AskFlower:
    def run(url: str) -> Result:
        put("BYOK_FLOWER_URL", url)
        (found,) = check_flower(replace(runtime, settings=load_settings()))
        return found

    return run


@pytest.mark.parametrize(
    ("status", "location", "expected"),
    [
        (200, None, "failed"),
        (401, None, "passed"),
        (403, None, "passed"),
        (302, "/login?next=/workers", "passed"),
        (302, "/flower/login", "passed"),
        (302, "https://elsewhere.example/login", "note"),
        (301, "/blogging", "note"),  # round and round
        (301, "file:///etc/hostname", "note"),
        (301, None, "note"),
        (404, None, "note"),
        (502, None, "note"),
    ],
)
def test_flower_is_asked_without_a_password(
    ask_flower: AskFlower, status: int, location: str | None, expected: str
) -> None:
    with web_server(lambda _: (status, location)) as url:
        found = ask_flower(url)
        assert found.verdict.value == expected
        assert ("does not answer as Flower" in found.seen) == (expected == "note")
    assert "refused" in ask_flower(url).seen, "it is gone"


@pytest.mark.parametrize(("status", "expected"), [(200, "failed"), (401, "passed"), (404, "note")])
def test_flower_behind_a_redirection_is_found(ask_flower: AskFlower, status: int, expected: str) -> None:
    with (
        web_server(lambda _: (status, None)) as flower,
        web_server(lambda path: (301, flower.replace("127.0.0.1", "localhost") + path)) as url,
    ):
        assert ask_flower(url).verdict.value == expected


def test_a_flower_without_an_api_asks_for_a_password_and_one_with_an_open_api_does_not(
    ask_flower: AskFlower,
) -> None:
    for status_of_api, expected in ((404, "passed"), (200, "failed"), (500, "note")):
        with web_server(
            lambda path, api=status_of_api: (api if path.startswith("/api") else 401, None)  # type: ignore[misc]
        ) as url:
            assert ask_flower(url).verdict.value == expected


# --- the command ----------------------------------------------------------------------------------


def test_the_command_fails_when_a_check_does_and_fits_80_columns(
    byok: Byok, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from byok.cli import output

    told = byok("doctor", "--json")
    assert told.exit_code == 6
    found = {one["name"]: one for one in told.json()}
    assert found["workers"] == {
        "name": "workers",
        "verdict": "failed",
        "seen": "no worker answers",
        "remedy": "start one: celery -A workers worker",
    }
    monkeypatch.setattr(output.console, "_width", 80)
    shown = byok("doctor").out
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.startswith("doctor: 1 FAILED")


def test_every_check_is_documented(doctor: Doctor) -> None:
    root = Path(__file__).parents[2]
    page = (root / "docs" / "health.md").read_text().partition("## Doctor")[2]
    rows = re.findall(r"^\| (`[^|]+`) \|", page, re.MULTILINE)
    documented = {name for row in rows for name in re.findall(r"`([\w-]+)", row)}
    source = "".join(file.read_text() for file in (root / "byok" / "doctor").glob("*.py"))
    assert {name for name in documented if f'"{name}' not in source} == set()
    assert {name.partition(" ")[0] for name in doctor()} <= documented
    assert set(CHECKS) <= documented
