"""The queue, the leases and the notices on Redis as production has it: TLS, Sentinels, and no Cluster."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from byok.cache.notices import RedisNoticeBoard
from byok.cache.redis import RedisLeaseCache
from byok.embedded.stack import Stack
from byok.errors import CacheUnavailable, ConfigurationError, QueueUnavailable
from byok.ports import Notice
from byok.queue import CeleryQueue
from tests.ports import unused_port
from tests.redis_servers import MASTER, Group, sentinel_group, valkey
from tests.tls import PrivateCa, TlsProxy

PASSWORD = "pass/word"  # what is special in it is percent-encoded below
ENCODED = "pass%2Fword"
# Sentinel takes the master for dead after 0.5 s and has the replica promoted within a second or two.
FAILOVER_SECONDS = 20.0


@pytest.fixture
def group(stack: Stack, tmp_path: Path) -> Iterator[Group]:
    with sentinel_group(stack, tmp_path / "group", PASSWORD, PASSWORD) as group:
        wait_until(lambda: is_replicating(group))
        yield group


def is_replicating(group: Group) -> bool:
    """Whether the Sentinel knows the replica, and the replica has what the master has."""
    with group.sentinel.client(PASSWORD) as sentinel, group.replica.client(PASSWORD) as replica:
        known = sentinel.sentinel_slaves(MASTER)
        return bool(known) and replica.info("replication")["master_link_status"] == "up"


def sentinel_url(port: int, scheme: str = "redis", more: str = "") -> str:
    dead = unused_port()  # a Sentinel that is down is passed over
    servers = f"127.0.0.1:{dead},127.0.0.1:{port}"
    return f"{scheme}+sentinel://:{ENCODED}@{servers}/{MASTER}/0?sentinel_password={ENCODED}{more}"


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + FAILOVER_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def works(act: Callable[[], object]) -> bool:
    """Whether it succeeds just now. Nothing but an outage may be why it does not."""
    try:
        act()
    except (CacheUnavailable, QueueUnavailable):
        return False
    return True


def test_leases_and_queue_follow_the_master(group: Group) -> None:
    url = sentinel_url(group.sentinel.port)
    cache, queue = RedisLeaseCache(url), CeleryQueue.connect(url)
    queue.ping()
    cache.ping()
    queue.probe("before")
    wait_until(lambda: depth(group, "validate") == 1)  # replication is asynchronous
    group.master.kill()
    wait_until(lambda: works(cache.ping))
    wait_until(lambda: works(lambda: queue.probe("after")))
    assert queue.depths()["validate"] == 2
    assert depth(group, "validate") == 2
    queue.close()
    cache.close()


def depth(group: Group, queue: str) -> int:
    with group.replica.client(PASSWORD) as replica:
        return int(replica.llen(queue))


def test_notices_arrive_again_after_a_failover(group: Group) -> None:
    board = RedisNoticeBoard(sentinel_url(group.sentinel.port))
    notice = Notice(uuid4(), uuid4())
    with board.listen() as subscription:
        board.publish(notice)
        assert subscription.next(2.0) == notice
        group.master.kill()
        with pytest.raises(CacheUnavailable):  # it tells, so that what was missed is looked for
            subscription.next(2.0)

    def hears() -> None:
        with board.listen() as subscription:
            board.publish(notice)
            assert subscription.next(2.0) == notice

    wait_until(lambda: works(hears))
    board.close()


def test_sentinels_without_their_password_or_master_are_unavailable(group: Group) -> None:
    right = sentinel_url(group.sentinel.port)
    for wrong in (right.partition("?")[0], right.replace(MASTER, "another")):
        cache, queue = RedisLeaseCache(wrong), CeleryQueue.connect(wrong)
        with pytest.raises(CacheUnavailable):
            cache.ping()
        with pytest.raises(QueueUnavailable):
            queue.ping()
        queue.close()
        cache.close()


def test_sentinels_and_master_over_tls(stack: Stack, tmp_path: Path) -> None:
    ca = PrivateCa(tmp_path / "ca")
    port = unused_port()
    with (
        TlsProxy(port, ca) as master_proxy,
        valkey(stack, tmp_path / "master", f"requirepass {PASSWORD}", port=port),
        valkey(
            stack,
            tmp_path / "sentinel",
            f"requirepass {PASSWORD}",
            f"sentinel monitor {MASTER} 127.0.0.1 {master_proxy.port} 1",
            f"sentinel auth-pass {MASTER} {PASSWORD}",
            sentinel=True,
        ) as sentinel,
        TlsProxy(sentinel.port, ca) as sentinel_proxy,
    ):
        url = sentinel_url(sentinel_proxy.port, "rediss", f"&ssl_ca_certs={ca.file}")
        cache, queue = RedisLeaseCache(url), CeleryQueue.connect(url)
        for act, least in ((cache.ping, 1), (queue.ping, 2)):
            act()
            assert master_proxy.tls_connections >= least
            assert sentinel_proxy.tls_connections >= least
        queue.close()
        cache.close()


def test_tls_with_a_private_ca(stack: Stack, tmp_path: Path) -> None:
    ours, another = PrivateCa(tmp_path / "ours"), PrivateCa(tmp_path / "another")
    with TlsProxy(stack.cache.port, ours) as proxy:
        base = stack.cache.url.replace("redis://", "rediss://").replace(
            str(stack.cache.port), str(proxy.port)
        )
        answers(f"{base}?ssl_ca_certs={ours.file}")
        for wrong in (base, f"{base}?ssl_ca_certs={another.file}"):
            is_refused(wrong)


def test_tls_checks_the_servers_name(stack: Stack, tmp_path: Path) -> None:
    ca = PrivateCa(tmp_path / "ca")
    with TlsProxy(stack.cache.port, ca, address="127.0.0.9") as proxy:
        base = stack.cache.url.replace("redis://", "rediss://").replace(
            str(stack.cache.port), str(proxy.port)
        )
        is_refused(f"{base}?ssl_ca_certs={ca.file}")
        answers(f"{base}?ssl_ca_certs={ca.file}&ssl_check_hostname=false")


def test_tls_with_a_certificate_of_the_client(stack: Stack, tmp_path: Path) -> None:
    ca = PrivateCa(tmp_path / "ca")
    certificate, key = ca.issue("client")
    with TlsProxy(stack.cache.port, ca, ask_client=True) as proxy:
        base = stack.cache.url.replace("redis://", "rediss://").replace(
            str(stack.cache.port), str(proxy.port)
        )
        answers(f"{base}?ssl_ca_certs={ca.file}&ssl_certfile={certificate}&ssl_keyfile={key}")
        is_refused(f"{base}?ssl_ca_certs={ca.file}")


def answers(url: str) -> None:
    """The queue, the leases and the notices work there."""
    cache, board, queue = RedisLeaseCache(url), RedisNoticeBoard(url), CeleryQueue.connect(url)
    notice = Notice(uuid4(), None)
    cache.ping()
    queue.ping()
    queue.depths()
    with board.listen() as subscription:
        board.publish(notice)
        assert subscription.next(2.0) == notice
    for one in (queue, board, cache):
        one.close()


def is_refused(url: str) -> None:
    """Neither the queue nor the leases nor the notices talk to that server."""
    cache, board, queue = RedisLeaseCache(url), RedisNoticeBoard(url), CeleryQueue.connect(url)
    with pytest.raises(CacheUnavailable):
        cache.ping()
    with pytest.raises(CacheUnavailable):
        board.publish(Notice(uuid4(), None))
    with pytest.raises(QueueUnavailable):
        queue.ping()
    for one in (queue, board, cache):
        one.close()


def test_a_cluster_is_refused(stack: Stack, tmp_path: Path) -> None:
    bus = f"cluster-port {unused_port()}"  # its own choice, port + 10000, may be beyond the last port
    with valkey(stack, tmp_path / "cluster", "cluster-enabled yes", bus) as server:
        url = f"redis://127.0.0.1:{server.port}/0"
        cache, queue = RedisLeaseCache(url), CeleryQueue.connect(url)
        with pytest.raises(ConfigurationError, match="Cluster"):
            queue.ping()
        with pytest.raises(ConfigurationError, match="Cluster"):
            queue.validate("acme", "pii")
        with pytest.raises(CacheUnavailable, match="Cluster"):
            cache.ping()
        queue.close()
        cache.close()
