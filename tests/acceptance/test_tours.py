"""The pages that show commands do what they say, word for word."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from byok.embedded.stack import Stack
from byok.simulator.control import SimulatorControl
from tests.acceptance.tour import (
    PAGES,
    blocks,
    fleet,
    normalise,
    parse,
    run,
    save_scripts,
    tour_environment,
)
from tests.conftest import empty
from tests.leaving import let_the_day_come

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
def test_every_command_prints_what_the_page_shows(
    page: Path, stack: Stack, engine: sa.Engine, tmp_path: Path
) -> None:
    text = page.read_text()
    steps = [step for block in blocks(text) for step in parse(block)]
    save_scripts(text, tmp_path)
    assert len(steps) >= 10
    empty(engine)
    SimulatorControl(stack.simulator.url).set_clock_right()
    with fleet(stack, engine):
        for step in steps:
            if "--finish" in step.command:
                let_the_day_come(engine)  # which a reader waits for
            printed = run(step, tmp_path, tour_environment(stack), engine)
            assert normalise(printed) == normalise(step.output), step.command
