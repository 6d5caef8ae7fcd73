"""Two hosts that share PostgreSQL, Redis and KMS, and nothing else; one is cut off from all, and returns.

Each host is a real worker, a real Beat and services that encrypt, with a home, a temporary folder and a
working folder of its own, and with its own path to each server.
"""

import time
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from benchmarks.kill_switch_service import now_seconds
from byok.core.model import Job
from byok.core.stops import revocation_bound
from tests.acceptance.hosts import RETURN_SECONDS, TTL, TwoHosts, two_hosts
from tests.chaos import invariants
from tests.chaos.fleet import PACE, SWEEP_SECONDS
from tests.proxy import Cut

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

PROBE_PERIOD = timedelta(seconds=5)  # half of the TTL, and 5 s at least
BOUND = revocation_bound(TTL, PROBE_PERIOD, timedelta(seconds=float(PACE["BYOK_RECHECK_SECONDS"])))
DISPATCH_SECONDS = float(PACE["BYOK_DISPATCH_INTERVAL_SECONDS"])
CONCURRENCY = int(PACE["BYOK_WORKER_CONCURRENCY"])
SLOW_KMS_SECONDS = 1.0  # a rotation is in the middle for at least as long
# Beyond two sweeper periods: A may have taken one sweep along, which is then a period late; and what the
# sweeper publishes waits for a thread of B's.
ALLOWANCE_SECONDS = SWEEP_SECONDS + 3.0
UNDER_WAY_SECONDS = 0.5  # a call that is under way at the deadline may end


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoHosts]:
    with two_hosts(tmp_path_factory.mktemp("hosts")) as hosts:
        yield hosts


def test_both_share_the_work(hosts: TwoHosts) -> None:
    def both_have() -> bool:
        hosts.fleet.storm(hosts.rotated)
        return hosts.fleet.settle() and hosts.a.rotations() > 0 and hosts.b.rotations() > 0

    hosts.wait_until(both_have, 60, "one of the workers does nothing")


@pytest.mark.parametrize("how", list(Cut))
def test_a_host_is_cut_off_and_returns(hosts: TwoHosts, how: Cut) -> None:
    cut_at, cut_seconds = cut_in_the_middle(hosts, how)
    the_other_takes_over(hosts, cut_at)
    a_stop_does_not_wait_for_who_is_cut_off(hosts, cut_at, cut_seconds)
    it_returns(hosts)
    all_is_well(hosts)
    access_comes_back(hosts)


def cut_in_the_middle(hosts: TwoHosts, how: Cut) -> tuple[datetime, float]:
    """Cut A off while it has claimed rotations; PostgreSQL's time just after, and this machine's."""
    hosts.fleet.simulator.hang(SLOW_KMS_SECONDS, operation="GenerateDataKeyWithoutPlaintext")
    hosts.fleet.storm(hosts.rotated)
    claimed = "SELECT count(*) FROM rotations WHERE claimed_until > clock_timestamp()"
    # More than B has threads: some are A's.
    hosts.wait_until(lambda: hosts.fleet.count(claimed) > CONCURRENCY, 20, "A has claimed nothing")
    hosts.a.cut(how)
    cut = hosts.now(), now_seconds()
    hosts.fleet.simulator.clear_faults()
    return cut


def the_other_takes_over(hosts: TwoHosts, cut_at: datetime) -> None:
    assert hosts.fleet.settle(), "B does not take over"
    late_seconds = hosts.taken_over(cut_at)
    assert late_seconds
    print(f"{len(late_seconds)} taken over, the last {max(late_seconds.values()):.1f} s after the cut")
    assert max(late_seconds.values()) < 2 * SWEEP_SECONDS + ALLOWANCE_SECONDS


def a_stop_does_not_wait_for_who_is_cut_off(hosts: TwoHosts, cut_at: datetime, cut_seconds: float) -> None:
    """A customer takes the access away. B obeys; of A it is known that it does not answer."""
    a, b, stopped, stops = hosts.a, hosts.b, hosts.stopped, len(hosts.reports())
    revoked_seconds = now_seconds()
    stopped.account.disable_key(stopped.kms_key)
    hosts.wait_until(lambda: len(hosts.reports()) > stops, 20, "B does not notice the revocation")
    time.sleep(max(0.0, revoked_seconds + BOUND.polled.total_seconds() - now_seconds()))
    report = hosts.reports()[0]
    silent = {int(member.split()[1].partition("@")[0]) for member in report.silent}
    assert a.children[stopped.name].process.pid in silent
    assert silent <= a.pids(), report.silent
    assert report.answered > 0
    assert b.last_success(stopped.name) - revoked_seconds < BOUND.polled.total_seconds()
    for customer in (stopped, hosts.served):
        served_seconds = a.last_success(customer.name) - cut_seconds
        lease_seconds = TTL.total_seconds() - hosts.decrypted_before(customer, cut_at)
        print(f"A served {customer.name} for {served_seconds:.1f} s, {lease_seconds:.1f} s allowed")
        assert served_seconds < lease_seconds + UNDER_WAY_SECONDS


def it_returns(hosts: TwoHosts) -> None:
    """A acknowledges the stop, serves who is not stopped, and works. Nobody restarts it."""
    a, mended_seconds, before = hosts.a, now_seconds(), hosts.a.rotations()
    a.mend()
    hosts.wait_until(lambda: not hosts.reports()[0].silent, RETURN_SECONDS, "A does not acknowledge the stop")
    print(f"acknowledged {now_seconds() - mended_seconds:.1f} s after the return")
    hosts.wait_for_service(a, hosts.served, mended_seconds)

    def works() -> bool:
        hosts.fleet.storm(hosts.rotated[:CONCURRENCY])
        time.sleep(0.5)
        return a.rotations() > before

    hosts.wait_until(works, RETURN_SECONDS, "A's worker does not work")
    print(f"worked again after {now_seconds() - mended_seconds:.1f} s")
    assert a.last_success(hosts.stopped.name) < mended_seconds


def all_is_well(hosts: TwoHosts) -> None:
    """Nothing lost or doubled, no process ended, no tick came twice, nothing lies on the hosts' disks."""
    assert hosts.fleet.settle()
    verdict = invariants.look(hosts.fleet)
    assert verdict.good, verdict
    assert hosts.ended() == []
    gaps_seconds = hosts.shortest_gaps()
    assert gaps_seconds[Job.DISPATCH_DUE] >= 0.9 * DISPATCH_SECONDS  # as early as a tick may be
    assert gaps_seconds[Job.SWEEP] >= 0.9 * SWEEP_SECONDS
    assert [*hosts.a.left_behind(), *hosts.b.left_behind()] == []


def access_comes_back(hosts: TwoHosts) -> None:
    hosts.stopped.account.enable_key(hosts.stopped.kms_key)
    back_seconds = now_seconds()
    for host in (hosts.a, hosts.b):
        hosts.wait_for_service(host, hosts.stopped, back_seconds)
