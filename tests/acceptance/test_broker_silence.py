"""A half-open broker connection: no reset, no end, just silence. The worker must not stay deaf."""

import time
from urllib.parse import urlsplit, urlunsplit

import pytest
import sqlalchemy as sa

from byok.cli import processes
from byok.core.model import OpenWork
from byok.embedded.stack import Stack
from byok.wiring import Runtime
from tests.acceptance.conftest import PACE
from tests.customers import add_key, join
from tests.proxy import SilenceableProxy

pytestmark = pytest.mark.slow

# Seen: 10 to 30 s. Several connections, each noticed after socket_timeout or health_check_interval of 5 s.
DEAF_SECONDS = 45.0


def test_a_worker_notices_a_silent_connection(stack: Stack, runtime: Runtime, engine: sa.Engine) -> None:
    customer = join(stack, runtime, "silent")
    add_key(runtime, customer.name)
    with SilenceableProxy(stack.broker.port) as proxy:
        direct = urlsplit(stack.broker.url)
        detour = urlunsplit(direct._replace(netloc=direct.netloc.replace(str(direct.port), str(proxy.port))))
        worker = processes.start_worker(stack, stack.environment | PACE | {"BYOK_BROKER_URL": detour})
        try:
            processes.wait_for_worker(stack, worker)
            assert rotates(runtime, customer.name, 10)
            assert proxy.fall_silent() >= 1
            began = time.monotonic()
            assert rotates(runtime, customer.name, DEAF_SECONDS), worker.log_tail(20)
            print(f"deaf for {time.monotonic() - began:.1f} s")
        finally:
            stack.supervisor.stop([worker])


def rotates(runtime: Runtime, tenant: str, within_seconds: float) -> bool:
    """Whether the worker does a rotation in time. Published again and again, as by a sweeper: the first
    message may be popped into the silent connection, and Redis knows no acknowledgement of that."""
    requested = runtime.services.vault.request_rotation(tenant, "pii")
    deadline = time.monotonic() + within_seconds
    while time.monotonic() < deadline:
        if not runtime.services.requests.get(requested.rotation.id).is_open:
            return True
        time.sleep(0.5)
        runtime.services.requests.publish(OpenWork(tenant, "pii", requested.rotation))
    return False
