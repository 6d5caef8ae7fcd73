"""``byok encrypt`` and ``byok decrypt`` on files and pipes: what is written is whole, or its lack is told."""

import io
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pexpect
import pytest

from byok.cli.main import main
from byok.core.segments import SEGMENT_BYTES
from byok.embedded.stack import Stack
from byok.wiring import Runtime
from tests.customers import add_key, join

CONTEXT = ("acme", "pii", "--context", "exports/2026-11.csv")
PLAINTEXT = os.urandom(2 * SEGMENT_BYTES)  # three segments

Byok = Callable[..., tuple[int, bytes, str]]


@pytest.fixture
def byok(
    runtime: Runtime,
    stack: Stack,
    environment: Mapping[str, str],
    capsysbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> Byok:
    """Run a command for a tenant with a key; return exit code, standard output and standard error."""
    join(stack, runtime, "acme")
    add_key(runtime, "acme")

    def run(command: str, *arguments: str, stdin: bytes = b"") -> tuple[int, bytes, str]:
        monkeypatch.setattr(sys, "argv", ["byok", command, *CONTEXT, *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsysbinary.readouterr()
        return int(ended.value.code or 0), out, err.decode()

    return run


def test_a_token_and_a_stream_go_through_pipes_and_decrypt_tells_them_apart(byok: Byok) -> None:
    for options, first in (([], b"\x01"), (["--stream"], b"\x02")):
        code, sealed, err = byok("encrypt", *options, stdin=PLAINTEXT)
        assert (code, sealed[:1], err) == (0, first, "")
        assert byok("decrypt", stdin=sealed) == (0, PLAINTEXT, "")


def test_files_are_written_whole_and_for_their_owner_alone(byok: Byok, tmp_path: Path) -> None:
    plain, sealed, opened = tmp_path / "plain", tmp_path / "sealed", tmp_path / "opened"
    plain.write_bytes(PLAINTEXT)
    opened.write_bytes(b"what was there before")
    assert byok("encrypt", "--stream", "--input", str(plain), "--output", str(sealed)) == (0, b"", "")
    assert byok("decrypt", "--input", str(sealed), "--output", str(opened)) == (0, b"", "")
    assert opened.read_bytes() == PLAINTEXT
    assert stat.S_IMODE(opened.stat().st_mode) == 0o600
    assert sorted(tmp_path.iterdir()) == [opened, plain, sealed]


def test_a_stream_that_is_cut_short_leaves_the_file_as_it_was(byok: Byok, tmp_path: Path) -> None:
    sealed, opened = tmp_path / "sealed", tmp_path / "opened"
    sealed.write_bytes(byok("encrypt", "--stream", stdin=PLAINTEXT)[1][: SEGMENT_BYTES + 5])
    opened.write_bytes(b"what was there before")
    code, out, err = byok("decrypt", "--input", str(sealed), "--output", str(opened))
    assert (code, out) == (7, b"")
    assert "[cannot-decrypt]" in err
    assert opened.read_bytes() == b"what was there before"
    assert sorted(tmp_path.iterdir()) == [opened, sealed]


def test_a_stream_that_is_cut_short_ends_a_pipe_with_a_failure(byok: Byok) -> None:
    _, sealed, _ = byok("encrypt", "--stream", stdin=PLAINTEXT)
    code, out, err = byok("decrypt", stdin=sealed[:-1])
    assert code == 7
    assert "[cannot-decrypt]" in err
    assert out
    assert PLAINTEXT.startswith(out)
    assert len(out) < len(PLAINTEXT)


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        (["--input", "missing/file"], "can't be read: No such file"),
        (["--input", "."], "can't be read: Is a directory"),
        (["--output", "missing/file"], "can't be written: No such file"),
        (["--output", os.devnull], "is no regular file"),
    ],
)
def test_files_that_cannot_be_used_are_one_line(byok: Byok, options: list[str], wrong: str) -> None:
    code, out, err = byok("encrypt", "--stream", *options, stdin=b"ada")
    assert (code, out, err.count("\n")) == (2, b"", 1)
    assert wrong in err
    assert "[invalid-input]" in err


def test_a_link_is_followed(byok: Byok, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    assert byok("encrypt", "--output", str(tmp_path / "link"), stdin=b"ada")[0] == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes()[0] == 1


@pytest.mark.usefixtures("byok")
def test_the_bar_shows_on_a_terminal_and_not_in_a_pipe(
    environment: Mapping[str, str], tmp_path: Path
) -> None:
    plain = tmp_path / "plain.csv"
    plain.write_bytes(os.urandom(20 * SEGMENT_BYTES))
    command = ["-m", "byok.cli", "encrypt", *CONTEXT, "--stream", "--input", str(plain)]
    command += ["--output", str(tmp_path / "sealed")]
    piped = subprocess.run([sys.executable, *command], env=dict(environment), capture_output=True, check=True)
    assert piped.stderr == b""
    seen = pexpect.run(f"{sys.executable} {' '.join(command)}", env={**environment, "TERM": "xterm"})
    assert b"plain.csv" in seen
