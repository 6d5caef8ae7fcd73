"""``byok master-key``: what operators see before, during and after a rotation, and what is refused."""

import json
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa

from byok.cli import master_keys
from byok.core.resealing import Reseal
from byok.crypto.ring_entries import format_entry
from byok.embedded.stack import Stack
from byok.settings import load_settings
from byok.wiring import Runtime, Services, build
from tests.customers import add_key, join
from tests.integration.test_cli import Byok, byok  # noqa: F401  # a fixture

NEW = format_entry("mk-new", bytes(range(32)))


@pytest.fixture
def old(stack: Stack) -> str:
    """The entry that all records are sealed under at first."""
    return stack.environment["BYOK_MASTER_KEYS"]


@pytest.fixture
def old_id(old: str) -> str:
    return old.partition(":")[0]


@pytest.fixture
def sealed(byok: Byok, stack: Stack, environment: Mapping[str, str], engine: sa.Engine) -> None:  # noqa: F811  # a fixture
    """Three records under the old key."""
    runtime = build(load_settings())
    join(stack, runtime, "acme")
    for name in ("pii", "cards", "notes"):
        add_key(runtime, "acme", name)
    runtime.close()
    with engine.begin() as connection:  # on a busy machine it may not have left in time
        connection.execute(sa.text("DELETE FROM members"))


Put = Callable[[str], None]


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch) -> Put:
    return lambda ring: monkeypatch.setenv("BYOK_MASTER_KEYS", ring)


@pytest.fixture
def process(sealed: None, put: Put, old: str) -> Callable[[str], Runtime]:
    """One more process of the fleet, with this ring."""

    def start(ring: str) -> Runtime:
        put(ring)
        runtime = build(load_settings())
        runtime.services.watch.join()
        return runtime

    return start


def keys_of(byok: Byok) -> dict[str, dict[str, object]]:  # noqa: F811  # a fixture
    return {one["master_key"]: one for one in byok("master-key", "status", "--json").json()["keys"]}


def test_the_whole_procedure(
    byok: Byok,  # noqa: F811  # a fixture
    process: Callable[[str], Runtime],
    put: Put,
    old: str,
    old_id: str,
    engine: sa.Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wait_for = master_keys._wait_for
    service = process(old)
    member = str(service.services.watch.member)

    # 1. The new key behind the first, in the command's own ring alone so far.
    put(f"{old},{NEW}")
    standing = keys_of(byok)
    assert standing["mk-new"] == {
        "master_key": "mk-new", "in_ring": True, "records": 0, "tried": 0, "opened": 0,
        "may_seal": False, "lacking": [member], "sealing": [],
        "may_be_removed": False, "keep": "no rotation of the master key has ended: byok master-key rotate",
    }  # fmt: skip
    put(f"{NEW},{old}")
    refused = byok("master-key", "rotate")
    assert (refused.exit_code, "not-ready" in refused.err, member in refused.err) == (4, True, True)

    # 2. Behind the first everywhere: it may seal.
    service.close()
    service = process(f"{old},{NEW}")
    assert keys_of(byok)["mk-new"]["may_seal"] is True

    # 3. First everywhere. The workers do it.
    service.close()
    service = process(f"{NEW},{old}")
    first = byok("master-key", "rotate", "--no-wait", "--json")
    asked = first.json()
    assert (asked["state"], asked["total"], asked["new"], asked["workers"]) == ("running", 3, True, 0)
    assert "no living worker seals under mk-new yet" in first.err
    assert byok("master-key", "rotate", "--no-wait", "--json").json()["new"] is False
    running = keys_of(byok)[old_id]
    assert running["keep"] == "records under it: 3; byok master-key rotate"
    # 4. Nothing is left under the old key, and leases may be, until the longest TTL has passed.
    worker = threading.Timer(0.1, service.services.resealing.run, [UUID(asked["reseal"])])

    def joined(services: Services, reseal: Reseal) -> Reseal:
        worker.start()
        return wait_for(services, reseal)

    monkeypatch.setattr(master_keys, "_wait_for", joined)
    waited = byok("master-key", "rotate", "--json")  # joins it, and waits for its end
    worker.join()
    assert (waited.exit_code, waited.json()["state"], waited.json()["resealed"]) == (0, "done", 3)
    done = keys_of(byok)
    assert (done[old_id]["records"], done["mk-new"]["records"], done["mk-new"]["opened"]) == (0, 3, 3)
    assert str(done[old_id]["keep"]).startswith("leases under it may live until ")
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE reseals SET finished_at = finished_at - interval '1 hour'"))
    assert keys_of(byok)[old_id]["may_be_removed"] is True
    assert keys_of(byok)["mk-new"]["keep"] == "it is the first: it seals"
    shown = byok("master-key", "status").out
    assert "mk-new seals; living processes: 1" in shown
    assert "done" in shown

    # 5. Taken out, everything opens.
    service.close()
    put(NEW)
    assert byok("key", "validate", "acme", "pii").exit_code == 0


def test_a_backup_of_the_ring_is_checked_without_being_installed(
    byok: Byok,  # noqa: F811  # a fixture
    sealed: None,
    old: str,
    old_id: str,
    tmp_path: Path,
) -> None:
    backup = tmp_path / "ring"
    backup.write_text(f"{NEW}\n{old}\n")
    right = byok("master-key", "check", str(backup), "--all", "--json")
    assert (right.exit_code, right.json()) == (
        0, [{"master_key": old_id, "in_ring": True, "records": 3, "tried": 3, "opened": 3}],
    )  # fmt: skip
    wrong = byok("master-key", "check", "-", stdin=f"{old_id}:{NEW.partition(':')[2]}".encode())
    assert (wrong.exit_code, "seal-broken" in wrong.err) == (7, True)
    lacking = byok("master-key", "check", "-", "--all", stdin=NEW.encode())
    assert (lacking.exit_code, f"not all records under {old_id} open" in lacking.err) == (7, True)
    assert byok("master-key", "check", str(tmp_path / "none")).exit_code == 2


def test_one_record_that_was_changed_is_found_by_all_alone(
    byok: Byok,  # noqa: F811  # a fixture
    sealed: None,
    old: str,
    engine: sa.Engine,
) -> None:
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                "UPDATE key_versions SET encrypted_key = set_byte(encrypted_key, 0,"
                " get_byte(encrypted_key, 0) # 1) WHERE key_id = (SELECT id FROM keys WHERE name = 'cards')"
            )
        )
    found = byok("master-key", "check", "-", "--all", "--json", stdin=old.encode())
    (one,) = json.loads(found.out)
    assert (found.exit_code, one["opened"], one["tried"]) == (7, 2, 3)


