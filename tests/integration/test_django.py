"""The Django field over real PostgreSQL and SQLite, in a process of its own: Django is set up only once."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from byok.embedded.stack import Stack
from byok.wiring import Runtime
from tests.customers import add_key, join
from tests.scripts import run_script

SCRIPT = Path(__file__).with_name("django_script.py")


@pytest.mark.parametrize("database", ["postgresql", "sqlite"])
def test_the_field(stack: Stack, runtime: Runtime, engine: sa.Engine, database: str, tmp_path: Path) -> None:
    for name in ("acme", "globex"):
        join(stack, runtime, name)
        add_key(runtime, name)
    place = (
        stack.environment["BYOK_DATABASE_URL"] if database == "postgresql" else str(tmp_path / "db.sqlite3")
    )
    assert run_script(stack, "-W", "error", str(SCRIPT), database, place) == "passed\n"
