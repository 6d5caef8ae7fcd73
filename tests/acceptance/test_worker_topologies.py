"""A real worker on Redis behind Sentinels, through a fail-over, and on Redis by TLS."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa
from celery import Celery

from byok.broker import broker_settings
from byok.cli import processes
from byok.core.model import OpenWork
from byok.embedded.stack import Stack
from byok.embedded.supervisor import Child
from byok.settings import load_settings, use_environment
from byok.wiring import Runtime, build
from tests.acceptance.conftest import PACE
from tests.conftest import empty
from tests.customers import add_key, join
from tests.redis_servers import MASTER, sentinel_group
from tests.tls import PrivateCa, TlsProxy

pytestmark = pytest.mark.slow

PASSWORD = "not-to-be-shown"
# A worker tries again after 2 s, 4 s and so on; the fail-over itself takes two.
FAILOVER_SECONDS = 45.0


@dataclass(frozen=True)
class Working:
    """A worker, and services of this process on the same servers."""

    runtime: Runtime
    worker: Child

    def rotates(self, tenant: str, within_seconds: float) -> bool:
        """Whether the worker does a rotation in time. Asked for again and again, as by a sweeper."""
        services = self.runtime.services
        requested = services.vault.request_rotation(tenant, "pii")
        deadline = time.monotonic() + within_seconds
        while services.requests.get(requested.rotation.id).is_open:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.5)
            services.requests.publish(OpenWork(tenant, "pii", requested.rotation))
        return True


@contextmanager
def working(stack: Stack, engine: sa.Engine, broker_url: str, cache_url: str) -> Iterator[Working]:
    empty(engine)
    environment = stack.environment | PACE | {"BYOK_BROKER_URL": broker_url, "BYOK_CACHE_URL": cache_url}
    use_environment(environment)
    runtime = build(load_settings())
    worker = processes.start_worker(stack, environment)
    try:
        processes.wait_for_worker(stack, worker)
        yield Working(runtime, worker)
    finally:
        stack.supervisor.stop([worker])
        runtime.close()


@pytest.mark.usefixtures("environment")
def test_a_worker_follows_the_sentinels(stack: Stack, engine: sa.Engine, tmp_path: Path) -> None:
    with sentinel_group(stack, tmp_path / "group", PASSWORD, PASSWORD) as group:
        url = f"redis+sentinel://:{PASSWORD}@127.0.0.1:{group.sentinel.port}/{MASTER}"
        login = f"?sentinel_password={PASSWORD}"
        with working(stack, engine, f"{url}/0{login}", f"{url}/1{login}") as working_:
            customer = join(stack, working_.runtime, "sentinels")
            add_key(working_.runtime, customer.name)
            assert working_.rotates(customer.name, 20), working_.worker.log_tail(20)
            assert PASSWORD not in statistics(f"{url}/0{login}")
            group.master.kill()
            began = time.monotonic()
            assert working_.rotates(customer.name, FAILOVER_SECONDS), working_.worker.log_tail(20)
            print(f"rotated {time.monotonic() - began:.1f} s after the master's death")
            assert working_.worker.process.poll() is None
            assert PASSWORD not in working_.worker.log_file.read_text()


def statistics(url: str) -> str:
    """What a worker tells about itself to whoever asks."""
    app = Celery("stranger", set_as_current=False)
    app.conf.update(broker_settings(url))
    told = app.control.inspect(timeout=3.0).stats()
    app.close()
    assert told
    return json.dumps(told)


@pytest.mark.usefixtures("environment")
def test_a_worker_talks_tls(stack: Stack, engine: sa.Engine, tmp_path: Path) -> None:
    ca = PrivateCa(tmp_path / "ca")
    with TlsProxy(stack.broker.port, ca) as broker, TlsProxy(stack.cache.port, ca) as cache:
        urls = [
            direct.url.replace("redis://", "rediss://").replace(str(direct.port), str(proxy.port))
            + f"?ssl_ca_certs={ca.file}"
            for direct, proxy in ((stack.broker, broker), (stack.cache, cache))
        ]
        with working(stack, engine, *urls) as working_:
            customer = join(stack, working_.runtime, "tls")
            add_key(working_.runtime, customer.name)
            assert working_.rotates(customer.name, 20), working_.worker.log_tail(20)
        assert broker.tls_connections > 0
        assert cache.tls_connections > 0
