"""All that a fleet's events hold, each field against what may appear there."""

import re
import threading
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery

from tests.acceptance.conftest import Fleet
from tests.customers import Customer, add_key, join
from tests.unit.test_errors import tree

pytestmark = pytest.mark.slow

ID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
NAME = r"[a-z0-9-]{1,63}"
SHOWN = "|".join(
    [
        rf"'(tenant|key)': '({NAME}|…)'",
        rf"'(rotation_id|campaign_id)': '({ID}|…)'",
        rf"'rotation_ids': \['{ID}'(, '{ID}')*\]",
        r"'batch': \d+",
    ]
)
CODES = "|".join(sorted(kind.code for kind in tree()))
WORDS = (
    "nothing to do",
    "not due",
    r"(done|failed|requested): version \d+",
    rf"\d+ ({CODES}|done|failed)(, \d+ ({CODES}|done|failed))*",
    r"version \d+ passed \d+ checks",
    r"\d+ keys, \d+ rotations requested",
    r"(dispatch-due|sweep|probe|validate|sync-rotation): \d+",
    r"[a-z-]+",
)
ALLOWED = {
    "uuid": ID,
    "name": r"byok\.[a-z_.]+",
    "args": "",
    "kwargs": rf"…|\{{(({SHOWN})(, )?)*\}}",
    "root_id": ID,
    "parent_id": f"None|{ID}",
    "retries": "0",
    "eta": r"None|[\dT:.+-]+",
    "expires": r"None|[\dT:.+-]+",
    "result": "'(" + "|".join(WORDS) + ")'",
    "runtime": r"[\d.e-]+",
    "exception": rf"({CODES}): [\w .,:;'()*/-]{{1,300}}",
    "traceback": "None",
    "terminated": "False",
    "signum": "None",
    "expired": "True|False",
    # What every event has, and a worker's heartbeat.
    "type": r"(task|worker)-[a-z]+",
    "hostname": r"worker@[\w.-]+",
    "timestamp": r"[\d.]+",
    "local_received": r"[\d.]+",
    "utcoffset": r"-?[\d.]+",
    "pid": r"\d+",
    "clock": r"\d+",
    "freq": r"[\d.]+",
    "active": r"\d+",
    "processed": r"\d+",
    "loadavg": r"\[[\d., ]+\]",
    "sw_ident": "py-celery",
    "sw_ver": r"[\d.]+",
    "sw_sys": r"\w+",
}


class Ear:
    """Hears all events until it is closed."""

    def __init__(self, url: str) -> None:
        self.events: list[dict[str, Any]] = []
        self._app = Celery("ear", broker=url, set_as_current=False)
        self._connection = self._app.connection_for_read()
        self._receiver = self._app.events.Receiver(self._connection, handlers={"*": self.events.append})
        self._thread = threading.Thread(target=self._receiver.capture, kwargs={"wakeup": False})
        self._thread.start()

    def of_task(self, type: str, name: str) -> list[dict[str, Any]]:  # noqa: A002
        """The events of a type that are of tasks of a name."""
        ids = {event["uuid"] for event in self.events if event.get("name") == name}
        return [event for event in list(self.events) if event["type"] == type and event.get("uuid") in ids]

    def close(self) -> None:
        self._receiver.should_stop = True
        self._thread.join()
        self._connection.release()
        self._app.close()


@pytest.fixture
def ear(fleet: Fleet) -> Iterator[Ear]:
    ear = Ear(fleet.stack.environment["BYOK_BROKER_URL"])
    fleet.wait_until(lambda: any(event["type"] == "worker-heartbeat" for event in ear.events))
    yield ear
    ear.close()


@pytest.fixture
def customer(fleet: Fleet) -> Customer:
    customer = join(fleet.stack, fleet.runtime, f"t-{uuid4().hex[:12]}")
    add_key(fleet.runtime, customer.name)
    return customer


def test_no_field_of_any_event_holds_more_than_it_may(fleet: Fleet, customer: Customer, ear: Ear) -> None:
    services, needle = fleet.runtime.services, f"needle-{uuid4().hex}@example.com"
    services.vault.request_rotation(customer.name, "pii")
    fleet.wait_until(lambda: len(ear.of_task("task-succeeded", "byok.keys.rotate")) == 1)
    stranger = Celery("stranger", broker=fleet.stack.environment["BYOK_BROKER_URL"], set_as_current=False)

    def send(task: str = "byok.keys.rotate", queue: str = "rotate.forced", **kwargs: object) -> None:
        arguments = {"tenant": customer.name, "key": "pii"} | kwargs
        stranger.send_task(task, kwargs=arguments, queue=queue, shadow=needle, argsrepr=needle)

    send(requested_by=needle, colour=needle)
    send(reason=needle)
    send(tenant=needle)
    send(rotation_id=needle)
    send("byok.keys.validate", "validate")
    send("byok.keys.generate", idempotency_key=needle, reason=needle)
    stranger.send_task("byok.keys.rotate", args=[customer.name, "pii", needle], queue="rotate.forced")
    stranger.send_task("byok.tenants.probe", args=[needle, needle], queue="validate")
    stranger.close()
    customer.account.disable_key(customer.kms_key)
    fleet.wait_until(lambda: len(ear.of_task("task-failed", "byok.keys.rotate")) >= 4)
    fleet.wait_until(lambda: bool(ear.of_task("task-failed", "byok.tenants.probe")))
    fleet.wait_until(lambda: fleet.runtime.queue.backlog() == 0)
    customer.account.enable_key(customer.kms_key)

    told = [
        f"{event['type']}: {field}={value!r}"
        for event in list(ear.events)
        for field, value in event.items()
        if field not in ALLOWED or re.fullmatch(ALLOWED[field], str(value)) is None
    ]
    assert told == []
    assert needle not in repr(ear.events)
    assert {event["kwargs"] for event in ear.of_task("task-received", "byok.keys.validate")} == {
        repr({"tenant": customer.name, "key": "pii"})
    }
    reasons = {str(event["exception"]) for event in ear.of_task("task-failed", "byok.keys.rotate")}
    assert "invalid-input: see the worker's log" in reasons
    assert "unknown-tenant: see the worker's log" in reasons
