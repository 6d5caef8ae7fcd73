"""PostgreSQL as production has it: a primary and a standby that follows it."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from byok.embedded.home import Home
from byok.embedded.servers import _ENVIRONMENT, Postgres, _postgres_bin
from byok.embedded.stack import Stack
from byok.embedded.supervisor import Child
from byok.embedded.unprivileged import run_as
from tests.ports import unused_port

_SETTINGS = ("listen_addresses=127.0.0.1", "unix_socket_directories=", "shared_buffers=32MB", "fsync=off")


@dataclass(frozen=True)
class Pair:
    """Two servers, and how to log in to them: ``USER:PASSWORD``."""

    primary: Child
    primary_port: int
    standby_port: int
    login: str

    def url(self, *ports: int, parameters: str = "target_session_attrs=read-write") -> str:
        """The database on the servers at these ports, in this order."""
        servers = ",".join(f"127.0.0.1:{port}" for port in ports)
        return f"postgresql+psycopg://{self.login}@{servers}/byok?{parameters}"

    def fail_over(self) -> None:
        """Kill the primary once the standby has all that it has, and make the standby the primary."""
        caught_up = "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn = pg_current_wal_lsn()"
        with self._admin(self.primary_port) as admin:
            deadline = time.monotonic() + 20
            while admin.execute(caught_up).fetchone() != (1,):
                assert time.monotonic() < deadline
                time.sleep(0.05)
        self.primary.process.send_signal(signal.SIGQUIT)
        self.primary.process.wait(20)
        with self._admin(self.standby_port) as admin:
            admin.execute("SELECT pg_promote()")

    def _admin(self, port: int) -> "psycopg.Connection":
        url = f"postgresql://{self.login}@127.0.0.1:{port}/postgres"
        return psycopg.connect(url, autocommit=True)


@contextmanager
def primary_and_standby(stack: Stack, folder: Path) -> Iterator[Pair]:
    """A primary with an empty database ``byok``, and a standby that streams from it."""
    home = Home(folder)
    home.open()
    initialised = Postgres(home, stack.supervisor, durable=False)
    initialised.initialise()
    login, primary_port, standby_port = f"byok:{home.secret('postgres')}", unused_port(), unused_port()
    primary = _start(stack, folder / "pg", primary_port)
    try:
        pair = Pair(primary, primary_port, standby_port, login)
        with pair._admin(primary_port) as admin:
            admin.execute("CREATE DATABASE byok")
        source = f"postgresql://{login}@127.0.0.1:{primary_port}/postgres"
        copy = [str(_postgres_bin() / "pg_basebackup"), "-D", str(folder / "standby"), "-R", "-c", "fast"]
        stack.supervisor.run(
            "pg_basebackup", [*copy, "-d", source], _ENVIRONMENT, popen_arguments=run_as().arguments
        )
        standby = _start(stack, folder / "standby", standby_port)
        try:
            yield pair
        finally:
            stack.supervisor.stop([standby])
    finally:
        stack.supervisor.stop([primary])
        home.close()


def _start(stack: Stack, data: Path, port: int) -> Child:
    settings = [word for setting in (f"port={port}", *_SETTINGS) for word in ("-c", setting)]
    child = stack.supervisor.spawn(
        f"postgres-{port}",
        [str(_postgres_bin() / "postgres"), "-D", str(data), *settings],
        _ENVIRONMENT,
        stop_signal=signal.SIGINT,
        popen_arguments=run_as().arguments,
    )
    stack.supervisor.wait_for_line(child, "ready to accept")
    return child
