"""All servers together, in order."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from byok.embedded.home import Home
from byok.embedded.servers import Postgres, SimulatorServer, Valkey
from byok.embedded.supervisor import Supervisor
from byok.simulator import VENDOR_ACCESS_KEY_ID, VENDOR_ROLE_ARN, VENDOR_SECRET_ACCESS_KEY

_BROKER = ("maxmemory-policy noeviction",)  # an evicted message would be a lost task
_BROKER_DURABLE = ("appendonly yes", "appendfsync everysec")
_CACHE = ("maxmemory 64mb", "maxmemory-policy volatile-ttl")
_IN_MEMORY = ('save ""', "appendonly no")


class Stack:
    """PostgreSQL, a Valkey for the queue, one for the leases, and the KMS simulator.

    ``durable`` keeps data through a crash; without it everything is faster, for tests.
    ``postgres_settings`` (``NAME=VALUE``) go over those for a small database.
    ``on_step`` is told what is being done.
    """

    def __init__(
        self,
        home: Path,
        *,
        durable: bool = True,
        postgres_settings: Sequence[str] = (),
        on_step: Callable[[str], None] | None = None,
    ) -> None:
        self.home = Home(home)
        self._durable = durable
        self._postgres_settings = postgres_settings
        self._on_step = on_step
        self.supervisor: Supervisor
        self.postgres: Postgres
        self.broker: Valkey
        self.cache: Valkey
        self.simulator: SimulatorServer

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start all servers, and wait until each is ready.

        Raises:
            StackUnavailable: what is wrong, and what to do.
        """
        self.home.open()
        try:
            self.supervisor = Supervisor(self.home.log_folder)
            self._start_servers()
        except BaseException:
            self.stop()
            raise
        self.home.write_env(self.environment)

    def _start_servers(self) -> None:
        kept = _BROKER_DURABLE if self._durable else _IN_MEMORY
        self.postgres = Postgres(
            self.home, self.supervisor, durable=self._durable, settings=self._postgres_settings
        )
        self.broker = Valkey(self.home, self.supervisor, "broker", _BROKER + kept)
        self.cache = Valkey(self.home, self.supervisor, "cache", _CACHE + _IN_MEMORY)
        self.simulator = SimulatorServer(self.home, self.supervisor)
        self._tell("PostgreSQL")
        self.postgres.initialise()
        # The order of the starts is the reverse order of the stops: the database goes last.
        for server in (self.postgres, self.broker, self.cache, self.simulator):
            server.start()
        self.postgres.wait()
        self._tell("Valkey for the queue and for the leases")
        self.broker.wait()
        self.cache.wait()
        self._tell("KMS simulator")
        self.simulator.wait()

    def _tell(self, step: str) -> None:
        if self._on_step is not None:
            self._on_step(step)

    def stop(self) -> None:
        """Stop everything that was started, the processes of others on this stack first."""
        if hasattr(self, "supervisor"):
            self.supervisor.close()
        self.home.close()

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs in order to use this stack."""
        return {
            "BYOK_ENV": "dev",
            "BYOK_DATABASE_URL": self.postgres.url,
            "BYOK_BROKER_URL": self.broker.url,
            "BYOK_CACHE_URL": self.cache.url,
            "BYOK_MASTER_KEYS": self.home.master_key(),
            "BYOK_KMS_ENDPOINT_URL": self.simulator.url,
            "BYOK_VENDOR_ROLE_ARN": VENDOR_ROLE_ARN,
            "BYOK_LOG_FORMAT": "console",
            "BYOK_REQUEST_LOG_FOLDER": str(self.home.path / "requests"),
            "AWS_ACCESS_KEY_ID": VENDOR_ACCESS_KEY_ID,
            "AWS_SECRET_ACCESS_KEY": VENDOR_SECRET_ACCESS_KEY,
            "AWS_DEFAULT_REGION": "eu-central-1",
        }
