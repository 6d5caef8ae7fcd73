"""The spool of requests: what was written survives its process, and is read once by whoever comes."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from byok.core.arns import KmsKeyArn
from byok.core.model import Connection
from byok.core.request_log import LoggedRequest, mark_in, merged, parse_line, to_line, user_agent
from byok.entropy import SystemRandom
from byok.errors import ConfigurationError, KmsBackingOff
from byok.spool import FileSpool
from tests.fakes import FakeClock
from tests.world import kms_key_arn

CONNECTION = Connection(uuid4(), KmsKeyArn.parse(kms_key_arn()), "external", tenant_name="acme")


NUL = (
    b'["00000000000000000000000000000007","00000000000000000000000000000007","De\\u0000","a",null,"r",'
    b'"2026-11-28T12:00:00+00:00",null,"",""]\n'
)


def spool(folder: Path) -> FileSpool:
    return FileSpool(folder, FakeClock(), SystemRandom())


def begin(of: FileSpool) -> LoggedRequest:
    return of.begin(CONNECTION, "Decrypt", kms_key_arn())


def read(of: FileSpool) -> Sequence[LoggedRequest]:
    return [request for batch in of.sealed() for request in batch]


def test_a_request_and_its_end_are_read_as_one(tmp_path: Path) -> None:
    writer, reader = spool(tmp_path), spool(tmp_path)
    first, second = begin(writer), begin(writer)
    writer.end(first, "aws-1", "DisabledException")
    assert read(reader) == [], "its process lives"
    writer.seal()
    found = {one.id: one for one in read(reader)}
    assert (found[first.id].request_id, found[first.id].code) == ("aws-1", "DisabledException")
    assert found[second.id] == second
    assert read(reader) == [], "once"
    writer.end(second, "aws-2", "")
    writer.seal()
    assert [one.request_id for one in read(reader)] == ["aws-2"], "the end alone says all"


DIES = """
import os, signal, sys
from pathlib import Path
from tests.unit.test_spool import begin, spool
of = spool(Path(sys.argv[1]))
of.end(begin(of), "aws-1", "")
begin(of)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_wrote_is_there(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", DIES, str(tmp_path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    found = read(spool(tmp_path))
    assert sorted(one.request_id for one in found) == ["", "aws-1"]


def test_what_a_living_process_wrote_can_be_read_without_taking_it(tmp_path: Path) -> None:
    writer, reader = spool(tmp_path), spool(tmp_path)
    first, second = begin(writer), begin(writer)
    writer.end(first, "aws-1", "")
    (file,) = tmp_path.glob("*.requests")
    with file.open("ab") as at_a_line_just_now:
        at_a_line_just_now.write(b'{"id": "')
    (found,) = reader.unsealed()
    assert {one.id: one.request_id for one in found} == {first.id: "aws-1", second.id: ""}
    assert read(reader) == []
    writer.seal()
    assert len(read(reader)) == 2, "it is still there"


def test_what_could_not_be_moved_stays(tmp_path: Path) -> None:
    writer = spool(tmp_path)
    begin(writer)
    writer.seal()
    moving = writer.sealed()
    next(iter(moving))
    moving.close()  # type: ignore[attr-defined]  # a generator: what a for loop does when its body raises
    assert len(read(writer)) == 1


def test_lines_of_another_release_are_put_aside_and_lose_nothing(tmp_path: Path) -> None:
    """What can't be read is evidence: whoever runs the other release again moves it."""
    writer = spool(tmp_path)
    kept = begin(writer)
    writer.seal()
    [file] = tmp_path.glob("*.requests")
    content = file.read_bytes()
    file.write_bytes(content + content[:-2] + b',"of 2027"]\n')
    assert [one.id for one in read(writer)] == [kept.id]
    assert read(writer) == [], "once"
    [aside] = tmp_path.iterdir()
    assert aside.read_bytes().startswith(content)
    aside.rename(file)
    assert [one.id for one in read(writer)] == [kept.id]


def test_half_a_line_is_no_evidence(tmp_path: Path) -> None:
    writer = spool(tmp_path)
    begin(writer)
    writer.seal()
    [file] = tmp_path.glob("*.requests")
    file.write_bytes(file.read_bytes() + b'["half')
    assert len(read(writer)) == 1
    assert list(tmp_path.iterdir()) == []


def test_what_answers_may_be_anybody(tmp_path: Path) -> None:
    """PostgreSQL has no text with NUL in it: the file would wait for ever, and all behind it."""
    writer = spool(tmp_path)
    writer.end(begin(writer), "aws-1\x00\ud800", "No\x00pe" + 10_000 * "x")
    writer.seal()
    [request] = read(writer)
    assert (request.request_id, request.code[:4], len(request.code)) == ("aws-1", "Nope", 255)


def test_a_pipe_or_a_link_in_the_folder_stops_nobody(tmp_path: Path) -> None:
    writer, folder = spool(tmp_path / "spool"), tmp_path / "spool"
    begin(writer)
    writer.seal()
    secret = tmp_path / "secret"
    secret.write_bytes(b"x\n")
    os.mkfifo(folder / "0.requests")
    (folder / "1.requests").symlink_to(secret)
    assert len(read(writer)) == 1
    assert secret.exists()


def test_a_file_that_cant_be_removed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = spool(tmp_path)
    begin(writer)
    writer.seal()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(ConfigurationError, match="Read-only"):
        read(writer)


def test_a_forked_child_has_a_file_of_its_own_and_leaves_the_parents_alone(tmp_path: Path) -> None:
    parent, reader = spool(tmp_path), spool(tmp_path)
    begin(parent)
    child = os.fork()
    if child == 0:
        parent.forget()
        begin(parent)
        os._exit(0)
    os.waitpid(child, 0)
    assert len(read(reader)) == 1, "the child's; the parent has its lock still"
    begin(parent)
    parent.seal()
    assert len(read(reader)) == 2


def test_a_full_disk_sends_nothing_and_spoils_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = spool(tmp_path)
    kept = begin(writer)
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, line: real(descriptor, line[:20]))
    with pytest.raises(KmsBackingOff):
        begin(writer)
    writer.end(kept, "aws-1", "")  # was sent: that it ended is lost, and nobody is told
    monkeypatch.undo()
    also_kept = begin(writer)
    writer.seal()
    assert {one.id for one in read(writer)} == {kept.id, also_kept.id}