def test_doctor_tells_of_rings_that_differ(
    byok: Byok,  # noqa: F811  # a fixture
    process: Callable[[str], Runtime],
    put: Put,
    old: str,
) -> None:
    def rings() -> tuple[str, str]:
        found = {one["name"]: one for one in byok("doctor", "--json").json()}
        return found["rings"]["verdict"], found["rings"]["seen"]

    service = process(old)
    member = str(service.services.watch.member)
    assert rings() == ("passed", "living processes: 1, all with this ring")
    put(f"{old},{NEW}")
    assert rings() == ("warning", f"another ring, or another order: {member}")
    put(f"{NEW},{old}")
    assert rings()[0] == "failed"
    assert member in rings()[1]
    service.close()


def test_a_ring_that_is_no_text_is_told_in_one_line(
    byok: Byok,  # noqa: F811  # a fixture
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encrypted = tmp_path / "ring.gpg"
    encrypted.write_bytes(bytes(range(128, 160)))
    refused = byok("master-key", "check", str(encrypted))
    assert (refused.exit_code, refused.err.count("\n")) == (2, 1)
    assert "gpg -d" in refused.err
    monkeypatch.delenv("BYOK_MASTER_KEYS")
    monkeypatch.setenv("BYOK_MASTER_KEYS_FILE", str(encrypted))
    encrypted.chmod(0o400)
    refused = byok("master-key", "status")
    assert (refused.exit_code, refused.err.count("\n")) == (78, 1)
    assert "is no text" in refused.err


def test_introductions_are_files_that_the_customer_checks(
    byok: Byok,  # noqa: F811  # a fixture
    put: Put,
    old: str,
    old_id: str,
    tmp_path: Path,
) -> None:
    pinned = byok("report", "public-key", "--json").json()[old_id]
    assert byok("report", "introduce", "--folder", str(tmp_path)).exit_code == 2  # there is no other
    put(f"{NEW},{old}")
    assert byok("report", "introduce", "--folder", str(tmp_path)).exit_code == 0
    file = tmp_path / f"byok-signing-key-{old_id}-mk-new.json"
    introduced = byok("report", "public-key", "--json").json()["mk-new"]
    checked = byok("report", "verify", str(file), "--public-key", pinned)
    assert (checked.exit_code, introduced in checked.out) == (0, True)
    assert byok("report", "verify", str(file), "--public-key", introduced).exit_code == 7
    assert byok("report", "introduce", "--master-key", "nobody").exit_code == 2


def test_a_rotation_that_waits_shows_why(
    byok: Byok,  # noqa: F811  # a fixture
    process: Callable[[str], Runtime],
    put: Put,
    old: str,
) -> None:
    straggler = process(f"{old},{NEW}")
    worker = process(f"{NEW},{old}")
    asked = byok("master-key", "rotate", "--no-wait", "--json").json()
    worker.services.resealing.run(UUID(asked["reseal"]))
    shown = byok("master-key", "status").out
    assert f"{straggler.services.watch.member}: seals under another master key, restart it" in shown
    straggler.close()
    ended = worker.services.resealing.run(UUID(asked["reseal"]))
    assert ended is not None
    assert not ended.is_running
    assert ended.finished_at is not None
    assert worker.store.now() - ended.finished_at < timedelta(minutes=1)
    worker.close()
