"""KMS for a benchmark: the stub in a process of its own, or the enforcing simulator of the stack."""

import json
import sys
from types import TracebackType
from typing import Self
from urllib.request import urlopen

from benchmarks.rotation_usage import cpu_seconds
from byok.embedded.servers import accepts
from byok.embedded.stack import Stack
from byok.settings import child_environment


class KmsProcess:
    """The stub, or the enforcing simulator: its URL, its CPU, and what it was asked."""

    def __init__(self, stack: Stack, *, simulator: bool = False, stub_processes: int = 1) -> None:
        self._stack = stack
        self.is_simulator = simulator
        if simulator:
            assert stack.simulator.child is not None
            self.url, self._child = stack.simulator.url, stack.simulator.child
            return
        port = stack.home.port("kms-stub")
        argv = [sys.executable, "-m", "benchmarks.kms_stub", "--port", str(port)]
        argv += ["--processes", str(stub_processes)]
        self.url = f"http://127.0.0.1:{port}"
        self._child = stack.supervisor.spawn("kms-stub", argv, child_environment({}))
        stack.supervisor.wait_until(self._child, lambda: accepts(port))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.is_simulator:
            self._stack.supervisor.stop([self._child])

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def cpu_seconds(self) -> float:
        return cpu_seconds(self._child.process.pid)

    def counts(self) -> dict[str, int]:
        """Requests by operation since the start, and the most in flight; of the simulator nothing."""
        return {} if self.is_simulator else self._ask("counts")

    def set_latency(self, milliseconds: float) -> None:
        self._ask(f"latency/{milliseconds}")

    def _ask(self, what: str) -> dict[str, int]:
        with urlopen(f"{self.url}/_stub/{what}", timeout=5) as reply:
            counts: dict[str, int] = json.load(reply)
            return counts
