"""The embedded stack starts, keeps its data, and never leaves a process behind."""

import os
import random
import signal
import stat
import subprocess
import sys
import threading
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


class Watched:
    """A supervisor in a process of its own, and everything that descends from it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.descendants: dict[int, psutil.Process] = {}
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN_STACK, str(home)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        try:
            parent = psutil.Process(self.process.pid)
            while True:
                self.descendants |= {one.pid: one for one in parent.children(recursive=True)}
                time.sleep(0.005)
        except psutil.NoSuchProcess:
            return

    def wait_ready(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    def left(self) -> list[str]:
        """What is still there: descendants that were seen, and processes at work in the home folder."""
        found = [one for one in self.descendants.values() if _lives(one)]
        found += [one for one in psutil.process_iter() if _lives(one) and _works_in(one, str(self.home))]
        return [f"{one.pid} {_cmdline(one)}" for one in found]

    def assert_nothing_left(self, within_seconds: float) -> None:
        deadline = time.monotonic() + within_seconds
        while (left := self.left()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert left == []


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _cmdline(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return "?"


def _works_in(process: psutil.Process, home: str) -> bool:
    if process.pid == os.getpid():
        return False
    try:
        return home in _cmdline(process) or process.cwd().startswith(home)
    except psutil.Error:
        return False


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    one = Watched(tmp_path / "home")
    yield one
    if one.process.poll() is None:
        one.process.kill()
    one.process.wait()
    assert one.process.stdout is not None
    one.process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_no_process_is_left_when_the_supervisor_ends(watched: Watched, number: signal.Signals) -> None:
    watched.wait_ready()
    assert len(watched.left()) >= 6
    watched.process.send_signal(number)
    watched.process.wait(20)
    watched.assert_nothing_left(within_seconds=20)
    assert not (watched.home / "pg" / "postmaster.pid").exists()  # PostgreSQL was shut down in order


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("part", range(5))
def test_no_process_is_left_when_the_start_is_cut_off(
    watched: Watched, part: int, number: signal.Signals
) -> None:
    time.sleep(0.15 + 0.3 * part + random.random() * 0.3)
    watched.process.send_signal(number)
    watched.process.wait(30)
    watched.assert_nothing_left(within_seconds=20)
    with Stack(watched.home, durable=False):  # and what it left on disk does not stand in the way
        pass


def test_the_second_ctrl_c_hurries_the_stop(watched: Watched) -> None:
    watched.wait_ready()
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
        shown = _cmdline(psutil.Process(child.process.pid))
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
