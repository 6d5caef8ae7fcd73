"""Each alert raised by the real fault, in a real Prometheus, and ended by what the runbook says."""

import shutil
import signal
from collections.abc import Iterator
from datetime import timedelta
from uuid import uuid4

import pytest

from tests.customers import Customer, add_key, join
from tests.monitoring.watched_fleet import WatchedFleet, watched_fleet

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(
        shutil.which("prometheus") is None,
        reason="prometheus is not there; on Debian: apt-get install prometheus",
    ),
]

PAGE, TICKET = "page", "ticket"


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedFleet]:
    with watched_fleet(tmp_path_factory.mktemp("watched")) as running:
        yield running


@pytest.fixture
def customers(watched: WatchedFleet) -> list[Customer]:
    """Customers of a test's own, each with a key."""
    joined = []
    for _ in range(7):
        customer = join(watched.fleet.stack, watched.fleet.runtime, f"t-{uuid4().hex[:8]}")
        add_key(watched.fleet.runtime, customer.name, ttl=timedelta(minutes=5))
        joined.append(customer)
    return joined


def test_a_customer_that_turns_access_off_and_one_that_is_stopped_by_hand(
    watched: WatchedFleet, customers: list[Customer]
) -> None:
    revoked, stopped, *_ = customers
    service = watched.start_service(stopped.name, "pii")
    service.process.send_signal(signal.SIGSTOP)
    revoked.account.disable_key(revoked.kms_key)
    watched.byok("tenant", "suspend", stopped.name, "--reason", "customer called")
    page, ticket, slow = watched.wait_for(
        ("ByokTenantSuspended", PAGE), ("ByokTenantSuspended", TICKET), ("ByokRevocationSlow", PAGE)
    )
    assert page["labels"] | {"tenant": revoked.name, "code": "DisabledException"} == page["labels"]
    assert ticket["labels"] | {"tenant": stopped.name, "code": "by-hand"} == ticket["labels"]
    assert slow["labels"]["tenant"] == stopped.name
    service.process.send_signal(signal.SIGCONT)
    watched.fleet.stop([service])
    revoked.account.enable_key(revoked.kms_key)
    watched.byok("tenant", "resume", stopped.name)
    watched.wait_quiet("ByokTenantSuspended")
