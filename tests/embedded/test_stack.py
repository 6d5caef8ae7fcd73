"""The embedded stack starts, keeps its data, and never leaves a process behind."""

import os
import random
import signal
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from byok.embedded.home import Home
from byok.embedded.stack import Stack
from byok.embedded.supervisor import Supervisor
from byok.errors import StackUnavailable
from tests.watched import Watched, command_line

RUN_STACK = """
import sys, time
from pathlib import Path
from byok.embedded.stack import Stack
from byok.embedded.supervisor import stop_signals
with stop_signals(), Stack(Path(sys.argv[1]), durable=False) as stack:
    stack.supervisor.spawn("stubborn", ["/bin/sh", "-c", "trap '' TERM INT; sleep 600 & wait; sleep 600"], {},
                           stop_timeout_seconds=0.5, emergency_signal=9)
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    home = str(tmp_path / "home")
    one = Watched([sys.executable, "-c", RUN_STACK, home], folder=home)
    yield one
    one.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_no_process_is_left_when_the_supervisor_ends(watched: Watched, number: signal.Signals) -> None:
    watched.wait_for_line("ready")
    assert len(watched.left()) >= 6
    watched.process.send_signal(number)
    watched.process.wait(20)
    watched.assert_nothing_left(within_seconds=20)
    assert not (Path(watched.folder) / "pg" / "postmaster.pid").exists()  # PostgreSQL was shut down in order


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("part", range(5))
def test_no_process_is_left_when_the_start_is_cut_off(
    watched: Watched, part: int, number: signal.Signals
) -> None:
    time.sleep(0.15 + 0.3 * part + random.random() * 0.3)
    watched.process.send_signal(number)
    watched.process.wait(30)
    watched.assert_nothing_left(within_seconds=20)
    with Stack(Path(watched.folder), durable=False):  # and what it left on disk does not stand in the way
        pass


def test_the_second_ctrl_c_hurries_the_stop(watched: Watched) -> None:
    watched.wait_for_line("ready")
    for _ in range(2):
        watched.process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    watched.process.wait(20)
    watched.assert_nothing_left(within_seconds=20)


def test_data_ports_and_secrets_survive_a_restart(tmp_path: Path) -> None:
    with Stack(tmp_path / "home") as stack:
        first = stack.environment
        url = stack.postgres.url.replace("+psycopg", "")
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
        broker = redis.Redis.from_url(stack.broker.url)
        broker.set("kept", "7")
        broker.close()
    with Stack(tmp_path / "home") as stack:
        assert stack.environment == first
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT number FROM kept").fetchone() == (7,)
        broker = redis.Redis.from_url(stack.broker.url)
        assert broker.get("kept") == b"7"
        assert broker.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        broker.close()
        cache = redis.Redis.from_url(stack.cache.url)
        assert cache.config_get("maxmemory-policy") == {"maxmemory-policy": "volatile-ttl"}
        cache.close()


def test_one_stack_a_home(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.open()
    with pytest.raises(StackUnavailable, match="another stack runs"):
        Stack(tmp_path / "home").start()
    home.close()


def test_a_folder_of_another_major_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home" / "pg").mkdir(parents=True)
    (tmp_path / "home" / "pg" / "PG_VERSION").write_text("15\n")
    with pytest.raises(StackUnavailable, match="belongs to PostgreSQL 15"):
        Stack(tmp_path / "home").start()


def test_only_the_owner_can_read_the_home(stack: Stack) -> None:
    home = stack.home.path
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    for name in ("secrets", "env", "lock", "broker/valkey.conf"):
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o600
    assert not (home / "pg-password").exists()


def test_passwords_are_asked_for_and_stand_in_no_command_line(stack: Stack) -> None:
    for url in (stack.broker.url, stack.cache.url):
        stranger = redis.Redis.from_url(url.replace(url[url.index(":", 8) : url.index("@")], ":wrong"))
        with pytest.raises(redis.AuthenticationError):
            stranger.ping()
        stranger.close()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(f"postgresql://byok:wrong@127.0.0.1:{stack.postgres.port}/byok")
    secrets = [stack.home.secret(name) for name in ("postgres", "broker", "cache")]
    for child in stack.supervisor.children:
        shown = command_line(psutil.Process(child.process.pid))
        assert not any(secret in shown for secret in secrets)


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user starts PostgreSQL as itself")
def test_as_root_postgresql_runs_without_privileges(stack: Stack) -> None:
    assert stack.postgres.child is not None
    pid = stack.postgres.child.process.pid
    mapping = Path(f"/proc/{pid}/uid_map").read_text().split()
    runs_as_nobody = psutil.Process(pid).uids().effective == 65534
    assert runs_as_nobody or mapping == ["65534", "0", "1"]


def test_a_server_that_fails_says_why(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path)
    try:
        with pytest.raises(StackUnavailable, match="broken failed: no such luck"):
            supervisor.run("broken", ["/bin/sh", "-c", "echo no such luck; exit 3"], {})
        child = supervisor.spawn("short", ["/bin/sh", "-c", "echo gone"], {})
        with pytest.raises(StackUnavailable, match="short ended at its start"):
            supervisor.wait_for_line(child, "never")
        assert supervisor.ended_child() is child
    finally:
        supervisor.close()
