"""The worked example of docs/export.md: a customer leaves, with its own credentials and none of our code.

The scripts are those of the page, each in an isolated Python in which ``byok`` can't be imported.
"""

import base64
import csv
import io
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa

from byok.core import policies
from byok.core.key_export import export_associated_data
from byok.core.model import RotationReason
from byok.core.segments import SEGMENT_BYTES
from byok.embedded.stack import Stack
from byok.integrations.sqlalchemy import EncryptedString
from byok.services.fields import Cipher, token_info
from byok.simulator import ADMIN_ACCESS_KEY_PREFIX
from byok.wiring import Runtime
from tests.acceptance.tour import save_scripts
from tests.customers import Customer, add_key, join
from tests.scripts import run_script as run_with_byok

pytest.importorskip("tink")

GUIDE = Path(__file__).parents[2] / "docs" / "export.md"
# A customer's machine: byok is not there, and whatever the scripts import, nothing of it came along.
ALONE = """
import runpy, sys
sys.modules["byok"] = None
folder, script, *sys.argv[1:] = sys.argv[1:]
sys.path.insert(0, folder)
sys.argv[0] = script
runpy.run_path(f"{folder}/{script}", run_name="__main__")
assert not [name for name in sys.modules if name.startswith(("byok.", "workers", "celery"))]
"""
DJANGO = """
import django
from django.conf import settings

settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})
django.setup()
from django.db import connection, models
from byok import connect
from byok.integrations.django import EncryptedTextField

class Person(models.Model):
    email = EncryptedTextField(key="pii", tenant=lambda: "acme")

    class Meta:
        app_label = "people"

with connection.schema_editor() as editor:
    editor.create_model(Person)
Person.objects.create(email="grace@example.com")
with connection.cursor() as cursor:
    cursor.execute("SELECT email FROM people_person")
    print(bytes(cursor.fetchone()[0]).hex())
connection.close()
connect().close()
"""


@dataclass
class Machine:
    """A machine of somebody's, with the scripts of the page and that somebody's AWS credentials."""

    folder: Path
    environment: dict[str, str]

    def run(self, script: str, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-I", "-c", ALONE, str(self.folder), script, *arguments],
            input=stdin,
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            timeout=60,
            check=False,
        )

    def succeed(self, script: str, *arguments: str, stdin: bytes = b"") -> bytes:
        ended = self.run(script, *arguments, stdin=stdin)
        assert ended.returncode == 0, ended.stderr.decode()
        return ended.stdout


@dataclass
class HandedOver:
    """What a customer got from the vendor."""

    kms_key_arn: str
    associated_data: str
    files: list[str]

    @property
    def opening(self) -> tuple[str, ...]:
        """How each script is told what to open."""
        return (self.kms_key_arn, self.associated_data, *self.files)


@pytest.fixture
def customer(stack: Stack, runtime: Runtime) -> Customer:
    """A customer with a searchable key."""
    customer = join(stack, runtime, "acme")
    add_key(runtime, "acme")
    runtime.services.indexes.enable("acme", "pii", actor="test")
    return customer


@pytest.fixture
def cipher(runtime: Runtime, customer: Customer) -> Cipher:
    return runtime.services.vault.cipher("acme", "pii")


@pytest.fixture
def machine(stack: Stack, tmp_path: Path, customer: Customer) -> Machine:
    return machine_of(stack, tmp_path, customer)


def machine_of(stack: Stack, folder: Path, customer: Customer) -> Machine:
    save_scripts(GUIDE.read_text(), folder)
    environment = {
        "PATH": os.environ["PATH"],
        "AWS_ENDPOINT_URL": stack.simulator.url,
        "AWS_ACCESS_KEY_ID": ADMIN_ACCESS_KEY_PREFIX + customer.account.account_id,
        "AWS_SECRET_ACCESS_KEY": "simulator-not-a-secret",
    }
    return Machine(folder, environment)


