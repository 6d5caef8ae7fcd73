"""A tenant leaves, with real processes: killed at every step, cut off during the stop."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa

from byok.embedded.stack import Stack
from byok.errors import ByokError
from byok.failpoints import FailPoint
from byok.services.fields import Cipher
from byok.settings import child_environment, load_settings, use_environment
from byok.wiring import Runtime, build
from tests.customers import add_key, join
from tests.leaving import certificate, let_the_day_come, wrapped_keys
from tests.proxy import Cut, CuttableProxy

pytestmark = pytest.mark.slow

STEPS = [
    FailPoint.SHREDDING_BEGUN,
    FailPoint.KEY_SHREDDING,
    FailPoint.KEY_SHREDDED,
    FailPoint.OFFBOARDING,
    FailPoint.OFFBOARDED,
    FailPoint.CERTIFYING,
]
TTL = timedelta(seconds=6)


def finish(stack: Stack, tenant: str, point: FailPoint | None = None) -> int:
    """Run the command in a process of its own; its exit status."""
    armed = {} if point is None else {"BYOK_ENV": "test", "BYOK_FAIL_POINT": point.value}
    command = [sys.executable, "-m", "byok.cli", "tenant", "offboard", tenant, "--finish"]
    environment = child_environment(stack.environment | armed)
    return subprocess.run(command, env=environment, check=False, capture_output=True, timeout=60).returncode


@pytest.mark.timeout(180)
def test_processes_that_are_killed_at_every_step_lose_and_double_nothing(
    stack: Stack, runtime: Runtime, engine: sa.Engine
) -> None:
    customer = join(stack, runtime, "acme")
    for number in range(4):
        add_key(runtime, customer.name, f"key-{number}")
    runtime.services.offboardings.begin("acme", "x", retention=timedelta(0), actor="test")
    let_the_day_come(engine)
    killed = [finish(stack, "acme", point) for point in STEPS]
    assert killed == [-signal.SIGKILL] * len(STEPS), "each met its point"
    assert finish(stack, "acme") == 0
    assert certificate(runtime, "acme")["passed"] is True
    assert wrapped_keys(engine) == 0
    actions = [event.action for event in runtime.services.registry.audit_log("acme")]
    assert actions.count("version.shredded") == 4
    for once in ("tenant.shredding-began", "tenant.offboarded", "tenant.shred-certified"):
        assert actions.count(once) == 1
    verified = runtime.services.auditor.verify(runtime.services.auditor.chain("acme"))
    assert verified.last.sequence == len(actions)


@contextmanager
def behind(proxies: Mapping[str, CuttableProxy], environment: Mapping[str, str]) -> Iterator[Runtime]:
    """A runtime that reaches these servers through the proxies."""
    detours = {}
    for variable, proxy in proxies.items():
        port = urlsplit(environment[variable]).port
        detours[variable] = environment[variable].replace(f":{port}", f":{proxy.port}")
    use_environment({**environment, **detours})
    made = build(load_settings())
    try:
        yield made
    finally:
        made.close()


def serves(cipher: Cipher, token: bytes) -> bool:
    try:
        return cipher.decrypt(token, context=b"c") == b"x"
    except ByokError:
        return False


@pytest.mark.timeout(120)
def test_a_process_that_is_cut_off_is_named_and_bounded_by_its_lease(
    stack: Stack, runtime: Runtime, engine: sa.Engine, environment: Mapping[str, str]
) -> None:
    customer = join(stack, runtime, "acme")
    add_key(runtime, customer.name, ttl=TTL)
    token = runtime.services.vault.cipher("acme", "pii").encrypt(b"x", context=b"c")
    names = ("BYOK_DATABASE_URL", "BYOK_CACHE_URL")
    ports = [urlsplit(environment[name]).port for name in names]
    with (
        CuttableProxy(ports[0] or 0) as database,
        CuttableProxy(ports[1] or 0) as cache,
        behind(dict(zip(names, (database, cache), strict=True)), environment) as far,
    ):
        cipher = far.services.vault.cipher("acme", "pii")
        leased_at = time.monotonic()
        assert serves(cipher, token)
        for proxy in (database, cache):
            proxy.cut(Cut.RESET)
        departure = runtime.services.offboardings.begin("acme", "x", retention=timedelta(0), actor="test")
        assert departure.stop is not None
        report = runtime.services.offboardings.wait_for(
            departure.stop, timedelta(seconds=2), lambda seen: None
        )
        member = str(far.services.watch.member)
        assert list(report.silent) == [member]
        assert serves(cipher, token), "nobody could tell it"
        bound = departure.offboarding.shred_after - departure.offboarding.requested_at
        assert bound > TTL
        time.sleep(max(0.0, leased_at + TTL.total_seconds() - time.monotonic()))
        assert not serves(cipher, token), "its lease has ended, long before a wrapped key may go"
        let_the_day_come(engine)
        assert finish(stack, "acme") == 0
        told = certificate(runtime, "acme")
        assert told["stop"]["not_answered"] == [member]
        for proxy in (database, cache):
            proxy.mend()
        assert not serves(cipher, token)
