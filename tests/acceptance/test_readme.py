"""The README's tour does what it says, word for word."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from byok.cli import processes
from byok.embedded.stack import Stack
from tests.acceptance.tour import README, blocks, normalise, parse, run, tour_environment
from tests.conftest import empty

pytestmark = pytest.mark.slow


def test_every_command_of_the_tour_prints_what_the_readme_shows(
    stack: Stack, engine: sa.Engine, tmp_path: Path
) -> None:
    steps = [step for block in blocks(README.read_text()) for step in parse(block)]
    assert len(steps) >= 10
    empty(engine)
    worker = processes.start_worker(stack, stack.environment)
    try:
        processes.wait_for_worker(stack, worker)
        for step in steps:
            printed = run(step, tmp_path, tour_environment(stack))
            assert normalise(printed) == normalise(step.output), step.command
    finally:
        stack.supervisor.stop([worker])