def rotate(runtime: Runtime, cipher: Cipher) -> None:
    """Make a new version, and wait until this process encrypts under it."""
    requested = runtime.services.requests.request(
        "acme", "pii", reason=RotationReason.FORCED, requested_by="test"
    )
    done = runtime.services.rotations.run(requested.rotation.id)
    assert done is not None
    deadline = time.monotonic() + 30
    while token_info(cipher.encrypt(b"-", context=b"-")).version_number != done.version_number:
        assert time.monotonic() < deadline, "this process has not noticed the new version"
        time.sleep(0.05)


def handed_over(runtime: Runtime, customer: Customer, folder: Path) -> HandedOver:
    key = runtime.services.registry.show_key("acme", "pii").key
    bound_to = export_associated_data(customer.tenant.id, key.id)
    permissions = policies.role_permissions(customer.kms_key, customer.tenant.id)
    permissions["Statement"].append(policies.export_statement(customer.kms_key, bound_to.encode()))
    customer.account.put_role_policy("byok", permissions)
    exported = runtime.services.key_exporter.export("acme", "pii", actor="test")
    files = [f"acme.pii.keyset.{place}.json" for place, _ in enumerate(exported.keysets, start=1)]
    for file, keyset in zip(files, exported.keysets, strict=True):
        (folder / file).write_text(keyset.document)
    return HandedOver(exported.kms_key_arn, exported.associated_data, files)


