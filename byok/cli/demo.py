"""``byok demo``: the whole story of the product, on real servers and real worker processes."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import track

from byok.cli.keys import versions_table
from byok.cli.output import console, findings_table
from byok.core import policies
from byok.core.arns import RoleArn
from byok.core.model import TenantState, VersionState
from byok.errors import AccessStopped, CannotDecrypt, StackUnavailable

if TYPE_CHECKING:
    from byok.embedded.stack import Stack
    from byok.simulator.customer import CustomerAccount
    from byok.wiring import Services

_CUSTOMERS = {"acme": "222222222222", "globex": "333333333333"}
_VALUES = 1_000
_TIMEOUT_SECONDS = 30.0
# Beat ticks fast, so that nobody waits for the story to go on.
_PACE = {
    "BYOK_DISPATCH_INTERVAL_SECONDS": "1",
    "BYOK_SWEEP_INTERVAL_SECONDS": "5",
    "BYOK_PROBE_INTERVAL_SECONDS": "1",
    "BYOK_RECHECK_SECONDS": "1",
}


def demo() -> None:
    """Tell the whole story on the embedded stack, in one terminal, then stop everything."""
    # Imported on use: a production install has no servers to embed.
    from byok.cli import processes
    from byok.embedded.stack import Stack
    from byok.embedded.supervisor import stop_signals
    from byok.settings import load_settings, use_environment
    from byok.store import migrate
    from byok.wiring import build

    started = time.monotonic()
    with stop_signals(), tempfile.TemporaryDirectory(prefix="byok-demo-") as folder:
        _chapter("Real servers, from wheels: no Docker, nothing installed")
        with Stack(Path(folder) / "home", durable=False, on_step=_done) as stack:
            environment = stack.environment | _PACE
            use_environment(environment)
            runtime = build(load_settings())
            try:
                migrate.upgrade(runtime.engine)
                _done("database schema")
                worker = processes.start_worker(stack, environment)
                processes.start_beat(stack, environment)
                with _waiting("a Celery worker and Celery Beat, as processes of their own"):
                    processes.wait_for_worker(stack, worker)
                _Story(runtime.services, stack).tell()
            finally:
                runtime.close()
    console.print(f"\n[bold green]The end[/]: {time.monotonic() - started:.0f} s, everything stopped.")


class _Story:
    """The chapters, in order. Each shows what it claims, and raises if it does not come true."""

    def __init__(self, services: "Services", stack: "Stack") -> None:
        self._services = services
        self._stack = stack
        self._accounts: dict[str, CustomerAccount] = {}
        self._kms_keys: dict[str, str] = {}
        self._tokens: dict[str, list[bytes]] = {}

    def tell(self) -> None:
        """All chapters."""
        self._provision()
        self._create_keys()
        self._encrypt()
        self._rotate_by_force()
        self._rotate_by_schedule()
        self._decrypt_old_and_new()
        self._show_versions()
        self._keep_tenants_apart()
        self._revoke_and_restore()

    def _provision(self) -> None:
        from byok.simulator.customer import CustomerAccount

        _chapter("Two customers give access to a KMS key in their own AWS account")
        vendor_role = RoleArn.parse(self._stack.environment["BYOK_VENDOR_ROLE_ARN"])
        for name, account_id in _CUSTOMERS.items():
            tenant = self._services.onboarding.add_tenant(name, actor="demo")
            account = CustomerAccount(self._stack.simulator.url, account_id)
            kms_key = account.create_key()
            role = account.create_role(
                "byok",
                policies.trust_policy(vendor_role, tenant.external_id),
                policies.role_permissions(kms_key, tenant.id),
            )
            verification = self._services.onboarding.verify_tenant(
                name, actor="demo", kms_key_arn=kms_key, role_arn=role
            )
            _require(verification.passed, f"the connection of {name} passes")
            self._accounts[name], self._kms_keys[name] = account, kms_key
            _done(f"{name}: KMS key, role with external id; verified by these checks")
            console.print(findings_table(f"connection of {name}", verification.findings))

    def _create_keys(self) -> None:
        _chapter("Each gets a data key, generated and validated by a Celery task")
        for name in _CUSTOMERS:
            self._services.registry.create_key(
                name,
                "pii",
                rotation_period=timedelta(hours=1),
                lease_ttl=timedelta(seconds=60),
                actor="demo",
            )
        for name in _CUSTOMERS:
            with _waiting(f"{name}/pii: version 1 generated, validated and active"):
                self._wait_for_version(name, 1)

    def _encrypt(self) -> None:
        _chapter(f"A service encrypts {_VALUES:,} values for each")
        for name in _CUSTOMERS:
            cipher = self._services.vault.cipher(name, "pii")
            started = time.perf_counter()
            self._tokens[name] = [
                cipher.encrypt(_value(name, number), context=_context(number))
                for number in track(
                    range(_VALUES), f"  {name}", console=console, disable=not console.is_terminal
                )
            ]
            milliseconds = (time.perf_counter() - started) * 1000
            _done(f"{name}: {_VALUES:,} e-mail addresses encrypted in {milliseconds:.0f} ms")

    def _rotate_by_force(self) -> None:
        _chapter("A service enqueues a rotation")
        requested = self._services.vault.request_rotation("acme", "pii", requested_by="billing-service")
        with _waiting(f"acme/pii: rotation {requested.rotation.id} made version 2"):
            self._wait_for_version("acme", 2)

    def _rotate_by_schedule(self) -> None:
        _chapter("Beat rotates what is due")
        self._services.registry.set_rotation("globex", "pii", actor="demo", next_in=timedelta(seconds=2))
        console.print("  the shortest period is 1 hour, so globex/pii is set due in 2 seconds", style="dim")
        with _waiting("globex/pii: Beat found it due; a worker made version 2"):
            self._wait_for_version("globex", 2)

    def _decrypt_old_and_new(self) -> None:
        _chapter("Old and new ciphertexts both decrypt")
        for name in _CUSTOMERS:
            cipher = self._services.vault.cipher(name, "pii")
            new = cipher.encrypt(b"new@example.com", context=b"users.email:new")
            _require(new[1:5] == b"\x00\x00\x00\x02", "new data is under version 2")
            _require(cipher.decrypt(new, context=b"users.email:new") == b"new@example.com", "it decrypts")
            for number, token in enumerate(self._tokens[name]):
                opened = cipher.decrypt(token, context=_context(number))
                _require(opened == _value(name, number), "old data decrypts")
            _done(f"{name}: {_VALUES:,} values of version 1 and a new one of version 2")

    def _show_versions(self) -> None:
        _chapter("Every version tells why, who and when")
        for name in _CUSTOMERS:
            console.print(f"  {name}/pii")
            console.print(versions_table(self._services.registry.show_key(name, "pii")))

    def _keep_tenants_apart(self) -> None:
        _chapter("One tenant cannot open what another encrypted")
        try:
            self._services.vault.cipher("globex", "pii").decrypt(self._tokens["acme"][0], context=_context(0))
        except CannotDecrypt as error:
            _done(f"globex opens acme's ciphertext: {error.message}")
        else:
            raise StackUnavailable("a tenant opened another's ciphertext")

    def _revoke_and_restore(self) -> None:
        _chapter("acme disables its KMS key, and enables it again")
        cipher = self._services.vault.cipher("acme", "pii")
        self._accounts["acme"].disable_key(self._kms_keys["acme"])
        disabled_at = time.monotonic()
        with _waiting("acme's KMS key is disabled: encryption and decryption stop"):
            self._wait_until(lambda: _is_stopped(lambda: cipher.encrypt(b"x", context=b"c")))
            self._wait_until(
                lambda: _is_stopped(lambda: cipher.decrypt(self._tokens["acme"][0], context=_context(0)))
            )
        stopped_after = time.monotonic() - disabled_at
        tenant, _ = self._services.registry.show_tenant("acme")
        assert tenant.suspension is not None
        console.print(
            f"    within {stopped_after:.1f} s, evidence: {tenant.suspension.aws_code}, "
            f"KMS request {tenant.suspension.request_id}",
            style="dim",
            soft_wrap=True,
        )
        self._accounts["acme"].enable_key(self._kms_keys["acme"])
        with _waiting("acme's KMS key is enabled: access comes back by itself"):
            self._wait_until(
                lambda: self._services.registry.show_tenant("acme")[0].state is TenantState.ACTIVE
            )
            self._wait_until(lambda: not _is_stopped(lambda: cipher.encrypt(b"x", context=b"c")))
        opened = cipher.decrypt(self._tokens["acme"][0], context=_context(0))
        _require(opened == _value("acme", 0), "the first value decrypts again")

    def _wait_for_version(self, tenant: str, number: int) -> None:
        def is_active() -> bool:
            versions = self._services.registry.show_key(tenant, "pii").versions
            return len(versions) >= number and versions[number - 1].state is VersionState.ACTIVE

        self._wait_until(is_active)

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        while not condition():
            ended = self._stack.supervisor.ended_child()
            if ended is not None:
                raise StackUnavailable(f"{ended.name} ended: {ended.log_tail()}")
            if time.monotonic() > deadline:
                raise StackUnavailable(f"nothing happened for {_TIMEOUT_SECONDS:.0f} s")
            time.sleep(0.05)


def _is_stopped(use: Callable[[], object]) -> bool:
    try:
        use()
    except AccessStopped:
        return True
    return False


def _value(tenant: str, number: int) -> bytes:
    return f"user{number}@{tenant}.example".encode()


def _context(number: int) -> bytes:
    return f"users.email:{number}".encode()


def _chapter(title: str) -> None:
    console.print(f"\n[bold cyan]{title}[/]")


def _done(what: str) -> None:
    console.print(f"  [green]✓[/] {what}", soft_wrap=True)


@contextmanager
def _waiting(what: str) -> Iterator[None]:
    with console.status(f"  {what} …"):
        yield
    _done(what)


def _require(condition: bool, claim: str) -> None:
    if not condition:
        raise StackUnavailable(f"this did not come true: {claim}")
