"""Every URL that Flower knows is either in our table or closed, for whoever asks however."""

import asyncio
import base64
import http.client
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from flower.urls import handlers as handlers_of_flower
from flower.urls import settings as tornado_settings
from tornado.ioloop import IOLoop
from tornado.routing import URLSpec

from byok.flower.application import Refusal, table
from byok.flower.exposure import Exposure
from byok.flower.serving import make_flower
from byok.settings import FlowerSettings
from tests import ports

# A thread may log between two tests, when nobody listens but standard error.
logging.getLogger("tornado").addHandler(logging.NullHandler())

USERS = {"ops": "u7Jq-x0pTz_4VbN2wLs", "dev": "Zk3-another_one-9Qx"}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

# All that Flower 2.2 serves. What a later Flower adds is closed until it is put here.
SHOWN = {"/", "/workers", "/worker/(.+)", "/task/(.+)", "/tasks", "/tasks/datatable", "/broker"}
OPEN = {"/healthcheck", "/static/(.*)", "/login/?", "/logout"}
CLOSED = {
    "/api/workers",
    "/api/worker/shutdown/(.+)",
    "/api/worker/pool/restart/(.+)",
    "/api/worker/pool/grow/(.+)",
    "/api/worker/pool/shrink/(.+)",
    "/api/worker/pool/autoscale/(.+)",
    "/api/worker/queue/add-consumer/(.+)",
    "/api/worker/queue/cancel-consumer/(.+)",
    "/api/tasks",
    "/api/task/types",
    "/api/queues/length",
    "/api/task/info/(.*)",
    "/api/task/apply/(.+)",
    "/api/task/async-apply/(.+)",
    "/api/task/send-task/(.+)",
    "/api/task/result/(.+)",
    "/api/task/abort/(.+)",
    "/api/task/timeout/(.+)",
    "/api/task/rate-limit/(.+)",
    "/api/task/revoke/(.+)",
    "/metrics",
    ".*",
}


def patterns(specs: Any) -> set[str]:
    found = (spec.regex.pattern if isinstance(spec, URLSpec) else spec[0] for spec in specs)
    return {pattern.removesuffix("$") for pattern in found}


class Serving:
    """Flower on a port, in a thread; nobody is at the broker's address."""

    def __init__(self, **settings: object) -> None:
        self.port = ports.unused_port()
        basic_auth = ",".join(f"{user}:{password}" for user, password in USERS.items())
        given = {"broker_url": "redis://127.0.0.1:1/0", "FLOWER_BASIC_AUTH": basic_auth}
        self.settings = FlowerSettings.model_validate(given | {"flower_port": self.port} | settings)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._ready.wait(10)

    def _run(self) -> None:
        asyncio.set_event_loop(asyncio.new_event_loop())
        self.flower = make_flower(self.settings, Exposure.of(self.settings, {}))
        self.flower.start_http_server()
        self.loop = IOLoop.current()
        self.loop.add_callback(self._ready.set)
        self.loop.start()
        self.flower.executor.shutdown()
        self.loop.close(all_fds=True)

    def close(self) -> None:
        self.loop.add_callback(self.loop.stop)
        self._thread.join(10)

    def ask(self, method: str, path: str, login: str | None = None) -> tuple[int, str]:
        """The status and the page that somebody gets."""
        headers = {}
        if login is not None:
            headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    serving = Serving()
    yield serving
    serving.close()


def an_example(pattern: str) -> str:
    return (
        pattern.replace("(.+)", "byok.keys.rotate").replace("(.*)", "x").replace("/?", "").replace(".*", "/x")
    )


def login(user: str = "ops") -> str:
    return f"{user}:{USERS[user]}"


def test_every_url_of_flower_is_known_and_ours_are_among_them() -> None:
    assert patterns(handlers_of_flower) == SHOWN | OPEN | CLOSED
    ours = table("", tornado_settings["static_path"])
    assert patterns(ours) == SHOWN | OPEN | {".*"}
    assert ours[-1].handler_class is Refusal


@pytest.mark.parametrize("pattern", sorted(patterns(handlers_of_flower) - SHOWN - OPEN))
@pytest.mark.parametrize("method", METHODS)
def test_what_is_not_shown_is_closed_to_all(serving: Serving, method: str, pattern: str) -> None:
    path = an_example(pattern)
    assert serving.ask(method, path)[0] == 401
    status, page = serving.ask(method, path, login())
    assert status == 403
    assert method == "HEAD" or "byok keeps this part of Flower closed" in page


@pytest.mark.parametrize("pattern", sorted(SHOWN))
@pytest.mark.parametrize(
    "wrong", [None, "ops:", "ops:password", "ops:u7Jq-x0pTz_4VbN2wL", ":", "öps:é", f"x:{USERS['ops']}"]
)
def test_what_is_shown_is_shown_to_who_has_a_password(
    serving: Serving, pattern: str, wrong: str | None
) -> None:
    status, page = serving.ask("GET", an_example(pattern), wrong)
    assert (status, page) == (401, "Access denied")


@pytest.mark.parametrize("pattern", sorted(SHOWN))
def test_what_is_shown_can_only_be_looked_at(serving: Serving, pattern: str) -> None:
    for method in METHODS[1:]:
        if (method, pattern) != ("POST", "/tasks/datatable"):
            assert serving.ask(method, an_example(pattern), login())[0] in (401, 405), method


@pytest.mark.parametrize("user", sorted(USERS))
@pytest.mark.parametrize("path", ["/", "/workers", "/workers?json=1", "/tasks", "/broker"])
def test_each_user_sees_the_pages(serving: Serving, user: str, path: str) -> None:
    status, page = serving.ask("GET", path, login(user))
    assert status == 200
    assert all(password not in page for password in USERS.values())


def test_an_unknown_task_is_not_there(serving: Serving) -> None:
    assert serving.ask("GET", "/task/x", login())[0] == 404


def test_a_container_may_look_whether_it_lives(serving: Serving) -> None:
    assert serving.ask("GET", "/healthcheck") == (200, "OK")
    assert serving.ask("GET", "/static/favicon.ico/../../urls.py")[0] in (403, 404)


def test_under_a_prefix_all_is_as_without() -> None:
    serving = Serving(flower_url_prefix="ops/flower")
    try:
        assert serving.ask("GET", "/ops/flower/workers", login())[0] == 200
        status, page = serving.ask("GET", "/ops/flower/tasks", login())
        assert status == 200
        assert '"/ops/flower/static/' in page
        assert serving.ask("GET", "/ops/flower/static/js/flower.js")[0] == 200
        assert serving.ask("GET", "/ops/flower/healthcheck") == (200, "OK")
        for path in (
            "/ops/flower/api/workers",
            "/api/workers",
            "/workers",
            "/ops/flower/metrics",
            "/metrics",
        ):
            assert serving.ask("GET", path)[0] == 401
            assert serving.ask("GET", path, login())[0] == 403
    finally:
        serving.close()