def as_csv(rows: list[tuple[str, bytes]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows([(context, base64.b64encode(token).decode()) for context, token in rows])
    return text.getvalue().encode()


def rows_of(printed: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(printed.decode())))


def test_values_of_all_kinds_and_versions_open_with_a_stock_tink(
    stack: Stack, runtime: Runtime, customer: Customer, cipher: Cipher, machine: Machine
) -> None:
    tokens = [("users.email:1", cipher.encrypt(b"ada@example.com", context=b"users.email:1"))]
    rotate(runtime, cipher)
    users = sa.Table(
        "users",
        sa.MetaData(),
        sa.Column("email", EncryptedString("pii", lambda: "acme", runtime.services.vault)),
    )
    stored = sa.Table("users", sa.MetaData(), sa.Column("email", sa.LargeBinary))
    database = sa.create_engine("sqlite://")
    with database.begin() as connection:
        users.create(connection)
        connection.execute(users.insert().values(email='Zoë, "the" one'))
        tokens += [("users.email", connection.execute(sa.select(stored)).scalar_one())]
    database.dispose()
    rotate(runtime, cipher)
    django = run_with_byok(stack, "-W", "error", "-c", DJANGO)
    tokens += [("people_person.email", bytes.fromhex(django))]
    rotate(runtime, cipher)
    assert [token[4] for _, token in tokens] == [1, 2, 3]
    got = handed_over(runtime, customer, machine.folder)

    ended = machine.run("open_values.py", *got.opening, stdin=as_csv(tokens))
    assert (ended.returncode, ended.stderr) == (0, b"opened versions 1 2 3 4\n")
    assert rows_of(ended.stdout) == [
        ["users.email:1", "ada@example.com"],
        ["users.email", 'Zoë, "the" one'],
        ["people_person.email", "grace@example.com"],
    ]

    # On alone: encrypted anew under a keyset of its own, and the vendor's KMS key may go.
    own_kms_key = customer.account.create_key()
    anew = machine.succeed("new_keyset.py", own_kms_key, stdin=ended.stdout)
    customer.account.disable_key(customer.kms_key)
    opened = machine.succeed("open_values.py", own_kms_key, "my own keyset", "new.keyset.json", stdin=anew)
    assert opened == ended.stdout
    refused = machine.run("open_values.py", *got.opening, stdin=as_csv(tokens))
    assert refused.returncode != 0
    assert b"DisabledException" in refused.stderr


def test_more_versions_than_one_keyset_holds_open_all_the_same(
    runtime: Runtime,
    customer: Customer,
    cipher: Cipher,
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("byok.core.key_export.VERSIONS_PER_KEYSET", 2)
    tokens = []
    for number in range(1, 5):
        tokens.append(
            (f"users.email:{number}", cipher.encrypt(b"ada", context=f"users.email:{number}".encode()))
        )
        rotate(runtime, cipher)
    got = handed_over(runtime, customer, machine.folder)
    assert len(got.files) == 4
    ended = machine.run("open_values.py", *got.opening, stdin=as_csv(tokens))
    assert ended.stderr == b"opened versions 1 2 3 4 5\n"
    assert [value for _, value in rows_of(ended.stdout)] == ["ada"] * 4
    alone = machine.run("open_values.py", *got.opening[:3], stdin=as_csv(tokens))
    assert alone.returncode != 0
    assert alone.stdout.count(b"ada") == 1  # of the version that this keyset holds


@pytest.mark.parametrize("length", [0, 15, 2 * SEGMENT_BYTES])
def test_streams_open_with_a_stock_tink_and_a_derived_key(
    runtime: Runtime, customer: Customer, cipher: Cipher, machine: Machine, length: int
) -> None:
    plain, sealed = os.urandom(length), io.BytesIO()
    cipher.encrypt_stream(io.BytesIO(plain), sealed, context=b"exports/2026-11.csv")
    rotate(runtime, cipher)
    got = handed_over(runtime, customer, machine.folder)
    opening = (*got.opening[:2], "exports/2026-11.csv", *got.files)
    assert machine.succeed("open_stream.py", *opening, stdin=sealed.getvalue()) == plain
    wrong = (*got.opening[:2], "exports/2026-12.csv", *got.files)
    assert machine.run("open_stream.py", *wrong, stdin=sealed.getvalue()).returncode != 0
    assert machine.run("open_stream.py", *opening, stdin=sealed.getvalue()[:-1]).returncode != 0
    token = cipher.encrypt(plain, context=b"exports/2026-11.csv")
    assert b"this is no stream" in machine.run("open_stream.py", *opening, stdin=token).stderr


def test_rows_are_found_by_their_old_blind_indexes(
    runtime: Runtime, customer: Customer, cipher: Cipher, machine: Machine
) -> None:
    stored = cipher.blind_index("zoë@example.com".encode(), context=b"users.email")
    rotate(runtime, cipher)
    got = handed_over(runtime, customer, machine.folder)
    version = str(int.from_bytes(stored[:4], "big"))
    for value, is_found in (("zoë@example.com", True), ("eve@example.com", False)):
        asked = (*got.opening[:2], "users.email", value, version, *got.files)
        printed = machine.succeed("blind_index.py", *asked).decode().strip()
        assert (printed == stored.hex()) is is_found


def test_others_and_what_does_not_belong_together_are_refused(
    stack: Stack,
    runtime: Runtime,
    customer: Customer,
    cipher: Cipher,
    machine: Machine,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    token = cipher.encrypt(b"ada", context=b"users.email:1")
    got = handed_over(runtime, customer, machine.folder)
    row = as_csv([("users.email:1", token)])
    assert machine.run("open_values.py", *got.opening, stdin=row).returncode == 0

    def refused(by: Machine, opening: tuple[str, ...], stdin: bytes = row) -> str:
        ended = by.run("open_values.py", *opening, stdin=stdin)
        assert ended.returncode != 0
        assert b"ada" not in ended.stdout
        return ended.stderr.decode()

    other = machine_of(stack, tmp_path_factory.mktemp("other"), join(stack, runtime, "globex"))
    (other.folder / got.files[0]).write_bytes((machine.folder / got.files[0]).read_bytes())
    assert "AccessDeniedException" in refused(other, got.opening)
    assert "InvalidCiphertextException" in refused(
        machine, (got.kms_key_arn, f"{got.associated_data}0", *got.files)
    )
    another_key = customer.account.create_key()
    assert re.search(
        "IncorrectKeyException|InvalidCiphertextException",
        refused(machine, (another_key, *got.opening[1:])),
    )
    for wrong in (("users.email:2", token), ("users.email:1", token[:-1] + bytes([token[-1] ^ 1]))):
        assert "TinkError" in refused(machine, got.opening, as_csv([wrong]))
    unknown = b"\x01\x00\x00\x00\x09" + token[5:]
    assert "KeyError: 9" in refused(machine, got.opening, as_csv([("users.email:1", unknown)]))
