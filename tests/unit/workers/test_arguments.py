"""Of a task's arguments only names and ids are shown, by events and by log lines alike."""

import pytest
from celery import Celery

from byok.logs.context import current
from workers import base, tasks
from workers.arguments import shown_arguments
from workers.base import ByokTask

NEEDLE = "ada@example.com"
ID = "00000000-0000-4000-8000-000000000001"


def run(tenant: str, key: str, rotation_id: str | None = None, **unknown: object) -> None:
    """As a task's run."""


NAMES = {"tenant": "acme", "key": "pii"}


@pytest.mark.parametrize(
    ("args", "kwargs", "shown"),
    [
        (["acme", "pii"], {}, NAMES),
        ([], {"rotation_id": ID, "key": "pii", "tenant": "acme"}, NAMES | {"rotation_id": ID}),
        ([], {**NAMES, "requested_by": NEEDLE, "colour": NEEDLE}, NAMES),
        ([NEEDLE, ["a"]], {"rotation_id": NEEDLE}, {"tenant": "…", "key": "…", "rotation_id": "…"}),
        ([], {"tenant": "acme"}, {"tenant": "acme"}),
        ([], {}, {}),
    ],
)
def test_arguments_are_shown_by_name_and_only_those_that_are_names_or_ids(
    args: list[object], kwargs: dict[str, object], shown: dict[str, str]
) -> None:
    assert shown_arguments(run, args, kwargs) == shown


@pytest.mark.parametrize(
    ("args", "kwargs"), [(["acme", "pii", ID, NEEDLE], {}), (["acme"], {"tenant": NEEDLE})]
)
def test_arguments_that_the_task_does_not_take_are_not_shown(
    args: list[object], kwargs: dict[str, object]
) -> None:
    assert shown_arguments(run, args, kwargs) is None


def test_lists_of_ids_and_numbers_of_batches_are_shown() -> None:
    many = shown_arguments(tasks.rotate_many.run, [], {"rotation_ids": [ID, NEEDLE]})
    assert many == {"rotation_ids": [ID, "…"]}
    assert shown_arguments(tasks.rotate_many.run, [], {"rotation_ids": NEEDLE}) == {"rotation_ids": "…"}
    batch = shown_arguments(tasks.reencrypt.run, [], {"campaign_id": ID, "batch": 7})
    assert batch == {"campaign_id": ID, "batch": 7}
    stranger = shown_arguments(tasks.reencrypt.run, [ID, NEEDLE], {})
    assert stranger == {"campaign_id": ID, "batch": "…"}


@pytest.fixture
def app() -> Celery:
    return Celery("test", task_cls=ByokTask, set_as_current=False, broker="memory://")


@pytest.mark.parametrize(
    ("args", "kwargs", "carried"),
    [
        (["acme", "pii"], {"rotation_id": ID}, NAMES | {"rotation_id": ID}),
        ([NEEDLE, "pii"], {"rotation_id": NEEDLE}, {"key": "pii"}),
        ([["acme"], "pii", None], {"colour": NEEDLE}, {"key": "pii"}),
        (["acme", "pii", ID, NEEDLE], {}, {}),
    ],
)
def test_log_lines_of_a_task_carry_only_names_and_ids(
    app: Celery, args: list[object], kwargs: dict[str, object], carried: dict[str, str]
) -> None:
    def look(tenant: object, key: object, rotation_id: object = None, **_: object) -> None:
        """Nothing."""

    task = app.task(look, name="test.look", shared=False)
    task.push_request(headers=None)
    base._begin(task, ID, args, kwargs)
    lines = {name: value for name, value in current().items() if value is not None}
    base._end(task, None)
    assert lines == {"task": "test.look", "task_id": ID} | carried
