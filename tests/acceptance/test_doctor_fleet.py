"""``byok doctor`` and ``byok status`` beside real workers and a real Beat."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from byok.cli import processes
from byok.embedded.stack import Stack
from byok.settings import child_environment
from tests.acceptance.conftest import PACE
from tests.conftest import empty

pytestmark = pytest.mark.slow


@pytest.fixture
def environment(stack: Stack, engine: sa.Engine) -> dict[str, str]:
    empty(engine)
    return stack.environment | PACE


def ask(environment: dict[str, str], *arguments: str) -> Any:
    command = [sys.executable, "-m", "byok.cli", *arguments, "--json"]
    return json.loads(
        subprocess.run(
            command, env=child_environment(environment), capture_output=True, check=False, text=True
        ).stdout
    )


def verdicts(environment: dict[str, str], *names: str) -> list[str]:
    found = {one["name"]: one["verdict"] for one in ask(environment, "doctor")}
    return [found.get(name, "–") for name in names]


@contextmanager
def worker(stack: Stack, environment: dict[str, str], *options: str) -> Iterator[None]:
    child = processes.start_worker(stack, environment, name="examined", options=options)
    processes.wait_for_worker(stack, child)
    yield
    stack.supervisor.stop([child])


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_workers_queues_and_ticks(stack: Stack, environment: dict[str, str]) -> None:
    names = ("workers", "queues", "ticks")
    assert verdicts(environment, *names) == ["failed", "–", "warning"]
    with worker(stack, environment, "-Q", "rotate.forced,validate"):
        assert verdicts(environment, *names) == ["passed", "failed", "warning"]
    with worker(stack, environment):
        beat = processes.start_beat(stack, environment, name="examined-beat")
        wait_until(lambda: verdicts(environment, *names) == ["passed", "passed", "passed"])
        wait_until(lambda: bool(ask(environment, "status")["ok"]))
        stack.supervisor.stop([beat])
        began = time.monotonic()
        # Due every half second to every minute: two periods and 15 s later the first is late.
        wait_until(lambda: "jobs-late" in [one["code"] for one in ask(environment, "status")["concerns"]])
        assert time.monotonic() - began > 10
        assert verdicts(environment, "ticks") == ["failed"]
