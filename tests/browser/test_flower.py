"""What an operator sees in Flower, and what nobody can do there, in a real browser."""

import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from byok.core.model import Rotation, RotationState
from tests.browser.conftest import ARTEFACTS, Watch
from tests.customers import Customer, join

pytestmark = pytest.mark.slow


def wait_until(condition: Callable[[], Any], what: str, timeout_seconds: float = 30.0) -> Any:
    """What the condition comes to, as soon as it is true."""
    deadline = time.monotonic() + timeout_seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
    return found


def page_of(browser: Chrome) -> str:
    return browser.find_element(By.TAG_NAME, "body").text


def screenshot(browser: Chrome, name: str) -> None:
    ARTEFACTS.mkdir(exist_ok=True)
    browser.save_screenshot(str(ARTEFACTS / f"{name}.png"))


def rotated(watch: Watch, customer: Customer) -> Rotation:
    """A rotation of the customer's key that a worker has brought to its end, or failed to."""
    requested = watch.runtime.services.vault.request_rotation(customer.name, "pii")

    def ended() -> Rotation | None:
        details = watch.runtime.services.registry.show_key(customer.name, "pii")
        (one,) = [one for one in details.rotations if one.id == requested.rotation.id]
        return one if one.state in (RotationState.DONE, RotationState.FAILED) else None

    found: Rotation = wait_until(ended, f"the rotation goes on: {watch.worker.log_tail(20)}")
    return found


@pytest.fixture
def customer(watch: Watch) -> Customer:
    customer = join(watch.stack, watch.runtime, f"acme-{uuid4().hex[:6]}")
    registry = watch.runtime.services.registry
    registry.create_key(
        customer.name, "pii", rotation_period=timedelta(days=30), lease_ttl=timedelta(minutes=5), actor="test"
    )
    wait_until(lambda: registry.show_key(customer.name, "pii").versions, "no first version")
    wait_until(
        lambda: registry.show_key(customer.name, "pii").versions[0].state.value == "active", "not active"
    )
    return customer


@pytest.mark.parametrize("path", ["/", "/workers", "/tasks", "/broker", "/api/workers", "/metrics"])
def test_without_a_password_nothing_shows(watch: Watch, browser: Chrome, path: str) -> None:
    browser.get(watch.url + path)
    assert watch.worker.name not in page_of(browser)
    assert not browser.find_elements(By.CSS_SELECTOR, "nav, table")
    status = browser.execute_script("return performance.getEntriesByType('navigation')[0].responseStatus")
    assert status == 401


def test_an_operator_sees_the_worker_what_was_done_and_what_failed_and_why(
    watch: Watch, browser: Chrome, customer: Customer
) -> None:
    done = rotated(watch, customer)
    assert done.state is RotationState.DONE
    customer.account.disable_key(customer.kms_key)
    failed = rotated(watch, customer)
    assert failed.state is RotationState.FAILED

    browser.get(watch.signing_in("/workers"))
    browser.get(watch.url + "/workers")
    row = wait_until(lambda: _row(browser, "#workers-table", "worker@"), "no worker is shown")
    assert "Online" in row
    browser.get(watch.url + "/tasks?name=byok.keys.rotate")
    succeeded = wait_until(lambda: _row(browser, "#tasks-table", str(done.id)), "the rotation is not shown")
    for part in ("byok.keys.rotate", "SUCCESS", customer.name, "pii", "done: version 2"):
        assert part in succeeded
    not_done = _row(browser, "#tasks-table", str(failed.id)) or ""
    for part in ("byok.keys.rotate", "FAILURE", customer.name, "pii", "kms-access-revoked"):
        assert part in not_done
    screenshot(browser, "flower-tasks")

    link = _first(
        browser, "#tasks-table tbody tr", str(failed.id), "row.querySelector('a[href*=\"/task/\"]').href"
    )
    browser.get(link or "")
    page = page_of(browser)
    for part in ("FAILURE", "kms-access-revoked: ", customer.name, str(failed.id)):
        assert part in page
    assert "Traceback" not in page
    screenshot(browser, "flower-failed-task")


