"""``byok exporter`` as a process: its page is that of the list, and comes when servers are away."""

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.client import HTTPException
from urllib.parse import urlsplit, urlunsplit

import pytest
import sqlalchemy as sa

from byok.core.metric_list import Origin
from byok.embedded.stack import Stack
from byok.services.gathering import FRESH_SECONDS, PATIENCE_SECONDS
from byok.settings import child_environment
from byok.simulator.control import SimulatorControl
from byok.wiring import Runtime
from tests.customers import add_key, join
from tests.metric_pages import assert_agrees, read_page, shown, value
from tests.ports import unused_port
from tests.proxy import Cut, CuttableProxy

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-m", "byok.cli", "exporter"]


@contextmanager
def exporter(stack: Stack, **more: str) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """The process, once it serves its page, and the page's port."""
    port = unused_port()
    environment = stack.environment | {"BYOK_EXPORTER_PORT": str(port)} | more
    process = subprocess.Popen(
        COMMAND, env=child_environment(environment), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert f":{port}/metrics" in process.stdout.readline()
        yield process, port
    finally:
        process.kill()
        process.communicate()


def through(proxy: CuttableProxy, url: str) -> str:
    direct = urlsplit(url)
    host = direct.netloc.replace(f":{direct.port}", f":{proxy.port}")
    return urlunsplit(direct._replace(netloc=host))


def ask_in_vain(port: int) -> None:
    with contextlib.suppress(OSError, HTTPException):
        read_page(port)


def test_the_page_is_that_of_the_list(stack: Stack, runtime: Runtime, simulator: SimulatorControl) -> None:
    acme = join(stack, runtime, "acme")
    simulator.import_material(acme.kms_key, runtime.store.now() + timedelta(days=6))
    add_key(runtime, "acme")
    runtime.services.vault.cipher("acme", "pii").encrypt(b"x", context=b"c")
    runtime.services.kill_switch.suspend("acme", "stop", actor="test")
    acme.account.schedule_key_deletion(acme.kms_key)
    runtime.services.lookout.look("acme", actor="test")
    with exporter(stack) as (_, port):
        page = read_page(port)
    assert_agrees(page, Origin.FLEET)
    assert value(page, "byok_tenants", state="suspended") == 1
    assert value(page, "byok_keys") == 1
    assert value(page, "byok_reachable", server="postgresql") == 1
    assert value(page, "byok_tenant_suspended", tenant="acme", code="by-hand") is not None


def test_servers_that_are_silent_are_missing_from_a_page_that_comes_in_time(
    stack: Stack, runtime: Runtime
) -> None:
    with (
        CuttableProxy(stack.postgres.port) as postgres,
        CuttableProxy(stack.cache.port) as cache,
        exporter(
            stack,
            BYOK_DATABASE_URL=through(postgres, stack.environment["BYOK_DATABASE_URL"]),
            BYOK_CACHE_URL=through(cache, stack.environment["BYOK_CACHE_URL"]),
        ) as (process, port),
    ):
        assert value(read_page(port), "byok_keys") == 0
        postgres.cut(Cut.SILENT)
        cache.cut(Cut.RESET)
        time.sleep(FRESH_SECONDS)
        began = time.monotonic()
        page = read_page(port)
        assert time.monotonic() - began < PATIENCE_SECONDS + 3
        reachable = {
            server: value(page, "byok_reachable", server=server)
            for server in ("postgresql", "broker", "cache")
        }
        assert reachable == {"postgresql": 0, "broker": 1, "cache": 0}
        assert not {"byok_keys", "byok_tenants", "byok_tick_age_seconds"} & set(shown(page))
        assert value(page, "byok_queue_depth", queue="maintenance") == 0
        assert value(page, "byok_stop_bound_seconds") == 6
        postgres.mend()
        deadline = time.monotonic() + 30
        while value(read_page(port), "byok_keys") != 0:
            assert time.monotonic() < deadline
            time.sleep(1)
        postgres.cut(Cut.SILENT)
        time.sleep(FRESH_SECONDS)
        asker = threading.Thread(target=ask_in_vain, args=(port,))
        asker.start()
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0, "a server that hangs does not keep it"
        asker.join()


def test_without_any_server_there_is_a_page(stack: Stack) -> None:
    nowhere = "redis://127.0.0.1:9/0"
    with exporter(
        stack,
        BYOK_DATABASE_URL="postgresql+psycopg://u:p@127.0.0.1:9/d",
        BYOK_BROKER_URL=nowhere,
        BYOK_CACHE_URL=nowhere,
    ) as (process, port):
        page = read_page(port)
        assert set(shown(page)) == {
            "byok_reachable", "byok_tick_period_seconds", "byok_revocation_bound_seconds",
            "byok_stop_bound_seconds",
            "byok_watch_period_seconds",
        }  # fmt: skip
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_in_order(stack: Stack, engine: sa.Engine, number: signal.Signals) -> None:
    with exporter(stack) as (process, port):
        read_page(port)
        process.send_signal(number)
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def test_a_second_one_on_the_same_port_says_so(stack: Stack) -> None:
    with exporter(stack) as (_, port):
        environment = child_environment(stack.environment | {"BYOK_EXPORTER_PORT": str(port)})
        second = subprocess.run(COMMAND, env=environment, capture_output=True, text=True, check=False)
    assert second.returncode == 78
    assert "BYOK_EXPORTER_PORT" in second.stderr
    assert "[configuration]" in second.stderr
