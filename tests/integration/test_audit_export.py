"""Exports of audit logs, checked by the script of the specification without anything of ours."""

import json
import re
import subprocess
import sys
import tracemalloc
from base64 import b64encode
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa

from benchmarks.bulk import add_chain
from byok.core.checkpoints import SignedCheckpoint
from byok.crypto.checkpoints import document_of
from byok.crypto.hazmat import SecretBytes
from byok.crypto.keyring import MasterKeyRing
from byok.crypto.reports import PURPOSE
from byok.errors import AuditChainBroken
from byok.services.audit_export import AuditExporter
from byok.services.auditing import Auditor
from tests.fakes import FakeKmsKey
from tests.world import World, kms_key_arn

PAGE = Path(__file__).parents[2] / "docs" / "spec" / "audit-chain.md"
SCRIPT = re.findall(r"<!-- verify -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture
def acme(world: World) -> World:
    """A tenant with ten events and two checkpoints; one text is beyond ASCII."""
    world.kms.keys[kms_key_arn(1)] = FakeKmsKey(rotation_days=365)
    world.add_tenant()
    world.services.checkpoints.sign("acme", actor="Zoë 𝄞")
    world.add_key()
    world.services.checkpoints.sign("acme", actor="test")
    return world


def export(world: World) -> list[bytes]:
    found = world.services.auditor.chain("acme")
    return list(world.services.audit_exporter.lines(found, lambda _: None))


Check = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def check(acme: World, tmp_path: Path) -> Check:
    """Run the script over lines of an export, with checkpoints that somebody kept."""
    (text,) = SCRIPT
    script, folder = tmp_path / "check.py", tmp_path / "empty"
    script.write_text(text)
    folder.mkdir()
    keys = ",".join(b64encode(key).decode() for key in acme.master_keys.signing_keys(PURPOSE).values())

    def run(lines: Sequence[bytes], *kept: SignedCheckpoint) -> subprocess.CompletedProcess[str]:
        file = tmp_path / "export.jsonl"
        file.write_bytes(b"".join(lines))
        kept_files = []
        for number, one in enumerate(kept):
            kept_files.append(tmp_path / f"kept-{number}.json")
            kept_files[-1].write_text(json.dumps(document_of(one), indent=2))
        return subprocess.run(
            [sys.executable, "-I", "-W", "error::SyntaxWarning", script, file, keys, *kept_files],
            cwd=folder, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    return run


def test_the_script_is_short_and_knows_nothing_of_us() -> None:
    (text,) = SCRIPT
    assert len(text.splitlines()) <= 30
    assert "byok" not in text
    assert set(re.findall(r"^(?:import|from) ([\w, .]+?)(?: import.*)?$", text, re.MULTILINE)) == {
        "base64, hashlib, json, sys",
        "cryptography.hazmat.primitives.asymmetric.ed25519",
    }


def test_an_export_is_a_header_events_and_checkpoints_in_their_places(acme: World) -> None:
    header, *rest = map(json.loads, export(acme))
    assert (header["kind"], header["report"]["events"], header["report"]["checkpoints"]) == (
        "audit-export",
        10,
        2,
    )
    places = [one.get("sequence") or ("checkpoint", one["report"]["sequence"]) for one in rest]
    assert places == [1, 2, 3, ("checkpoint", 3), 4, 5, 6, 7, 8, 9, ("checkpoint", 9), 10]
    with acme.store.transaction() as tx:
        first = tx.audit.list_after(acme.tenant().id, 0, 1)[0]
    assert (rest[0]["hash"], rest[0]["details"]) == (first.hash.hex(), first.details)


def test_a_good_export_passes(acme: World, check: Check) -> None:
    kept = acme.services.checkpoints.sign("acme", actor="test")
    ended = check(export(acme), kept)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("11 events and 3 checkpoints are what acme had on 2026-01-01T")


def test_an_interpreter_that_leaves_out_asserts_checks_nothing_and_says_so(tmp_path: Path) -> None:
    (text,) = SCRIPT
    script = tmp_path / "check.py"
    script.write_text(text)
    ended = subprocess.run(
        [sys.executable, "-O", script, "no file", ""], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "-O" in ended.stderr


def changed(line: bytes) -> list[bytes]:
    """The line with each of its members changed, in turn, at every depth; and as other bytes for the same."""

    def variants(value: object) -> list[object]:
        match value:
            case dict():
                some = [{**value, name: other} for name, one in value.items() for other in variants(one)]
                return [
                    *some,
                    {**value, "more": 1},
                    *({n: v for n, v in value.items() if n != x} for x in value),
                ]
            case str():
                return [value[:-1] + chr(ord(value[-1]) ^ 1) if value else "x", None]
            case int():
                return [value + 1, float(value)]
        return ["x", 0]

    damaged = [
        json.dumps(one, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
        for one in variants(json.loads(line))
    ]
    return [one for one in damaged if one != line] + [b" " + line, line.replace(b"{", b'{"sequence":1,', 1)]


@pytest.mark.filterwarnings("ignore:unclosed file")  # the script ends before it would close
@pytest.mark.parametrize("place", [0, 2, 4, 11], ids=["header", "event", "checkpoint", "last checkpoint"])
def test_any_change_of_a_line_is_found_there(
    acme: World,
    tmp_path: Path,
    place: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In one process: there are some hundred of them."""
    lines = export(acme)
    keys = ",".join(b64encode(key).decode() for key in acme.master_keys.signing_keys(PURPOSE).values())
    code = compile(SCRIPT[0], "check.py", "exec")
    file = tmp_path / "export.jsonl"
    monkeypatch.setattr(sys, "argv", ["check.py", str(file), keys])
    for damaged in changed(lines[place]):
        file.write_bytes(b"".join([*lines[:place], damaged, *lines[place + 1 :]]))
        with pytest.raises(SystemExit) as ended:
            exec(code, {})  # noqa: S102  # the script of the page
        assert f": line {place + 1}, behind event" in str(ended.value.code), damaged
    file.write_bytes(b"".join(lines))
    exec(code, {})  # noqa: S102  # as above
    assert "10 events" in capsys.readouterr().out


@pytest.mark.parametrize("place", range(13))
def test_a_line_left_out_is_found(acme: World, check: Check, place: int) -> None:
    lines = export(acme)
    ended = check(lines[:place] + lines[place + 1 :])
    # What was left out of the end, or a checkpoint, is missed where the next line, or the end, does not fit.
    where = {4: 12, 11: 12, 12: 12}.get(place, place + 1)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert f": line {where}, behind event" in ended.stderr


@pytest.mark.parametrize("place", range(12))
def test_two_lines_swapped_are_found(acme: World, check: Check, place: int) -> None:
    lines = export(acme)
    lines[place : place + 2] = lines[place + 1], lines[place]
    ended = check(lines)
    assert ended.returncode == 1
    # An event that comes before the checkpoint of the one before it is where it should be; that one is not.
    where = {4: 6, 11: 13}.get(place, place + 1)
    assert f": line {where}, behind event" in ended.stderr


@pytest.mark.parametrize("left", [0, 1, 5, 12])
def test_a_file_that_was_cut_off_is_found(acme: World, check: Check, left: int) -> None:
    ended = check(export(acme)[:left])
    assert (ended.returncode, ended.stdout) == (1, "")


def test_another_vendors_key_is_not_trusted(acme: World, check: Check) -> None:
    mine = MasterKeyRing([("mk-9", SecretBytes(b"x" * 32))], bytes)
    exporter = AuditExporter(acme.services.auditor, mine, acme.clock)
    ended = check(list(exporter.lines(acme.services.auditor.chain("acme"), lambda _: None)))
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "line 1, behind event 0: of another kind, or signed by another key" in ended.stderr


def test_what_was_kept_shows_a_chain_written_anew(acme: World, check: Check, engine: sa.Engine) -> None:
    kept = acme.services.checkpoints.sign("acme", actor="test")
    with engine.begin() as connection:
        connection.execute(sa.text("TRUNCATE signed_checkpoints, audit_events, audit_heads"))
    with acme.store.transaction() as tx:
        for _ in range(11):
            tx.audit.append(acme.tenant().id, acme.clock.now(), "somebody", "tenant.verified")
    lines = export(acme)
    assert check(lines).returncode == 0  # by itself it is as good as any
    ended = check(lines, kept)
    assert ended.returncode == 1
    assert "line 11, behind event 9: not what the checkpoint says that you kept" in ended.stderr
    rewritten = acme.services.checkpoints.sign("acme", actor="test")
    assert check(export(acme), rewritten).returncode == 0


def test_who_kept_more_than_the_file_has_is_told(acme: World, check: Check) -> None:
    lines = export(acme)
    kept = acme.services.checkpoints.sign("acme", actor="test")
    acme.services.checkpoints.sign("acme", actor="test")
    assert check(lines, kept).returncode == 0
    ended = check(lines, acme.services.checkpoints.sign("acme", actor="test"))
    assert ended.stderr.endswith("cut off, or older than what you kept\n")


def test_events_that_are_added_meanwhile_are_left_to_the_next_export(acme: World, check: Check) -> None:
    found = acme.services.auditor.chain("acme")
    acme.services.checkpoints.sign("acme", actor="test")
    lines = list(acme.services.audit_exporter.lines(found, lambda _: None))
    assert len(lines) == 1 + 10 + 2
    assert check(lines).returncode == 0


def test_a_broken_chain_ends_the_export(acme: World, engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE audit_events SET actor = 'nobody' WHERE sequence = 5"))
    with pytest.raises(AuditChainBroken, match="event 5 was changed"):
        export(acme)


def test_memory_does_not_grow_with_the_log(world: World, engine: sa.Engine) -> None:
    """20,000 events are ten pages; one page takes 4 MB."""
    add_chain(engine, "acme", 20_000)
    found = world.services.auditor.chain("acme")

    def peak_bytes(run: Callable[[], object]) -> int:
        tracemalloc.start()
        try:
            run()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    exporter = world.services.audit_exporter
    assert peak_bytes(lambda: Auditor(world.store, world.master_keys).verify(found)) < 10e6
    assert peak_bytes(lambda: [len(one) for one in exporter.lines(found, lambda _: None)]) < 10e6
    assert peak_bytes(lambda: sum(map(len, world.services.auditor.log(found)))) < 10e6
