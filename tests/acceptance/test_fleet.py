"""The story with real processes: a worker, a Beat, and services that enqueue."""

import base64
import os
import re
import subprocess
import threading
from datetime import timedelta
from uuid import uuid4

import pytest
import redis
from celery import Celery

from byok.core.metric_list import Origin
from byok.core.model import TenantState
from byok.crypto.keyring import MasterKeyRing
from byok.embedded.servers import _postgres_bin
from byok.errors import AccessStopped
from byok.services.records import Records
from tests.acceptance.conftest import Fleet
from tests.customers import Customer, join
from tests.metric_pages import assert_agrees, read_page, value

pytestmark = pytest.mark.slow


@pytest.fixture
def customer(fleet: Fleet) -> Customer:
    """A customer of its own for each test, with a key that the worker made."""
    customer = join(fleet.stack, fleet.runtime, f"t-{uuid4().hex[:12]}")
    fleet.runtime.services.registry.create_key(
        customer.name, "pii", rotation_period=timedelta(hours=1), lease_ttl=timedelta(minutes=5), actor="test"
    )
    fleet.wait_until(lambda: fleet.states(customer.name) == ["active"])
    return customer


def test_an_enqueued_rotation_is_done_by_the_worker(fleet: Fleet, customer: Customer) -> None:
    cipher = fleet.runtime.services.vault.cipher(customer.name, "pii")
    token = cipher.encrypt(b"ada@example.com", context=b"users.email:1")
    fleet.runtime.services.vault.request_rotation(customer.name, "pii")
    fleet.wait_until(lambda: fleet.states(customer.name) == ["retired", "active"])
    assert cipher.decrypt(token, context=b"users.email:1") == b"ada@example.com"


def test_beat_rotates_what_is_due(fleet: Fleet, customer: Customer) -> None:
    fleet.runtime.services.registry.set_rotation(
        customer.name, "pii", actor="test", next_in=timedelta(seconds=0)
    )
    fleet.wait_until(lambda: fleet.states(customer.name) == ["retired", "active"])
    versions = fleet.runtime.services.registry.show_key(customer.name, "pii").versions
    assert versions[1].reason.value == "scheduled"
    assert versions[1].requested_by == "schedule"


def test_an_application_without_byok_enqueues_by_name_and_twice_is_once(
    fleet: Fleet, customer: Customer
) -> None:
    stranger = Celery("stranger", broker=fleet.stack.environment["BYOK_BROKER_URL"], set_as_current=False)
    arguments = {"tenant": customer.name, "key": "pii", "idempotency_key": "deploy-7"}
    for _ in range(3):
        stranger.send_task("byok.keys.rotate", kwargs=arguments, queue="rotate.forced")
    same_message = str(uuid4())
    for _ in range(2):  # a message that is delivered twice keeps its id
        stranger.send_task(
            "byok.keys.rotate",
            kwargs={"tenant": customer.name, "key": "pii"},
            queue="rotate.forced",
            task_id=same_message,
        )
    stranger.send_task("byok.keys.validate", kwargs={"tenant": customer.name, "key": "pii"}, queue="validate")
    stranger.close()
    fleet.wait_until(lambda: fleet.runtime.queue.depths() == dict.fromkeys(fleet.runtime.queue.depths(), 0))
    show = fleet.runtime.services.registry.show_key
    fleet.wait_until(lambda: not any(one.is_open for one in show(customer.name, "pii").rotations))
    rotations = show(customer.name, "pii").rotations
    # The first version, and one rotation for each of the two requests, unless the second joined the first.
    assert len(rotations) in (2, 3)
    assert len(fleet.states(customer.name)) == len(rotations)