def _row(browser: Chrome, table: str, part: str) -> str | None:
    """The text of a table's row that has a part, in all its columns."""
    return _first(browser, f"{table} tbody tr", part, "row.textContent")


def _first(browser: Chrome, selector: str, part: str, what: str) -> str | None:
    """Something of the first element that has a part, asked for in one go: pages renew themselves."""
    rows = "Array.from(document.querySelectorAll(arguments[0]))"
    script = (
        f"const row = {rows}.find(row => row.textContent.includes(arguments[1])); return row ? {what} : null"
    )
    found: str | None = browser.execute_script(script, selector, part)
    return found


ASK = """
const [method, path, done] = [arguments[0], arguments[1], arguments[2]];
const body = method === 'GET' ? null : '{"args": []}';
fetch(path, {method, headers: {'Content-Type': 'application/json'}, body})
  .then(async answer => done([answer.status, await answer.text()]));
"""


def test_who_is_signed_in_can_look_and_nothing_else(watch: Watch, browser: Chrome) -> None:
    browser.get(watch.signing_in("/workers"))
    browser.get(watch.url + "/workers")
    named = "row.querySelector('a.worker-name-link').title"
    name = wait_until(
        lambda: _first(browser, "#workers-table tbody tr", "worker@", named), "no worker is shown"
    )
    for method, path in (
        ("POST", f"/api/worker/shutdown/{name}"),
        ("POST", f"/api/worker/pool/shrink/{name}?n=8"),
        ("POST", f"/api/worker/queue/cancel-consumer/{name}?queue=rotate.forced"),
        ("POST", "/api/task/send-task/byok.schedule.sweep"),
        ("POST", "/api/task/async-apply/byok.schedule.sweep"),
        ("POST", f"/api/task/revoke/{UUID(int=1)}?terminate=true"),
        ("GET", "/api/tasks"),
        ("GET", "/api/workers"),
        ("GET", "/metrics"),
    ):
        status, text = browser.execute_async_script(ASK, method, path)
        assert (status, "byok keeps this part of Flower closed" in text) == (403, True), path

    browser.get(watch.url + f"/worker/{name}")
    assert name in page_of(browser)
    buttons = browser.find_elements(By.CSS_SELECTOR, "#worker-shutdown, #worker-pool-grow, #worker-group")
    assert buttons == []
    source = browser.page_source
    secrets = [watch.password, *_secrets(watch)]
    assert not any(secret in source for secret in secrets)
    browser.get(watch.url + "/broker")
    for queue in ("rotate.forced", "maintenance", "validate", "rotate.scheduled", "reencrypt"):
        assert queue in page_of(browser)
    assert not any(secret in browser.page_source for secret in secrets)
    assert watch.runtime.queue.workers(timeout_seconds=3.0) == [name]


def _secrets(watch: Watch) -> list[str]:
    environment = watch.stack.environment
    passwords = [
        environment[name].partition("://")[2].rpartition("@")[0].partition(":")[2]
        for name in ("BYOK_DATABASE_URL", "BYOK_BROKER_URL", "BYOK_CACHE_URL")
    ]
    found = [*passwords, environment["BYOK_MASTER_KEYS"], environment["AWS_SECRET_ACCESS_KEY"]]
    return [secret for secret in found if secret]


def test_the_page_asks_for_no_more_than_the_table_has(watch: Watch, browser: Chrome) -> None:
    """No request of Flower's own pages is refused."""
    browser.get(watch.signing_in("/workers"))
    for path in ("/workers", "/tasks", "/broker"):
        browser.get(watch.url + path)
        time.sleep(1)
        entries = browser.execute_script("return JSON.stringify(performance.getEntriesByType('resource'))")
        seen = {entry["name"]: entry["responseStatus"] for entry in json.loads(entries)}
        assert all(name.startswith(watch.url) and status == 200 for name, status in seen.items()), seen
