"""What a worker tells of a task is names, ids and codes, whoever sent the message and whatever is in it."""

import pytest
from celery import Celery
from celery.app.trace import ExceptionInfo
from celery.utils.serialization import UnpickleableExceptionWrapper
from kombu.message import Message

from byok.errors import ByokError, InvalidInput, KmsUnavailable, UnknownTenant
from workers.base import ByokTask
from workers.request import ByokRequest, shown_reason

NEEDLE = "ada@example.com"
ID = "00000000-0000-4000-8000-000000000001"


def run(tenant: str, key: str, rotation_id: str | None = None, **unknown: object) -> None:
    """As a task's run."""


NAMES = {"tenant": "acme", "key": "pii"}


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (KmsUnavailable("AWS KMS\ndoes not answer"), "kms-unavailable: AWS KMS does not answer"),
        (KmsUnavailable("x" * 1000), "kms-unavailable: " + "x" * 283),
        (InvalidInput(f"{NEEDLE!r} is not a reason"), "invalid-input: see the worker's log"),
        (UnknownTenant(f"there is no tenant {NEEDLE!r}"), "unknown-tenant: see the worker's log"),
        (KeyError(NEEDLE), "byok-error: KeyError, see the worker's log"),
    ],
)
def test_a_failure_is_told_by_its_stable_code(error: Exception, shown: str) -> None:
    assert shown_reason(error) == shown


class Eventer:
    """Celery's dispatcher of events."""

    enabled = True

    def __init__(self) -> None:
        self.sent: list[dict[str, object]] = []

    def send(self, type: str, **fields: object) -> None:  # noqa: A002
        self.sent.append({"type": type, **fields})


@pytest.fixture
def app() -> Celery:
    return Celery("test", task_cls=ByokTask, set_as_current=False, broker="memory://")


def request(
    app: Celery, eventer: Eventer, positional: tuple[object, ...] = ("acme",), **headers: object
) -> ByokRequest:
    task = app.task(run, name="test.run", ignore_result=True, shared=False)
    assert task.Request == "workers.request:ByokRequest"
    message = Message(  # type: ignore[no-untyped-call]  # kombu is untyped
        body=[list(positional), {"key": "pii", "colour": NEEDLE}, {}],
        headers={"id": ID, "task": "test.run", "argsrepr": NEEDLE, "kwargsrepr": NEEDLE, **headers},
        channel=None,
    )
    return ByokRequest(message, app=app, task=task, eventer=eventer, decoded=True, hostname="w")


def failed(error: Exception) -> ExceptionInfo:
    try:
        try:
            raise ConnectionError(f"redis://:{NEEDLE}@broker")
        except ConnectionError as cause:
            raise error from cause
    except type(error):
        return ExceptionInfo()


def test_what_the_sender_wrote_is_neither_told_by_events_nor_to_who_inspects(app: Celery) -> None:
    one = request(app, Eventer(), shadow=NEEDLE)
    assert (one.name, one.argsrepr, one.kwargsrepr) == ("test.run", "", repr(NAMES))
    for safe in (False, True):
        assert NEEDLE not in repr(one.info(safe=safe))


def test_arguments_that_the_task_does_not_take_are_not_told(app: Celery) -> None:
    assert request(app, Eventer(), ("acme", "pii", ID, NEEDLE)).kwargsrepr == "…"


@pytest.mark.parametrize("error", [KmsUnavailable("no answer"), KeyError(NEEDLE)])
def test_a_failure_is_told_without_its_causes_and_traceback(app: Celery, error: Exception) -> None:
    eventer = Eventer()
    request(app, eventer).on_failure(failed(error), return_ok=True)
    (event,) = eventer.sent
    assert event["type"] == "task-failed"
    assert str(event["exception"]).startswith(("kms-unavailable: no answer", "byok-error: KeyError"))
    assert NEEDLE not in repr(event)
    assert event["traceback"] is None


def test_an_error_that_celery_could_not_carry_over_is_told_without_its_text(app: Celery) -> None:
    assert NEEDLE not in shown_reason(UnpickleableExceptionWrapper("m", "Custom", [NEEDLE]))
    assert shown_reason(ByokError("m")) == "byok-error: m"
