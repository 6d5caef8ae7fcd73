"""Implements `byok.ports.RequestLog` and `byok.ports.RequestSpool` on files of this host.

Each process appends lines to a file of its own, one write() a line, and holds an flock on it. What is
written survives the process, not the machine: nothing is fsynced, since that would cost more than the
request itself. A file without a holder is complete: it was sealed, or its process is dead. Whoever gets its
lock moves it to PostgreSQL.
"""

import fcntl
import os
import stat
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from byok.core.model import Connection
from byok.core.request_log import LoggedRequest, merged, parse_line, to_line
from byok.errors import ConfigurationError, KmsBackingOff
from byok.logs import get_logger
from byok.ports import Clock, Random

log = get_logger(__name__)

_SUFFIX = ".requests"
_ASIDE = ".unreadable"  # with lines of another release
# One transaction's worth: 800 lines. So whoever moves a backlog gets on, however short its time.
_MAX_FILE_BYTES = 1 << 18
_RETRY_SECONDS = 5.0


class FileSpool:
    """The spool in one folder. Thread-safe; in a forked child call `forget` first.

    ``must_own``: refuse a folder of another user's, as somebody may have put it where all may write.
    """

    def __init__(self, folder: Path, clock: Clock, random: Random, *, must_own: bool = False) -> None:
        self._folder = folder
        self._clock = clock
        self._random = random
        self._must_own = must_own
        self._descriptor: int | None = None
        self.forget()

    def forget(self) -> None:
        """Leave the file to the parent, as in a forked child: it and its lock are the parent's."""
        self._lock = threading.Lock()
        self._close()

    def begin(self, connection: Connection, operation: str, subject: str) -> LoggedRequest:
        role = connection.role_arn
        by_role = role is not None and operation != "AssumeRole"
        request = LoggedRequest(
            self._random.uuid(),
            connection.tenant_id,
            operation,
            subject,
            str(role) if by_role else None,
            connection.kms_key_arn.region,
            self._clock.now(),
        )
        try:
            self._write(to_line(request))
        except OSError as error:
            raise KmsBackingOff(
                f"{operation} was not sent, since it could not be logged: {error.strerror}: {self._folder}",
                retry_after_seconds=_RETRY_SECONDS,
                remedy="make room in BYOK_REQUEST_LOG_FOLDER, and see that we may write there",
            ) from error
        return request

    def end(self, request: LoggedRequest, request_id: str, code: str) -> None:
        try:
            self._write(to_line(request.ended(self._clock.now(), request_id, code)))
        except OSError as error:
            log.warning("request_end_not_logged", error=error.strerror, kms_request_id=request_id)

    def _write(self, line: bytes) -> None:
        with self._lock:
            if self._descriptor is None:
                self._open()
            assert self._descriptor is not None
            try:
                written = os.write(self._descriptor, line)
                if written < len(line):
                    raise OSError(None, "no room for a whole line")
            except OSError:
                self._close()  # what is written next must not follow half a line
                raise
            self._size += written
            if self._size >= _MAX_FILE_BYTES:
                self._close()

    def _open(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._is_foreign():
            raise PermissionError(None, "another user's folder")
        name = str(self._random.uuid())  # later ones sort behind earlier ones
        scratch = self._folder / f"{name}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW
        descriptor = os.open(scratch, flags, 0o600)
        try:
            # Nobody may take it for a dead process's before its lock is held.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            scratch.rename(self._folder / f"{name}{_SUFFIX}")
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor, self._size = descriptor, 0

    def _is_foreign(self) -> bool:
        return self._must_own and self._folder.exists() and self._folder.stat().st_uid != os.getuid()

    def _close(self) -> None:
        descriptor, self._descriptor, self._size = self._descriptor, None, 0
        if descriptor is not None:
            os.close(descriptor)

    def seal(self) -> None:
        with self._lock:
            self._close()

    def sealed(self) -> Iterator[Sequence[LoggedRequest]]:
        for path in self._files():
            with _owned(path) as file:
                if file is None:
                    continue
                requests, unreadable = _read(file)
                yield merged(requests)
                _forget(path, unreadable)

    def unsealed(self) -> Iterator[Sequence[LoggedRequest]]:
        for path in self._files():
            with _opened(path) as file:
                if file is None:
                    continue
                written = file.read()
            whole = written[: written.rfind(b"\n") + 1]  # its process may be at a line just now
            yield merged(_read(whole.splitlines(keepends=True))[0])

    def backlog_bytes(self) -> int:
        return sum(_size(path) for path in self._files())

    def _files(self) -> Sequence[Path]:
        # What another user put there is no evidence: it could make a thief's calls look like ours.
        return [] if self._is_foreign() else sorted(self._folder.glob(f"*{_SUFFIX}"))


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO | None]:
    """The file, if it is one of the fleet's."""
    try:
        # Whoever may write to the folder may put a link or a pipe there, which would be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # another moved it, or it is another user's
        yield None
        return
    with os.fdopen(descriptor, "rb") as file:
        if _is_of_fleet(file, path):
            yield file
        else:
            log.warning("request_log_file_of_another_user", file=str(path))
            yield None


@contextmanager
def _owned(path: Path) -> Iterator[BinaryIO | None]:
    """The file, if it is one of the fleet's and nobody else has it."""
    with _opened(path) as file:
        if file is None:
            yield None
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield None
            return
        yield file


def _is_of_fleet(file: BinaryIO, path: Path) -> bool:
    """Whether we wrote a file, or whoever the folder belongs to: root moves what the workers' user left."""
    status = os.fstat(file.fileno())
    return stat.S_ISREG(status.st_mode) and status.st_uid in (os.getuid(), path.parent.stat().st_uid)


def _read(lines: Iterable[bytes]) -> tuple[list[LoggedRequest], int]:
    """The requests of a file, and how many whole lines are none. A full disk cuts a line short, and the
    request of that line was not sent."""
    requests, unreadable = [], 0
    for line in lines:
        try:
            requests.append(parse_line(line))
        except ValueError:
            unreadable += line.endswith(b"\n")
    return requests, unreadable


def _forget(path: Path, unreadable: int) -> None:
    """Remove a file that was moved; put it aside where it has what we can't read: it is evidence.

    Raises:
        ConfigurationError: we may not.
    """
    try:
        if unreadable:
            aside = path.rename(path.with_suffix(_ASIDE))
            log.error("request_log_lines_unreadable", file=str(aside), lines=unreadable)
        else:
            path.unlink(missing_ok=True)
    except FileNotFoundError:
        pass  # another moved it while we waited for its lock
    except OSError as error:
        raise ConfigurationError(
            f"{path} was moved to PostgreSQL, and can't be removed: {error.strerror}",
            remedy="let this user write to BYOK_REQUEST_LOG_FOLDER",
        ) from error


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # another moved it
        return 0
