"""What Flower keeps: over a restart, of a damaged file, and of workers that are gone."""

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from byok.flower.application import OFFLINE_WORKERS_SECONDS, ClosedFlower
from byok.flower.exposure import Exposure
from byok.flower.serving import make_flower, prepare_folder
from byok.settings import FlowerSettings

Make = Callable[..., ClosedFlower]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "flower"


@pytest.fixture
def make(folder: Path) -> Iterator[Make]:
    """Flowers one after another over one folder."""
    made = []
    asyncio.set_event_loop(asyncio.new_event_loop())

    def make(**more: object) -> ClosedFlower:
        prepare_folder(folder)
        given = {"env": "test", "broker_url": "redis://127.0.0.1:1/0", "flower_folder": folder}
        settings = FlowerSettings.model_validate(given | more)
        made.append(make_flower(settings, Exposure.of(settings, {})))
        return made[-1]

    yield make
    for flower in made:
        flower.executor.shutdown()
    made[-1].io_loop.close()  # of all of them


def tell(flower: ClosedFlower, type: str, worker: str = "worker@a", **fields: Any) -> None:  # noqa: A002
    now = time.time()
    event = {"type": type, "hostname": worker, "timestamp": now, "local_received": now, "clock": 1}
    flower.events.state.event(event | {"utcoffset": 0, "pid": 1} | fields)


def a_task(flower: ClosedFlower, number: int) -> None:
    named = {"name": "byok.keys.rotate", "args": "", "kwargs": "{'tenant': 'acme', 'key': 'pii'}"}
    tell(flower, "task-received", uuid=f"id-{number}", **named)
    reason = "kms-unavailable: AWS KMS does not answer"
    tell(flower, "task-failed", uuid=f"id-{number}", exception=reason, traceback=None)


def test_tasks_workers_and_counts_survive_a_restart(make: Make, folder: Path) -> None:
    first = make()
    tell(first, "worker-online")
    a_task(first, 1)
    first.events.save_state()
    assert {file.stat().st_mode & 0o077 for file in [folder]} == {0}

    state = make().events.state
    task = state.tasks["id-1"]
    assert (task.state, task.name, task.kwargs) == (
        "FAILURE",
        "byok.keys.rotate",
        "{'tenant': 'acme', 'key': 'pii'}",
    )
    assert task.exception == "kms-unavailable: AWS KMS does not answer"
    assert state.counter["worker@a"]["task-failed"] == 1
    assert "worker@a" in state.workers


def test_without_a_folder_nothing_is_kept(make: Make, folder: Path) -> None:
    flower = make(flower_folder=None)
    a_task(flower, 1)
    assert not flower.options.persistent
    assert not list(folder.iterdir())
    assert "id-1" not in make().events.state.tasks


def test_a_damaged_file_is_laid_aside_and_flower_starts(make: Make, folder: Path) -> None:
    first = make()
    a_task(first, 1)
    first.events.save_state()
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[:100])
    assert not make().events.state.tasks
    assert [file for file in folder.iterdir() if file.name.endswith(".corrupt")]


def test_no_more_tasks_are_kept_than_told(make: Make) -> None:
    flower = make(flower_max_tasks=100)
    for number in range(150):
        a_task(flower, number)
    assert len(flower.events.state.tasks) == 100
    assert "id-149" in flower.events.state.tasks
    flower.events.save_state()
    assert make(flower_max_tasks=100).events.state.tasks.limit == 100


def test_what_senders_tell_is_not_taken(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    flower = make()
    taken: list[object] = []
    monkeypatch.setattr(flower.io_loop, "add_callback", taken.append)
    flower.events.on_event({"type": "task-sent", "uuid": "id-1", "kwargs": "ada@example.com"})
    assert not taken
    flower.events.on_event({"type": "task-received", "uuid": "id-1"})
    assert len(taken) == 1


def test_workers_that_are_gone_for_an_hour_are_forgotten(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    flower = make()
    state, now = flower.events.state, flower.io_loop.time()
    for name in ("worker@gone", "worker@back", "worker@here"):
        tell(flower, "worker-heartbeat", name, freq=2.0, active=0, processed=0)
        flower.inspector.workers[name]["stats"] = {}
    tell(flower, "worker-offline", "worker@gone")
    tell(flower, "worker-offline", "worker@back")
    seconds = [now, now + OFFLINE_WORKERS_SECONDS - 1, now + OFFLINE_WORKERS_SECONDS]
    for second in seconds:
        assert set(state.workers) == {"worker@gone", "worker@back", "worker@here"}
        monkeypatch.setattr(flower.io_loop, "time", lambda second=second: second)
        flower.forget_offline_workers()
        if second == seconds[1]:
            tell(flower, "worker-heartbeat", "worker@back", freq=2.0, active=0, processed=0)
    for kept in (state.workers, state.counter, flower.inspector.workers):
        assert set(kept) == {"worker@back", "worker@here"}
    labels = {labels[0] for labels in state.metrics.events._metrics}
    assert "worker@gone" not in labels


def test_nothing_is_sent_to_workers_by_itself_and_nothing_can_be(make: Make) -> None:
    options = make().options
    assert options.read_only
    assert not options.enable_events
    assert not options.debug
    assert options.cookie_secret
