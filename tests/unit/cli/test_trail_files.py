"""Files that are said to be CloudTrail's: what is wrong with one is told, and costs nothing."""

import gzip
import json
import os
from pathlib import Path

import pytest

from byok.cli import trail_files
from byok.cli.trail_files import TrailFiles
from byok.errors import InvalidInput

RECORD = {"eventTime": "2026-11-28T12:00:00Z", "awsRegion": "eu-central-1", "requestID": "r-1"}


def why(path: Path) -> str:
    """What is wrong with a file, or nothing."""
    files = TrailFiles.find([path])
    list(files.records())
    return " ".join(one.why for one in files.broken)


@pytest.mark.parametrize("packed", [True, False])
def test_a_file_that_memory_would_not_hold_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    monkeypatch.setattr(trail_files, "_MAX_FILE_BYTES", 1 << 20)
    content = b" " * (2 << 20) + json.dumps({"Records": [RECORD]}).encode()
    file = tmp_path / "bomb.json"
    file.write_bytes(gzip.compress(content) if packed else content)
    assert "is larger than 1 MiB" in why(file)


def test_no_more_is_unpacked_than_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trail_files, "_MAX_FILE_BYTES", 1 << 20)
    file = tmp_path / "bomb.json.gz"
    file.write_bytes(gzip.compress(bytes(1 << 25)))
    assert len(trail_files._content(file)) == (1 << 20) + 1


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"Records": [' + b"9" * 5000 + b"]}",
        b"\xff",
        b'{"Records": [[]]}',
        b"{}",
        b"\x1f\x8b\x00",
    ],
)
def test_what_is_no_trail_is_broken(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.json"
    file.write_bytes(content)
    assert why(file)


def test_a_link_to_nowhere_and_a_folder_that_cant_be_read_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is passed over in silence makes both sides agree."""
    (tmp_path / "good.json").write_text(json.dumps({"Records": [RECORD]}))
    (tmp_path / "gone.json").symlink_to(tmp_path / "nowhere")
    (tmp_path / "locked").mkdir()
    scan = os.scandir

    def refuse(path: str) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    files = TrailFiles.find([tmp_path])
    assert len(list(files.records())) == 1
    assert sorted(one.path.name for one in files.broken) == ["gone.json", "locked"]


def test_a_folder_without_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput):
        TrailFiles.find([tmp_path])
