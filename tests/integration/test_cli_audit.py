"""``byok audit``: by pages, with files for others to keep, and exit codes that mean something."""

import json
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from benchmarks.bulk import add_chain
from byok.cli.audit import parse_since
from byok.crypto.hazmat import SecretBytes
from byok.crypto.keyring import MasterKeyRing
from byok.crypto.reports import PURPOSE
from byok.errors import InvalidInput
from byok.services.auditing import Auditor
from byok.services.checkpoints import Checkpoints
from byok.wiring import Runtime
from tests.integration.test_cli import Byok, byok

__all__ = ["byok"]


@pytest.fixture
def acme(byok: Byok, engine: sa.Engine) -> None:
    """A tenant with ten events."""
    add_chain(engine, "acme", 10)


def tamper(engine: sa.Engine, statement: str) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text(statement))


@pytest.mark.usefixtures("acme")
def test_the_log_is_shown_from_its_end(byok: Byok, engine: sa.Engine) -> None:
    def numbers(*options: str) -> list[int]:
        return [event["sequence"] for event in byok("audit", "log", "acme", "--json", *options).json()]

    tamper(engine, "UPDATE audit_events SET at = now() - interval '2 days' WHERE sequence < 5")
    assert numbers() == list(range(1, 11))
    assert numbers("--last", "3") == [8, 9, 10]
    assert numbers("--last", "99") == list(range(1, 11))
    assert numbers("--since", "1d") == [5, 6, 7, 8, 9, 10]
    assert numbers("--since", "1d", "--last", "2") == [9, 10]
    assert numbers("--since", "2999-01-01") == []
    shown = byok("audit", "log", "acme", "--last", "1").out
    assert "version.validated  by " in shown
    assert "key pii" in shown
    assert byok("audit", "log", "acme", "--since", "soon").exit_code == 2
    assert byok("audit", "log", "nobody").exit_code == 3


@pytest.mark.usefixtures("acme")
def test_what_an_event_says_is_shown_as_it_is(byok: Byok, engine: sa.Engine) -> None:
    tamper(engine, "UPDATE audit_events SET actor = '[/red]' || chr(27) || '[2J'")
    assert "[/red]\ufffd[2J" in byok("audit", "log", "acme").out


def test_a_log_of_several_pages_is_one_list(byok: Byok, engine: sa.Engine) -> None:
    add_chain(engine, "acme", 4_001)
    assert len(byok("audit", "log", "acme", "--json").json()) == 4_001
    assert byok("audit", "log", "acme").out.count("audit log of acme") == 1


def test_since_when() -> None:
    now = datetime(2026, 6, 8, tzinfo=UTC)
    assert parse_since("7d", now) == now - timedelta(days=7)
    assert parse_since("2026-06-01", now) == datetime(2026, 6, 1, tzinfo=UTC)
    assert parse_since("2026-06-01T12:00+02:00", now) == datetime(2026, 6, 1, 10, tzinfo=UTC)
    with pytest.raises(InvalidInput):
        parse_since("yesterday", now)


@pytest.mark.usefixtures("acme")
def test_a_checkpoint_is_kept_and_compared(byok: Byok, engine: sa.Engine, tmp_path: Path) -> None:
    file = tmp_path / "june.json"
    said = byok("audit", "checkpoint", "acme", "--output", str(file))
    assert "june.json: checkpoint 1 of acme, event 10, " in said.out
    assert file.stat().st_mode & 0o777 == 0o600
    assert byok("report", "verify", str(file)).exit_code == 0
    printed = byok("audit", "checkpoint", "acme").json()
    assert (printed["kind"], printed["report"]["checkpoint"]) == ("audit-checkpoint", 2)
    verify = ("audit", "verify", "acme", "--checkpoint", str(file))
    assert byok(*verify).out == "12 events, 2 checkpoints, the chain is intact and agrees with june.json\n"
    tamper(engine, "TRUNCATE audit_events, audit_heads, signed_checkpoints")
    broken = byok(*verify)
    assert broken.exit_code == 7
    assert "event 1 is missing, and all others" in broken.err
    assert "→ keep the database as it is" in broken.err
    assert byok("audit", "verify", "--all", "--checkpoint", str(file)).exit_code == 2
    add_chain(engine, "globex", 10)
    other = byok("audit", "verify", "globex", "--checkpoint", str(file))
    assert (other.exit_code, "is of another tenant" in other.err) == (2, True)
    file.write_text(file.read_text().replace('"sequence": 10', '"sequence": 9'))
    assert byok(*verify).exit_code == 7


@pytest.mark.usefixtures("acme")
def test_a_checkpoint_of_a_key_that_left_wants_trust(byok: Byok, runtime: Runtime, engine: sa.Engine) -> None:
    add_chain(engine, "acme", 3)
    old = MasterKeyRing([("mk-0", SecretBytes(bytes(32)))], bytes)
    auditor = Auditor(runtime.store, old)
    checkpoints = Checkpoints(
        runtime.store, auditor, old, runtime.store, runtime.services.checkpoints._random
    )
    checkpoints.sign("acme", actor="test")
    told = byok("audit", "verify", "acme")
    assert (told.exit_code, "of the checkpoints, 1 by keys that left the ring" in told.out) == (
        0,
        True,
    )
    assert byok("audit", "verify", "--all", "--json").json()["unknown_signers"] == 1
    (key,) = old.signing_keys(PURPOSE).values()
    trusted = byok("audit", "verify", "acme", "--trust", b64encode(key).decode(), "--json").json()
    assert (trusted["checkpoints"], trusted["unknown_signers"]) == (1, 0)


@pytest.mark.usefixtures("acme")
def test_an_export_is_whole_or_is_not_there(byok: Byok, engine: sa.Engine, tmp_path: Path) -> None:
    byok("audit", "checkpoint", "acme")
    file = tmp_path / "acme.jsonl"
    assert "11 events, 1 checkpoint of acme" in byok("audit", "export", "acme", "--output", str(file)).out
    assert file.stat().st_mode & 0o777 == 0o600
    lines = file.read_bytes().splitlines()
    assert len(lines) == 1 + 11 + 1
    assert byok("audit", "export", "acme").out.splitlines()[1:] == [line.decode() for line in lines[1:]]
    told = byok("audit", "export", "acme", "--output", str(file), "--json").json()
    assert (told["events"], told["hash"]) == (11, json.loads(lines[-1])["hash"])
    file.unlink()
    tamper(engine, "UPDATE audit_events SET actor = 'nobody' WHERE sequence = 4")
    broken = byok("audit", "export", "acme", "--output", str(file))
    assert (broken.exit_code, "event 4 was changed" in broken.err) == (7, True)
    assert list(tmp_path.iterdir()) == []
