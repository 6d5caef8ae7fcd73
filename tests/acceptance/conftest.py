"""A real worker and a real Beat on the stack."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import sqlalchemy as sa

from byok.cli import processes
from byok.embedded.stack import Stack
from byok.embedded.supervisor import Child
from byok.settings import load_settings, use_environment
from byok.wiring import Runtime, build
from tests.conftest import empty

PACE = {
    "BYOK_DISPATCH_INTERVAL_SECONDS": "0.5",
    "BYOK_SWEEP_INTERVAL_SECONDS": "1",
    "BYOK_PROBE_INTERVAL_SECONDS": "0.5",
    "BYOK_RECHECK_SECONDS": "0.5",
}


@dataclass
class Fleet:
    """The processes, and services of this one beside them."""

    stack: Stack
    runtime: Runtime
    worker: Child
    beat: Child

    def wait_until(self, condition: Callable[[], bool], timeout_seconds: float = 30.0) -> None:
        """Wait, while worker and Beat go on running."""
        deadline = time.monotonic() + timeout_seconds
        while not condition():
            ended = self.stack.supervisor.ended_child()
            assert ended is None, ended.log_tail(20)
            assert time.monotonic() < deadline, self.worker.log_tail(40)
            time.sleep(0.05)

    def states(self, tenant: str, key: str = "pii") -> list[str]:
        """The states of a key's versions, by number."""
        versions = self.runtime.services.registry.show_key(tenant, key).versions
        return [version.state.value for version in versions]


@pytest.fixture(scope="module")
def fleet(stack: Stack, engine: sa.Engine) -> Iterator[Fleet]:
    with running_fleet(stack, engine, {"BYOK_METRICS_PORT": str(stack.home.port("metrics"))}) as fleet:
        yield fleet


@contextmanager
def running_fleet(
    stack: Stack, engine: sa.Engine, additions: Mapping[str, str], prefix: str = ""
) -> Iterator[Fleet]:
    """A fleet on empty tables, under additional settings. ``prefix``: before the names of the processes."""
    empty(engine)
    environment = stack.environment | PACE | dict(additions)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        use_environment(environment)
        runtime = build(load_settings())
        worker = processes.start_worker(stack, environment, f"{prefix}worker")
        beat = processes.start_beat(stack, environment, f"{prefix}beat")
        processes.wait_for_worker(stack, worker)
        yield Fleet(stack, runtime, worker, beat)
        stack.supervisor.stop([worker, beat])
        runtime.close()