def test_the_contract_of_tasks_by_name_bears_older_and_newer_senders(
    fleet: Fleet, customer: Customer
) -> None:
    stranger = Celery("stranger", broker=fleet.stack.environment["BYOK_BROKER_URL"], set_as_current=False)

    def send(*args: str, **kwargs: object) -> None:
        stranger.send_task("byok.keys.rotate", args=args, kwargs=kwargs, queue="rotate.forced")

    send(customer.name, "pii", idempotency_key="by-position", requested_by="billing")
    fleet.wait_until(lambda: fleet.states(customer.name) == ["retired", "active"])
    send(tenant=customer.name, key="pii", idempotency_key="newer", colour="from the future")
    fleet.wait_until(lambda: fleet.states(customer.name) == ["retired", "retired", "active"])
    send(tenant=customer.name, key="pii", reason="whim")  # refused, and nothing recorded
    send(tenant=customer.name, key="pii", rotation_id="not-an-id")
    send(tenant=customer.name, key="pii", idempotency_key="by-position")  # late, and known
    stranger.close()
    fleet.wait_until(lambda: "not the id of a rotation" in fleet.worker.log_file.read_text())
    fleet.wait_until(lambda: fleet.runtime.queue.backlog() == 0)
    log = fleet.worker.log_file.read_text()
    assert "'colour'" in log
    assert "from the future" not in next(line for line in log.splitlines() if "unknown_arguments" in line)
    assert "'whim' is not a reason for a rotation" in log
    details = fleet.runtime.services.registry.show_key(customer.name, "pii")
    assert len(details.versions) == len(details.rotations) == 3
    assert details.versions[1].requested_by == "billing"


def test_a_worker_serves_its_metrics(fleet: Fleet, customer: Customer) -> None:
    port = fleet.runtime.settings.metrics_port
    assert port is not None
    page = read_page(port)
    assert 'byok_rotations_total{reason="initial",state="done"}' in page
    assert 'byok_rotations_total{reason="forced",state="failed"} 0.0' in page
    assert_agrees(page, Origin.PROCESS)
    assert customer.name not in page
    assert (value(page, "byok_kms_request_seconds_count", operation="AssumeRole") or 0) > 0
    assert (value(page, "byok_rotation_step_seconds_count", step="promote") or 0) > 0
    assert (value(page, "byok_rotation_seconds_count", reason="initial") or 0) > 0


def test_the_probe_stops_a_revoked_tenant_and_lets_it_come_back(fleet: Fleet, customer: Customer) -> None:
    cipher = fleet.runtime.services.vault.cipher(customer.name, "pii")
    token = cipher.encrypt(b"x", context=b"c")

    def is_stopped() -> bool:
        try:
            cipher.decrypt(token, context=b"c")
        except AccessStopped:
            return True
        return False

    customer.account.disable_key(customer.kms_key)
    fleet.wait_until(is_stopped, timeout_seconds=10)
    tenant, _ = fleet.runtime.services.registry.show_tenant(customer.name)
    assert tenant.state is TenantState.SUSPENDED
    assert tenant.suspension is not None
    assert tenant.suspension.aws_code == "DisabledException"
    customer.account.enable_key(customer.kms_key)
    fleet.wait_until(lambda: not is_stopped(), timeout_seconds=10)


def test_no_plaintext_key_or_pii_in_any_dump_log_or_message(fleet: Fleet, customer: Customer) -> None:
    stack, services = fleet.stack, fleet.runtime.services
    seen_on_the_wire = _monitor(stack.environment["BYOK_BROKER_URL"])
    events = _capture_events(stack.environment["BYOK_BROKER_URL"])
    pii = [f"needle-{uuid4().hex}@example.com".encode() for _ in range(10)]
    cipher = services.vault.cipher(customer.name, "pii")
    tokens = [cipher.encrypt(value, context=b"users.email:1") for value in pii]
    services.vault.request_rotation(customer.name, "pii")
    fleet.wait_until(lambda: fleet.states(customer.name) == ["retired", "active"])
    customer.account.disable_key(customer.kms_key)  # the paths of failure log more
    fleet.wait_until(lambda: services.registry.show_tenant(customer.name)[0].state is TenantState.SUSPENDED)
    customer.account.enable_key(customer.kms_key)
    fleet.wait_until(lambda: services.registry.show_tenant(customer.name)[0].state is TenantState.ACTIVE)
    for token, plaintext in zip(tokens, pii, strict=True):
        assert cipher.decrypt(token, context=b"users.email:1") == plaintext

    needles = {f"pii {number}": value for number, value in enumerate(pii)}
    for number, secret in enumerate(_secrets(fleet, customer), start=1):
        needles |= _spellings(f"secret of version {number}", secret)
    master_key = base64.b64decode(stack.environment["BYOK_MASTER_KEYS"].partition(":")[2])
    needles |= _spellings("master key", master_key)
    haystacks = {
        "database dump": _dump_database(stack.environment["BYOK_DATABASE_URL"]),
        "cache dump": _dump_redis(stack.environment["BYOK_CACHE_URL"]),
        "broker dump": _dump_redis(stack.environment["BYOK_BROKER_URL"]),
        "broker traffic": seen_on_the_wire(),
        "events": events(),
        **{f"log {path.name}": path.read_bytes() for path in stack.home.log_folder.glob("*.log")},
    }
    assert b"byok.keys.rotate" in haystacks["broker traffic"]
    assert b"task-succeeded" in haystacks["events"]
    assert customer.name.encode() in haystacks["database dump"]
    assert b"byok:lease:" in haystacks["cache dump"]
    assert b"rotation_done" in haystacks["log worker.log"]
    found = [
        f"{name} in {where}"
        for where, haystack in haystacks.items()
        for name, needle in needles.items()
        if needle in haystack
    ]
    assert found == []


