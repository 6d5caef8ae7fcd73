"""Files of CloudTrail's, as AWS delivers them to S3 or as somebody downloaded them, one after the other."""

import gzip
import io
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from byok.core.cloudtrail import seen_in
from byok.errors import InvalidInput

_SUFFIXES = (".json", ".json.gz")
# Beside the records in the same bucket: AWS's own hashes of the files, and its statistics.
_OTHER_FOLDERS = frozenset({"CloudTrail-Digest", "CloudTrail-Insight"})
_GZIP_MAGIC = b"\x1f\x8b"
# Ten times as much in memory while it is read. AWS's own files are of some MiB.
_MAX_FILE_BYTES = 1 << 28

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class BrokenFile:
    """A file that is none of CloudTrail's, or damaged; nothing of it is compared."""

    path: Path
    why: str


@dataclass(slots=True)
class TrailFiles:
    """Files to be read one at a time; what could not be read is in ``broken`` afterwards."""

    paths: Sequence[Path]
    broken: list[BrokenFile] = field(default_factory=list)

    @classmethod
    def find(cls, named: Sequence[Path]) -> "TrailFiles":
        """The files that are named, and all under the folders that are.

        Raises:
            InvalidInput: there is no such file, or none in a folder.
        """
        found: dict[Path, None] = {}
        unreadable: list[BrokenFile] = []
        for path in named:
            if not os.path.lexists(path):
                raise InvalidInput(
                    f"{path}: there is no such file", remedy="name files or folders of CloudTrail's"
                )
            inside = _under(path, unreadable) if path.is_dir() else [path]
            if not inside and not unreadable:
                raise InvalidInput(
                    f"{path}: there is no *.json or *.json.gz in this folder",
                    remedy="aws s3 sync s3://BUCKET/AWSLogs/ACCOUNT/CloudTrail/REGION/ FOLDER",
                )
            found |= dict.fromkeys(inside)
        return cls(list(found), unreadable)

    def records(self, on_file: Callable[[], None] = lambda: None) -> Iterator[Record]:
        """All records; a file is in memory while its records are read."""
        for path in self.paths:
            try:
                yield from _read(path)
            except ValueError as error:
                self.broken.append(BrokenFile(path, str(error)))
            on_file()


def _under(folder: Path, unreadable: list[BrokenFile]) -> Sequence[Path]:
    def note(error: OSError) -> None:
        unreadable.append(BrokenFile(Path(error.filename), f"can't be read: {error.strerror}"))

    paths = [Path(at) / name for at, _, names in os.walk(folder, onerror=note) for name in names]
    return sorted(
        path for path in paths if path.name.endswith(_SUFFIXES) and not _OTHER_FOLDERS & set(path.parts)
    )


def _read(path: Path) -> Sequence[Record]:
    """The records of a file, all of them sound.

    Raises:
        ValueError: what is wrong with it.
    """
    try:
        content = _content(path)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"can't be read: {error}") from error
    if len(content) > _MAX_FILE_BYTES:
        raise ValueError(f"is larger than {_MAX_FILE_BYTES >> 20} MiB, unpacked: divide it")
    try:
        told = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is no JSON: {error}") from error
    records = told.get("Records") if isinstance(told, dict) else None
    if not isinstance(records, list):
        raise ValueError('has no list "Records"')
    for number, record in enumerate(records, 1):
        if not isinstance(record, dict):
            raise ValueError(f"record {number} is none")
        try:
            seen_in(record)
        except ValueError as error:
            raise ValueError(f"record {number}: {error}") from error
    return records


def _content(path: Path) -> bytes:
    """What is in a file, unpacked; no more than a byte beyond what is read at all."""
    with path.open("rb") as file:
        content = file.read(_MAX_FILE_BYTES + 1)
    if not content.startswith(_GZIP_MAGIC):
        return content
    with gzip.open(io.BytesIO(content)) as unpacked:
        return unpacked.read(_MAX_FILE_BYTES + 1)
