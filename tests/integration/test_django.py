"""The Django field over real PostgreSQL and SQLite, in a process of its own: Django is set up only once."""

import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from byok.embedded.stack import Stack
from byok.settings import child_environment
from byok.wiring import Runtime
from tests.customers import add_key, join

SCRIPT = Path(__file__).with_name("django_script.py")


@pytest.mark.parametrize("database", ["postgresql", "sqlite"])
def test_the_field(stack: Stack, runtime: Runtime, engine: sa.Engine, database: str, tmp_path: Path) -> None:
    for name in ("acme", "globex"):
        join(stack, runtime, name)
        add_key(runtime, name)
    place = (
        stack.environment["BYOK_DATABASE_URL"] if database == "postgresql" else str(tmp_path / "db.sqlite3")
    )
    ended = subprocess.run(
        [sys.executable, "-W", "error", str(SCRIPT), database, place],
        env=child_environment(stack.environment),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "passed\n"
