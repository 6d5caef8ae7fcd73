"""The processes of ``byok up`` and ``byok demo``, on an embedded stack."""

import signal
import sys
from collections.abc import Mapping, Sequence

from byok.embedded.servers import accepts
from byok.embedded.stack import Stack
from byok.embedded.supervisor import Child
from byok.settings import child_environment

_CELERY = (sys.executable, "-m", "celery", "-A", "workers")


def start_worker(
    stack: Stack, environment: Mapping[str, str], name: str = "worker", options: Sequence[str] = ()
) -> Child:
    """A worker that consumes every queue. ``name``: of its log and, before an @, its node name."""
    arguments = ["worker", "--loglevel", "INFO", "--without-mingle", "--hostname", f"{name}@%h", *options]
    return _start(stack, name, arguments, environment)


def start_beat(stack: Stack, environment: Mapping[str, str], name: str = "beat") -> Child:
    """A Beat process. Any number may run at once."""
    return _start(stack, name, ["beat", "--loglevel", "INFO", "--pidfile="], environment)


def start_flower(stack: Stack, environment: Mapping[str, str]) -> tuple[Child, str]:
    """Flower behind a password; also its URL."""
    port = stack.home.port("flower")
    credentials = {"FLOWER_BASIC_AUTH": f"byok:{stack.home.secret('flower')}"}
    arguments = ["flower", "--address=127.0.0.1", f"--port={port}"]
    flower = _start(stack, "flower", arguments, {**environment, **credentials})
    return flower, f"http://127.0.0.1:{port}"


def start_exporter(stack: Stack, environment: Mapping[str, str]) -> tuple[Child, str]:
    """The exporter of the fleet's metrics; also the URL of its page."""
    port = stack.home.port("exporter")
    exporter = stack.supervisor.spawn(
        "exporter",
        [sys.executable, "-m", "byok.cli", "exporter"],
        child_environment({**environment, "BYOK_EXPORTER_PORT": str(port), "PYTHONUNBUFFERED": "1"}),
    )
    return exporter, f"http://127.0.0.1:{port}/metrics"


def wait_for_worker(stack: Stack, worker: Child) -> None:
    """Wait until the worker consumes; raises StackUnavailable."""
    stack.supervisor.wait_for_line(worker, r"ready\.", timeout_seconds=60)


def wait_for_flower(stack: Stack, flower: Child) -> None:
    """Wait until Flower answers; raises StackUnavailable."""
    port = stack.home.port_of("flower")
    stack.supervisor.wait_until(flower, lambda: accepts(port), timeout_seconds=60)


def wait_for_exporter(stack: Stack, exporter: Child) -> None:
    """Wait until the exporter takes connections; raises StackUnavailable."""
    port = stack.home.port_of("exporter")
    stack.supervisor.wait_until(exporter, lambda: accepts(port), timeout_seconds=60)


def _start(stack: Stack, name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> Child:
    return stack.supervisor.spawn(
        name,
        [*_CELERY, *arguments],
        # As root Celery warns at length about pickle, which byok's workers don't accept.
        child_environment(
            {
                **environment,
                "PYTHONUNBUFFERED": "1",
                # By its text: Celery's own category can't be imported yet when this is parsed.
                "PYTHONWARNINGS": "ignore:You're running the worker with superuser privileges",
            }
        ),
        # If the stores vanish first, a worker retries its acknowledgements for many seconds.
        emergency_signal=signal.SIGKILL,
    )
