"""The stack's folder: data, logs, secrets, ports, and the lock that lets one stack run there."""

import base64
import fcntl
import json
import os
import secrets
import shlex
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

from byok.errors import StackUnavailable

_FOLDERS = ("log", "broker", "cache", "aws")


class Home:
    """A folder that only its owner can read."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock: int | None = None

    @property
    def log_folder(self) -> Path:
        """Where the processes' output goes."""
        return self.path / "log"

    @property
    def env_file(self) -> Path:
        """Shell lines for another terminal; there while the stack runs."""
        return self.path / "env"

    def open(self) -> None:
        """Make the folder and take its lock.

        Raises:
            StackUnavailable: another stack runs here.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in _FOLDERS:
            (self.path / name).mkdir(mode=0o700, exist_ok=True)
        self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            self._lock = None
            raise StackUnavailable(
                f"another stack runs in {self.path}",
                remedy=f"use it (source {self.env_file}), stop it, or set BYOK_HOME to another folder",
            ) from None

    def close(self) -> None:
        """Give the lock back."""
        self.env_file.unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def secret(self, name: str) -> str:
        """A password of this home, made on first use."""
        return self._kept("secrets", name, lambda: secrets.token_urlsafe(24))

    def master_key(self) -> str:
        """A development master key of this home, made on first use."""
        return self._kept(
            "secrets",
            "master-key",
            lambda: f"dev-{secrets.token_hex(4)}:{base64.b64encode(secrets.token_bytes(32)).decode()}",
        )

    def port(self, name: str) -> int:
        """A free port on 127.0.0.1: the same as last time if nobody took it."""
        kept = int(self._kept("ports", name, lambda: str(_free_port())))
        if not _is_free(kept):
            kept = _free_port()
            self._keep("ports", name, str(kept))
        return kept

    def port_of(self, name: str) -> int:
        """The port that `port` gave last."""
        return int(self._read("ports")[name])

    def write_env(self, environment: Mapping[str, str]) -> None:
        """Write the file that another shell may source."""
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in environment.items()]
        _write_private(self.env_file, "".join(lines))

    def _kept(self, file: str, name: str, make: Callable[[], str]) -> str:
        value = self._read(file).get(name)
        return self._keep(file, name, make()) if value is None else value

    def _keep(self, file: str, name: str, value: str) -> str:
        _write_private(self.path / file, json.dumps(self._read(file) | {name: value}))
        return value

    def _read(self, file: str) -> dict[str, str]:
        path = self.path / file
        known: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        return known


def _write_private(path: Path, content: str) -> None:
    scratch = path.with_suffix(".new")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
    scratch.replace(path)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
