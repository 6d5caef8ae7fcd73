"""`byok flower` says in one line why it does not start."""

import socket
import subprocess
import sys

import pytest

from byok.settings import child_environment

GOOD = "ops:u7Jq-x0pTz_4VbN2wLs"


def flower(**environment: str) -> subprocess.CompletedProcess[str]:
    given = {"BYOK_BROKER_URL": "redis://127.0.0.1:1/0", "COLUMNS": "300", **environment}
    command = [sys.executable, "-m", "byok.cli", "flower"]
    return subprocess.run(
        command, env=child_environment(given), capture_output=True, text=True, timeout=30, check=False
    )


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "open to everybody"),
        ({"FLOWER_BASIC_AUTH": ""}, "open to everybody"),
        ({"BYOK_ENV": "dev", "BYOK_FLOWER_ADDRESS": "0.0.0.0"}, "open to everybody"),
        ({"FLOWER_BASIC_AUTH": "user:password"}, "has less than 15 characters"),
        ({"FLOWER_BASIC_AUTH": GOOD, "FLOWER_UNAUTHENTICATED_API": "true"}, "byok decides this itself"),
        ({"FLOWER_BASIC_AUTH": GOOD, "BYOK_FLOWER_ADDRESS": "::"}, "without TLS"),
        ({"FLOWER_BASIC_AUTH": GOOD, "BYOK_FLOWER_URL_PREFIX": "a b"}, "BYOK_FLOWER_URL_PREFIX"),
        ({"FLOWER_BASIC_AUTH": GOOD, "BYOK_BROKER_URL": "amqp://h"}, "BYOK_BROKER_URL"),
    ],
)
def test_what_is_not_safe_does_not_start(environment: dict[str, str], message: str) -> None:
    ended = flower(**environment)
    assert ended.returncode == 78
    assert message in ended.stderr
    assert "[configuration]" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = flower(FLOWER_BASIC_AUTH=GOOD, BYOK_FLOWER_PORT=str(port))
    assert ended.returncode == 78
    assert f"can't listen on 127.0.0.1:{port}" in ended.stderr