def _secrets(fleet: Fleet, customer: Customer) -> list[bytes]:
    """The secrets of all versions, by the customer's KMS."""
    master_keys = MasterKeyRing.parse(fleet.stack.environment["BYOK_MASTER_KEYS"], os.urandom)
    records = Records(fleet.runtime.kms, master_keys)
    secrets = []
    for version in fleet.runtime.services.registry.show_key(customer.name, "pii").versions:
        with records.unwrap(customer.tenant, version).secret.borrow() as raw:
            secrets.append(bytes(raw))
    return secrets


def _spellings(name: str, secret: bytes) -> dict[str, bytes]:
    """A secret as it could turn up: raw, in hexadecimal, in base64, as Python prints bytes."""
    return {
        f"{name} (raw)": secret,
        f"{name} (hex)": secret.hex().encode(),
        f"{name} (base64)": base64.b64encode(secret).rstrip(b"="),
        f"{name} (url-safe)": base64.urlsafe_b64encode(secret).rstrip(b"="),
        f"{name} (repr)": repr(secret)[2:-1].encode(),
    }


def _dump_database(url: str) -> bytes:
    program = _postgres_bin() / "pg_dump"
    command = [str(program), "--inserts", url.replace("+psycopg", "")]
    dump = subprocess.run(command, capture_output=True, check=True).stdout
    # bytea is dumped in hexadecimal: look at the bytes as well
    return dump + b"".join(
        bytes.fromhex(word.decode()) for word in _hexadecimal_words(dump) if len(word) % 2 == 0
    )


def _hexadecimal_words(dump: bytes) -> list[bytes]:
    return re.findall(rb"\\x([0-9a-f]+)", dump)


def _dump_redis(url: str) -> bytes:
    connection = redis.Redis.from_url(url)
    found = []
    for key in connection.scan_iter():
        kind = connection.type(key)
        value = connection.get(key) if kind == b"string" else connection.dump(key)
        found.append(key + b" " + (value if isinstance(value, bytes) else b""))
    connection.close()
    return b"\n".join(found)


class _Tap:
    """Collects in a thread until it is read."""

    def __init__(self) -> None:
        self.collected: list[bytes] = []
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        raise NotImplementedError

    def __call__(self) -> bytes:
        self.stopped.set()
        self.thread.join(5)
        return b"\n".join(self.collected)


class _monitor(_Tap):  # noqa: N801  # used as a function
    """Every command that the broker sees."""

    def __init__(self, url: str) -> None:
        self.connection = redis.Redis.from_url(url, socket_timeout=0.5)
        super().__init__()

    def run(self) -> None:
        with self.connection.monitor() as monitor:  # type: ignore[no-untyped-call]  # redis-py
            while not self.stopped.is_set():
                try:
                    self.collected.append(repr(monitor.next_command()).encode())
                except redis.TimeoutError:
                    continue
        self.connection.close()


class _capture_events(_Tap):  # noqa: N801  # used as a function
    """Every event that Flower would see."""

    def __init__(self, url: str) -> None:
        self.app = Celery("watcher", broker=url, set_as_current=False)
        super().__init__()

    def run(self) -> None:
        with self.app.connection_for_read() as connection:
            receiver = self.app.events.Receiver(
                connection, handlers={"*": lambda event: self.collected.append(repr(event).encode())}
            )
            while not self.stopped.is_set():
                try:
                    receiver.capture(limit=None, timeout=0.5, wakeup=False)
                except TimeoutError:
                    continue
