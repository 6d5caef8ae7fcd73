"""Redis as production has it: a master with a replica behind a Sentinel, a Cluster, and TLS."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from byok.embedded.servers import _valkey_binary, accepts
from byok.embedded.stack import Stack
from byok.embedded.supervisor import Child
from tests.ports import unused_port

MASTER = "byok-master"
_ENVIRONMENT = {"LANG": "C.UTF-8", "TZ": "UTC"}


@dataclass(frozen=True)
class Server:
    """A Valkey that was started for one test."""

    child: Child
    port: int

    @contextmanager
    def client(self, password: str | None = None) -> Iterator["redis.Redis"]:
        with redis.Redis(port=self.port, password=password) as client:
            yield client

    def kill(self) -> None:
        """End it without a word."""
        self.child.process.kill()
        self.child.process.wait()


@contextmanager
def valkey(
    stack: Stack, folder: Path, *lines: str, port: int = 0, sentinel: bool = False
) -> Iterator[Server]:
    """A Valkey with these lines of configuration."""
    port = port or unused_port()
    folder.mkdir(parents=True)
    config = folder / "valkey.conf"
    config.write_text("\n".join([f"port {port}", "bind 127.0.0.1", f"dir {folder}", *lines, ""]))
    arguments = [str(_valkey_binary()), str(config), *(["--sentinel"] if sentinel else [])]
    child = stack.supervisor.spawn(f"{folder.name}-{port}", arguments, _ENVIRONMENT)
    try:
        stack.supervisor.wait_until(child, lambda: accepts(port))
        yield Server(child, port)
    finally:
        stack.supervisor.stop([child])


@dataclass(frozen=True)
class Group:
    """A master, its replica, and the Sentinel that watches them."""

    master: Server
    replica: Server
    sentinel: Server


@contextmanager
def sentinel_group(
    stack: Stack, folder: Path, password: str, sentinel_password: str, master_port: int = 0
) -> Iterator[Group]:
    """Master, replica and a Sentinel (quorum 1) that takes a master for dead after half a second.

    ``master_port``: where Sentinel and clients find the master, if not at its own port.
    """
    both = ('save ""', f"requirepass {password}", f"masterauth {password}", "repl-diskless-sync-delay 0")
    with (
        valkey(stack, folder / "master", *both) as master,
        valkey(stack, folder / "replica", *both, f"replicaof 127.0.0.1 {master.port}") as replica,
        valkey(
            stack,
            folder / "sentinel",
            f"requirepass {sentinel_password}",
            f"sentinel monitor {MASTER} 127.0.0.1 {master_port or master.port} 1",
            f"sentinel auth-pass {MASTER} {password}",
            f"sentinel down-after-milliseconds {MASTER} 500",
            f"sentinel failover-timeout {MASTER} 2000",
            sentinel=True,
        ) as sentinel,
    ):
        yield Group(master, replica, sentinel)
