"""`byok flower` on every kind of broker, over a broker's death, and over its own restart."""

import base64
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import psutil
import pytest

from byok.cli import processes
from byok.embedded.stack import Stack
from byok.embedded.supervisor import Child
from byok.queue import MAINTENANCE_QUEUE, PROBE, SWEEP, client_app
from tests.proxy import Cut, CuttableProxy
from tests.redis_servers import MASTER, sentinel_group
from tests.tls import PrivateCa, TlsProxy

pytestmark = pytest.mark.slow

PASSWORD = "not-to-be-shown"
TASKS = {"draw": 1, "start": 0, "length": 10_000, "order[0][column]": 0, "columns[0][data]": "name"}


@pytest.fixture(autouse=True)
def nothing_seen_before(stack: Stack) -> None:
    """Flower remembers what other tests had done."""
    shutil.rmtree(stack.home.path / "flower", ignore_errors=True)


class Looking:
    """Somebody who is signed in to a Flower."""

    def __init__(self, stack: Stack, url: str, flower: Child) -> None:
        self.url, self.flower = url, flower
        login = f"byok:{stack.home.secret('flower')}".encode()
        self._headers = {"Authorization": f"Basic {base64.b64encode(login).decode()}"}

    def page(self, path: str, **form: object) -> str:
        data = urlencode(form).encode() if form else None
        with urlopen(Request(self.url + path, data, self._headers), timeout=10) as answer:
            text: str = answer.read().decode()
        return text

    def workers(self) -> dict[str, bool]:
        """Whether each worker that is shown is online."""
        told = json.loads(self.page("/workers?json=1"))["data"]
        return {worker["hostname"]: worker["status"] for worker in told}

    def tasks(self, name: str) -> list[dict[str, str]]:
        """What is shown of the tasks of a name."""
        told = json.loads(self.page("/tasks/datatable", **TASKS))["data"]
        return [task for task in told if task["name"] == name]

    def sees(self, condition: Callable[[], object], within_seconds: float = 30.0) -> None:
        deadline = time.monotonic() + within_seconds
        while not condition():
            assert time.monotonic() < deadline, self.flower.log_tail(20)
            time.sleep(0.3)


@contextmanager
def looking(stack: Stack, broker_url: str, *, with_worker: bool = True) -> Iterator[Looking]:
    environment = stack.environment | {"BYOK_BROKER_URL": broker_url}
    flower, url = processes.start_flower(stack, environment)
    started = [flower]
    try:
        processes.wait_for_flower(stack, flower)
        if with_worker:
            started.append(processes.start_worker(stack, environment))
            processes.wait_for_worker(stack, started[-1])
        yield Looking(stack, url, flower)
    finally:
        stack.supervisor.stop(started)


def send(broker_url: str, name: str = SWEEP, **kwargs: str) -> None:
    app = client_app(broker_url)
    app.send_task(name, kwargs=kwargs, queue=MAINTENANCE_QUEUE)
    app.close()


def assert_all_is_shown(eye: Looking, broker_url: str, servers: str) -> None:
    eye.sees(lambda: True in eye.workers().values())
    send(broker_url)
    eye.sees(lambda: eye.tasks(SWEEP))
    eye.sees(lambda: {task["state"] for task in eye.tasks(SWEEP)} == {"SUCCESS"})
    queues = eye.page("/broker")
    assert "maintenance" in queues
    assert servers in queues
    name = next(name for name, is_online in eye.workers().items() if is_online)
    pages = [queues, eye.page(f"/worker/{name}"), eye.page("/workers"), eye.page("/tasks")]
    assert not any(PASSWORD in page for page in pages)
    assert PASSWORD not in eye.flower.log_file.read_text()


def test_on_sentinels(stack: Stack, tmp_path: Path) -> None:
    with sentinel_group(stack, tmp_path / "group", PASSWORD, PASSWORD) as group:
        servers = f"127.0.0.1:{group.sentinel.port}"
        url = f"redis+sentinel://:{PASSWORD}@{servers}/{MASTER}/0?sentinel_password={PASSWORD}"
        with looking(stack, url) as eye:
            assert_all_is_shown(eye, url, servers)


def test_by_tls(stack: Stack, tmp_path: Path) -> None:
    ca = PrivateCa(tmp_path / "ca")
    with TlsProxy(stack.broker.port, ca) as proxy:
        url = stack.broker.url.replace("redis://", "rediss://").replace(
            str(stack.broker.port), str(proxy.port)
        )
        url += f"?ssl_ca_certs={ca.file}"
        with looking(stack, url) as eye:
            assert_all_is_shown(eye, url, f"127.0.0.1:{proxy.port}")


def test_the_process_holds_the_broker_and_no_other_secret(stack: Stack) -> None:
    with looking(stack, stack.broker.url, with_worker=False) as eye:
        process = psutil.Process(eye.flower.process.pid)
        assert stack.home.secret("flower") not in " ".join(process.cmdline())
        told = " ".join(process.environ().values())
        for name in ("BYOK_MASTER_KEYS", "BYOK_DATABASE_URL", "BYOK_CACHE_URL", "AWS_SECRET_ACCESS_KEY"):
            assert stack.environment[name] not in told, name


def our_probes(eye: Looking) -> list[dict[str, str]]:
    """Without those that other tests left in the queue."""
    return [task for task in eye.tasks(PROBE) if task["kwargs"] == "no-such-tenant"]


def test_what_was_seen_survives_a_restart_and_who_asks_without_password_is_logged(stack: Stack) -> None:
    with looking(stack, stack.broker.url) as eye:
        send(stack.broker.url, PROBE, tenant="no-such-tenant")
        eye.sees(lambda: [task["state"] for task in our_probes(eye)] == ["FAILURE"])
        with pytest.raises(HTTPError) as refused:
            urlopen(eye.url + "/tasks", timeout=10)
        refused.value.close()
        eye.sees(lambda: "401 GET /tasks" in eye.flower.log_file.read_text())
    assert eye.flower.process.returncode == 0  # it had time to save
    with looking(stack, stack.broker.url, with_worker=False) as eye:
        (task,) = our_probes(eye)
        assert (task["state"], task["kwargs"], task["result"]) == (
            "FAILURE",
            "no-such-tenant",
            "unknown-tenant",
        )


def test_a_worker_that_died_stays_as_offline(stack: Stack) -> None:
    with looking(stack, stack.broker.url, with_worker=False) as eye:
        worker = processes.start_worker(stack, dict(stack.environment), "short-lived")
        eye.sees(lambda: any(name.startswith("short-lived@") for name in eye.workers()))
        worker.process.kill()
        eye.sees(lambda: [up for name, up in eye.workers().items() if name.startswith("short-")] == [False])
        stack.supervisor.stop([worker])


def test_a_broker_that_was_away_is_heard_again(stack: Stack) -> None:
    with CuttableProxy(stack.broker.port) as path:
        url = stack.broker.url.replace(str(stack.broker.port), str(path.port))
        with looking(stack, url) as eye:
            eye.sees(lambda: True in eye.workers().values())
            before = len(eye.tasks(SWEEP))
            path.cut(Cut.RESET)
            eye.sees(lambda: "No queue data is available" in eye.page("/broker"))
            path.mend()

            def sees_another() -> bool:
                send(stack.broker.url)
                return len(eye.tasks(SWEEP)) > before

            eye.sees(sees_another, within_seconds=60)
            eye.sees(lambda: "maintenance" in eye.page("/broker"))
