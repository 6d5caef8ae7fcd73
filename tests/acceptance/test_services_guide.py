"""The guide for services does what it says: its examples, one after the other, in one process."""

import re
from pathlib import Path

from byok.embedded.stack import Stack
from byok.wiring import Runtime
from tests.customers import add_key, join
from tests.scripts import run_script

GUIDE = Path(__file__).parents[2] / "docs" / "services.md"

BEFORE = """
import django
import sqlalchemy
from django.conf import settings

settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})
django.setup()
engine = sqlalchemy.create_engine("sqlite://")
"""

AFTER = """
from django.db import connection

with connection.schema_editor() as editor:
    editor.create_model(Customer)
Customer.objects.create(email="ada@example.com")
assert Customer.objects.get().email == "ada@example.com"
connection.close()
engine.dispose()
vault.close()
"""


def test_every_example_runs(stack: Stack, runtime: Runtime) -> None:
    join(stack, runtime, "acme")
    add_key(runtime, "acme")
    examples = re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(examples) == 5
    run_script(stack, "-W", "error", "-c", "\n".join([BEFORE, *examples, AFTER]))
