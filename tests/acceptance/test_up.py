"""``byok up`` runs everything until Ctrl-C, keeps its data, and shows no open door."""

import base64
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from byok.settings import child_environment
from tests.watched import Watched

pytestmark = pytest.mark.slow
COMMAND = [sys.executable, "-c", "from byok.cli.main import main; import sys; sys.argv[1:] = ['up']; main()"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def start(home: Path, **more: str) -> Watched:
    environment = {"BYOK_HOME": str(home), "COLUMNS": "200", **more}
    watched = Watched(COMMAND, str(home), child_environment(environment))
    watched.wait_for_line("byok is up")
    return watched


@pytest.fixture
def up(home: Path) -> Iterator[Watched]:
    watched = start(home)
    yield watched
    watched.close()


def in_another_terminal(home: Path, command: str) -> str:
    script = f"source {home}/env && {sys.executable} -m byok.cli {command}"
    ended = subprocess.run(
        ["bash", "-c", script], env=child_environment({}), capture_output=True, check=False
    )
    return ended.stdout.decode() + ended.stderr.decode()


def test_another_terminal_uses_the_stack_and_data_survive_a_restart(up: Watched, home: Path) -> None:
    assert "passed" in in_another_terminal(home, "doctor")
    assert "FAILED" not in in_another_terminal(home, "doctor")
    assert "registered" in in_another_terminal(home, "tenant add acme")
    second = subprocess.run(
        COMMAND, env=child_environment({"BYOK_HOME": str(home)}), capture_output=True, check=False
    )
    assert b"another stack runs" in second.stderr
    up.process.send_signal(signal.SIGINT)
    up.process.wait(30)
    up.assert_nothing_left(within_seconds=5)
    assert not (home / "env").exists()
    again = start(home)
    assert "acme" in in_another_terminal(home, "tenant list")
    again.process.send_signal(signal.SIGTERM)
    again.process.wait(30)
    again.assert_nothing_left(within_seconds=5)
    again.close()


def test_the_worker_is_told_of_the_applications_database(home: Path) -> None:
    url = "postgresql+psycopg://nobody@127.0.0.1:9/crm"
    watched = start(home, BYOK_APPLICATION_DATABASE_URL=url)
    told = [
        child.environ().get("BYOK_APPLICATION_DATABASE_URL")
        for child in watched.descendants.values()
        if child.is_running() and "worker" in child.cmdline()
    ]
    watched.process.send_signal(signal.SIGTERM)
    watched.process.wait(30)
    watched.close()
    assert told
    assert set(told) == {url}


def test_flower_asks_for_a_password(up: Watched, home: Path) -> None:
    assert up.process.stdout is not None
    panel = up.process.stdout.readline().decode()
    found = re.search(r"(http://127\.0\.0\.1:\d+).*user byok, password ([\w-]+)\)", panel)
    assert found is not None, panel
    url, password = found.groups()
    for page in ("/", "/tasks", "/api/workers"):
        with pytest.raises(HTTPError) as caught:
            urlopen(url + page, timeout=10)
        assert caught.value.code == 401
        caught.value.close()
    token = base64.b64encode(f"byok:{password}".encode()).decode()
    with urlopen(Request(url + "/workers", headers={"Authorization": f"Basic {token}"}), timeout=10) as page:
        assert page.status == 200
