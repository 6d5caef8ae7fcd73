"""Moves with real processes: services lose no operation while a worker is killed at the change-over."""

from pathlib import Path

import pytest

from byok.failpoints import FailPoint
from tests.chaos.moves import kill_at, moving_scene, stops_with_the_new_key

pytestmark = pytest.mark.slow


@pytest.mark.timeout(400)
def test_no_service_loses_an_operation_while_its_customer_moves_and_a_worker_dies(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    with moving_scene(tmp_path) as scene:
        report = kill_at(scene, [FailPoint.MOVE_WRAPPED, FailPoint.MOVE_COMMITTED])
        assert report.errors == []
        assert report.operations > 400
        assert stops_with_the_new_key(scene)