def test_threads_write_while_others_seal_and_read(tmp_path: Path) -> None:
    writer = spool(tmp_path)
    ids: list[UUID] = []
    found: list[LoggedRequest] = []
    done = threading.Event()

    def write() -> None:
        for _ in range(200):
            request = begin(writer)
            writer.end(request, "aws", "")
            ids.append(request.id)

    def move() -> None:
        while not done.is_set():
            writer.seal()
            found.extend(read(writer))

    threads = [threading.Thread(target=write) for _ in range(6)]
    mover = threading.Thread(target=move)
    for thread in [*threads, mover]:
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    mover.join()
    writer.seal()
    found.extend(read(writer))
    assert {one.id for one in merged(found) if one.request_id} == set(ids)
    assert len(ids) == 1200


def test_a_long_file_is_sealed_by_itself(tmp_path: Path) -> None:
    writer = spool(tmp_path)
    for _ in range(2000):
        begin(writer)
    sizes = [path.stat().st_size for path in tmp_path.glob("*.requests")]
    assert len(sizes) > 1
    assert max(sizes) < 300_000


def test_a_folder_of_another_users_is_refused_where_anybody_could_make_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(KmsBackingOff, match="another user"):
        begin(FileSpool(tmp_path, FakeClock(), SystemRandom(), must_own=True))


def test_what_waits_in_a_folder_of_another_users_is_no_evidence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever makes the folder before us could have its own calls logged as ours."""
    writer = spool(tmp_path)
    begin(writer)
    writer.seal()
    reader = FileSpool(tmp_path, FakeClock(), SystemRandom(), must_own=True)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert read(reader) == []
    monkeypatch.undo()
    assert len(read(reader)) == 1


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_a_file_of_another_users_is_no_evidence(tmp_path: Path) -> None:
    writer = spool(tmp_path)
    begin(writer)
    writer.seal()
    [file] = tmp_path.glob("*.requests")
    os.chown(file, 12345, -1)
    assert read(writer) == []
    assert list(writer.unsealed()) == []
    os.chown(tmp_path, 12345, -1)
    assert len(read(writer)) == 1, "root's processes move what the workers' user left"


@pytest.mark.parametrize(
    "line", [b"", b"[]\n", b"nothing\n", b"[1,2,3,4,5,6,7,8,9,10]\n", b"{}\n", b"\xff\n", NUL]
)
def test_what_is_no_line_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError):
        parse_line(line)


def test_lines_say_it_all(tmp_path: Path) -> None:
    request = begin(spool(tmp_path))
    for one in (request, request.ended(FakeClock().now(), "aws-1", 'a "code"\n')):
        assert parse_line(to_line(one)) == one
        with pytest.raises(ValueError):
            parse_line(to_line(one)[:-1])


def test_a_user_agent_is_read_back_whatever_is_behind_it() -> None:
    mark = uuid4()
    assert mark_in(user_agent(mark, "Boto3/1.44 md/Botocore#1.44")) == mark
    assert mark_in("Boto3/1.44") is None
    assert mark_in("byok-id/123 Boto3") is None
