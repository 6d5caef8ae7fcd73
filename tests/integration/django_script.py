"""Run by test_django.py: what the field does, with ``database`` and where it is as arguments."""

import contextlib
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import django
import pytest
import sqlalchemy as sa
from django.conf import settings

KIND, PLACE = sys.argv[1:]
if KIND == "postgresql":
    url = sa.make_url(PLACE)
    database: dict[str, Any] = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": url.database,
        "USER": url.username,
        "PASSWORD": url.password or "",
        "HOST": url.host or url.query.get("host"),
        "PORT": url.port or url.query.get("port", ""),
    }
else:
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": PLACE}
settings.configure(DATABASES={"default": database}, INSTALLED_APPS=[], DEBUG=True, USE_TZ=True)
django.setup()

from django.core import checks, serializers  # noqa: E402  # after the set-up
from django.db import connection, models  # noqa: E402
from django.db.migrations.writer import MigrationWriter  # noqa: E402

from byok import connect  # noqa: E402
from byok.errors import ByokError, CannotDecrypt, InvalidInput, NotComparable, NoTenant  # noqa: E402
from byok.integrations.django import EncryptedTextField  # noqa: E402

SECRET = "ada@example.com"
current_tenant: ContextVar[str] = ContextVar("current_tenant")


def tenant() -> str:
    return current_tenant.get()


class User(models.Model):
    email = EncryptedTextField(key="pii", tenant=tenant, null=True)
    note = EncryptedTextField(key="pii", tenant=tenant, default="none", db_column="remark")

    class Meta:
        app_label = "django_fields"
        db_table = "django_users"


@contextlib.contextmanager
def refused(kind: type[ByokError]) -> Iterator[None]:
    with pytest.raises(kind) as caught:
        yield
    assert SECRET not in str(caught.value)


def stored(column: str) -> bytes:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {column} FROM django_users")
        return bytes(cursor.fetchone()[0])


def check() -> None:
    user = User.objects.create(email=SECRET)
    cipher = connect().cipher("acme", "pii")
    assert cipher.decrypt(stored("email"), context=b"django_users.email") == SECRET.encode()
    assert cipher.decrypt(stored("remark"), context=b"django_users.remark") == b"none"
    assert User.objects.get().email == SECRET
    assert list(User.objects.values_list("email", "note")) == [(SECRET, "none")]

    user.email = None
    user.save()
    assert User.objects.filter(email__isnull=True).get().email is None
    User.objects.update(email="grace@example.com")
    user.refresh_from_db()
    assert user.email == "grace@example.com"
    user.note = "ä"
    User.objects.bulk_update([user], ["note"])
    assert User.objects.get().note == "ä"
    User.objects.bulk_create([User(email=SECRET) for _ in range(3)])
    assert User.objects.filter(email__isnull=False).count() == 4

    for query in ({"email": SECRET}, {"email__contains": "ada"}, {"email__in": [SECRET]}, {"email": None}):
        with refused(NotComparable):
            User.objects.filter(**query).exists()
    with refused(InvalidInput):
        User.objects.create(email=7)
    with refused(InvalidInput):
        EncryptedTextField(key="pii", tenant=tenant, unique=True)
    with refused(InvalidInput):
        serializers.serialize("json", User.objects.all())

    current_tenant.set("globex")
    with refused(CannotDecrypt):
        User.objects.first()
    current_tenant.set("")
    with refused(NoTenant):
        User.objects.first()
    with refused(NoTenant):
        User.objects.create(email=SECRET)
    current_tenant.set("acme")

    assert connection.queries
    assert not [query for query in connection.queries if SECRET in query["sql"]]

    _, path, args, options = User._meta.get_field("email").deconstruct()
    assert (path, args) == ("byok.integrations.django.EncryptedTextField", [])
    assert options == {"null": True, "key": "pii", "tenant": tenant}
    again = EncryptedTextField(*args, **options)
    assert again.deconstruct()[1:] == (path, args, options)
    written, _ = MigrationWriter.serialize(User._meta.get_field("email"))
    assert "byok.integrations.django.EncryptedTextField(key='pii'" in written
    assert checks.run_checks() == []
    assert User._meta.get_field("note").check() == []


current_tenant.set("acme")
with connection.schema_editor() as editor:
    editor.create_model(User)
try:
    check()
finally:
    with connection.schema_editor() as editor:
        editor.delete_model(User)
    connection.close()
    connect().close()
sys.stdout.write("passed\n")
