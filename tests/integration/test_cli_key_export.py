"""``byok key export`` and ``byok tenant policy --for``, over AWS as the simulator enforces it."""

import base64
import json
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from byok.cli.files import create_private
from byok.core import policies
from byok.core.model import RotationReason, TenantState
from byok.crypto.hazmat import SecretBytes
from byok.embedded.stack import Stack
from byok.errors import InvalidInput, KmsAccessRevoked
from byok.simulator import ADMIN_ACCESS_KEY_PREFIX
from byok.simulator.control import SimulatorControl
from byok.wiring import Runtime
from tests.customers import VENDOR, Customer, add_key, new_account
from tests.integration.test_cli import Byok, Result, acme, byok
from tests.integration.test_customer_provisions import shell_of

__all__ = ["acme", "byok"]  # fixtures

tink: Any = pytest.importorskip("tink")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where commands run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def admin(stack: Stack, acme: Customer, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """A shell of the customer's administrator."""
    return shell_of(stack, acme.account, tmp_path_factory.mktemp("admin"))


@pytest.fixture
def allowed(byok: Byok, acme: Customer) -> None:
    """The customer allowed the export of its key ``pii``."""
    added = policy(byok, "--for", "export", "--key", "pii").json()
    acme.account.put_role_policy(added["role_name"], added["inline_policy"], added["inline_policy_name"])


def policy(byok: Byok, *options: str) -> Result:
    return byok("tenant", "policy", "acme", *options)


def names(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


def opened(stack: Stack, acme: Customer, told: Any) -> list[Any]:
    """The keysets, as a stock Tink opens them with the customer's credentials."""
    from tink.integration import awskms

    client = boto3.client(
        "kms",
        region_name="eu-central-1",
        endpoint_url=stack.simulator.url,
        aws_access_key_id=ADMIN_ACCESS_KEY_PREFIX + acme.account.account_id,
        aws_secret_access_key="simulator-not-a-secret",
    )
    remote = awskms.new_client(boto3_client=client).get_aead(f"aws-kms://{told['kms_key_arn']}")
    return [
        tink.json_proto_keyset_format.parse_encrypted(
            Path(one["file"]).read_text(), remote, told["associated_data"].encode()
        ).keyset_info()
        for one in told["files"]
    ]


def test_the_customer_allows_it_the_vendor_exports_and_tink_opens(
    byok: Byok, stack: Stack, acme: Customer, folder: Path, allowed: None
) -> None:
    told = byok("key", "export", "acme", "pii", "--json").json()
    assert told["kms_key_arn"] == acme.kms_key
    assert told["associated_data"].startswith(f"byok/export/1/tenant/{acme.tenant.id}/key/")
    (file,) = told["files"]
    assert (file["file"], file["versions"]) == ("acme.pii.keyset.json", [1])
    assert stat.S_IMODE((folder / file["file"]).stat().st_mode) == 0o600
    assert names(folder) == ["acme.pii.keyset.json"]
    (info,) = opened(stack, acme, told)
    assert (info.primary_key_id, [key.key_id for key in info.key_info]) == (1, [1])
    audited = byok("audit", "log", "acme", "--json").json()[-1]
    assert audited["action"] == "key.exported"
    assert audited["details"]["kms_request_ids"] == file["kms_request_id"]


def test_people_are_told_what_comes_next(byok: Byok, acme: Customer, folder: Path, allowed: None) -> None:
    (folder / "handover").mkdir()
    shown = byok("key", "export", "acme", "pii", "--output", "handover").out
    assert "handover/acme.pii.keyset.json" in shown
    assert f"python open_values.py {acme.kms_key} byok/export/1/tenant/{acme.tenant.id}/key/" in shown
    assert "handover/acme.pii.keyset.json < /dev/null" in shown
    assert (folder / "handover" / "acme.pii.keyset.json").exists()


def test_without_the_right_it_prints_what_is_missing_and_suspends_nobody(
    byok: Byok, runtime: Runtime, acme: Customer, folder: Path, admin: Callable[..., str]
) -> None:
    export = ("--for", "export", "--key", "pii")
    refused = byok("key", "export", "acme", "pii")
    assert refused.exit_code == 9
    assert (
        "[kms-request-rejected] → the customer adds what byok tenant policy acme --for export" in refused.err
    )
    document, _, _ = refused.err.rpartition("byok: ")
    assert json.loads(document) == policy(byok, *export).json()
    assert names(folder) == []
    assert runtime.services.registry.show_tenant("acme")[0].state is TenantState.ACTIVE
    as_json = byok("key", "export", "acme", "pii", "--json")
    assert json.loads(as_json.err)["error"] == "kms-request-rejected"

    script = policy(byok, *export, "--format", "cli").out
    admin(script, "add")
    assert byok("key", "export", "acme", "pii").exit_code == 0
    (folder / "acme.pii.keyset.json").unlink()
    admin(script, "remove")  # taken back: as if it had never been given
    assert byok("key", "export", "acme", "pii").exit_code == 9


def test_the_right_is_for_this_export_alone_and_the_vendor_opens_none(
    runtime: Runtime, byok: Byok, acme: Customer, folder: Path, allowed: None
) -> None:
    connection = acme.tenant.connection
    assert connection is not None
    told = byok("key", "export", "acme", "pii", "--json").json()
    encrypted = base64.b64decode(json.loads(Path(told["files"][0]["file"]).read_text())["encryptedKeyset"])
    context = {"associatedData": told["associated_data"].encode().hex()}
    with pytest.raises(KmsAccessRevoked):
        runtime.kms.decrypt(connection, encrypted, context)
    add_key(runtime, "acme", "other")
    assert byok("key", "export", "acme", "other").exit_code == 9
    for wrong in ({}, {"associatedData": b"something".hex()}, context | {"more": "1"}):
        with pytest.raises(KmsAccessRevoked):
            runtime.kms.encrypt(connection, SecretBytes(bytes(32)), wrong)
    # Tink's envelope form asks KMS without any context: it would take a wider right (ADR 35).
    from tink import aead

    class Remote(aead.Aead):  # type: ignore[misc]  # tink is untyped
        def encrypt(self, plaintext: bytes, associated_data: bytes) -> bytes:
            assert connection is not None
            bound = {"associatedData": associated_data.hex()} if associated_data else {}
            return runtime.kms.encrypt(connection, SecretBytes(plaintext), bound).ciphertext

        def decrypt(self, ciphertext: bytes, associated_data: bytes) -> bytes:
            raise NotImplementedError

    aead.register()
    envelope = aead.KmsEnvelopeAead(aead.aead_key_templates.AES256_GCM, Remote())
    with pytest.raises(KmsAccessRevoked):
        envelope.encrypt(b"a keyset of any length", told["associated_data"].encode())


def test_more_versions_than_kms_encrypts_at_once(
    byok: Byok, stack: Stack, runtime: Runtime, acme: Customer, folder: Path, allowed: None
) -> None:
    for _ in range(39):
        requested = runtime.services.requests.request(
            "acme", "pii", reason=RotationReason.FORCED, requested_by="test"
        )
        runtime.services.rotations.run(requested.rotation.id)
    told = byok("key", "export", "acme", "pii", "--json").json()
    assert [one["file"] for one in told["files"]] == ["acme.pii.keyset.1.json", "acme.pii.keyset.2.json"]
    assert [one["versions"] for one in told["files"]] == [[*range(1, 38), 40], [38, 39, 40]]
    infos = opened(stack, acme, told)
    assert [info.primary_key_id for info in infos] == [40, 40]
    assert [len(info.key_info) for info in infos] == [38, 3]
    (folder / "again").mkdir()
    assert "1-37, 40" in byok("key", "export", "acme", "pii", "--output", "again").out


def test_what_is_there_is_not_overwritten_and_aws_is_not_asked(
    byok: Byok, acme: Customer, folder: Path, allowed: None, simulator: SimulatorControl
) -> None:
    (folder / "acme.pii.keyset.1.json").write_text("from before")
    refused = byok("key", "export", "acme", "pii")
    assert (refused.exit_code, refused.err.count("\n")) == (2, 1)
    assert "acme.pii.keyset.1.json is there already" in refused.err
    assert "is no directory" in byok("key", "export", "acme", "pii", "--output", "missing").err
    assert simulator.calls(operation="Encrypt") == []
    assert (folder / "acme.pii.keyset.1.json").read_text() == "from before"


def test_a_file_that_cannot_be_written_leaves_none(
    byok: Byok,
    runtime: Runtime,
    acme: Customer,
    folder: Path,
    allowed: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("byok.core.key_export.VERSIONS_PER_KEYSET", 2)
    for _ in range(2):
        requested = runtime.services.requests.request(
            "acme", "pii", reason=RotationReason.FORCED, requested_by="test"
        )
        runtime.services.rotations.run(requested.rotation.id)
    synced: list[int] = []

    def full(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("byok.cli.files.os.fsync", full)
    failed = byok("key", "export", "acme", "pii")
    assert failed.exit_code == 2
    assert "acme.pii.keyset.2.json can't be written: No space left on device" in failed.err
    assert names(folder) == []
    # The audit log says rather too much than too little.
    assert byok("audit", "log", "acme", "--json").json()[-1]["action"] == "key.exported"


def test_a_link_that_waits_there_is_not_followed(folder: Path) -> None:
    (folder / "link").symlink_to(folder / "elsewhere")
    with pytest.raises(InvalidInput, match="can't be written: File exists"):
        create_private(folder / "link", b"keyset")
    assert not (folder / "elsewhere").exists()


def test_a_customer_that_revoked_cannot_be_exported(
    byok: Byok, runtime: Runtime, acme: Customer, folder: Path, allowed: None
) -> None:
    acme.account.disable_key(acme.kms_key)
    refused = byok("key", "export", "acme", "pii")
    assert (refused.exit_code, names(folder)) == (5, [])
    assert runtime.services.registry.show_tenant("acme")[0].state is TenantState.SUSPENDED
    assert "[tenant-not-active]" in byok("key", "export", "acme", "pii").err


def test_a_key_policy_that_names_no_iam_needs_the_statement_for_it(
    byok: Byok, runtime: Runtime, acme: Customer, folder: Path, allowed: None
) -> None:
    errand = policy(byok, "--for", "export", "--key", "pii").json()
    (added,) = errand["key_policy_statements_without_iam"]
    assert added["kms_key_arn"] == acme.kms_key
    as_ever = policies.role_key_policy_statements(acme.role, acme.tenant.id)
    acme.account.put_key_policy(acme.kms_key, {"Version": "2012-10-17", "Statement": as_ever})
    assert byok("key", "export", "acme", "pii").exit_code == 9
    open_for_it = {"Version": "2012-10-17", "Statement": [*as_ever, *added["statements"]]}
    acme.account.put_key_policy(acme.kms_key, open_for_it)
    assert byok("key", "export", "acme", "pii").exit_code == 0
    connection = acme.tenant.connection
    assert connection is not None
    with pytest.raises(KmsAccessRevoked):  # and for nothing else, though the policy names the role
        runtime.kms.encrypt(connection, SecretBytes(bytes(32)), {"associatedData": b"other".hex()})


def test_in_key_policy_mode_the_script_adds_a_statement_and_takes_it_back(
    byok: Byok, stack: Stack, runtime: Runtime, tmp_path: Path, folder: Path
) -> None:
    if subprocess.run(["which", "jq"], capture_output=True, check=False).returncode:
        pytest.skip("there is no jq here")
    account = new_account(stack)
    tenant = runtime.services.onboarding.add_tenant("acme", actor="test")
    root = f"arn:aws:iam::{account.account_id}:root"
    statements = policies.key_policy_statements(VENDOR, tenant.id)
    kms_key = account.create_key(policies.whole_key_policy(root, statements))
    assert runtime.services.onboarding.verify_tenant("acme", actor="test", kms_key_arn=kms_key).passed
    add_key(runtime, "acme")
    before = account.kms.get_key_policy(KeyId=kms_key, PolicyName="default")["Policy"]
    assert byok("key", "export", "acme", "pii").exit_code == 9
    script = policy(byok, "--for", "export", "--key", "pii", "--format", "cli").out
    run = shell_of(stack, account, tmp_path)
    run(script, "add")
    once = account.kms.get_key_policy(KeyId=kms_key, PolicyName="default")["Policy"]
    run(script, "add")  # by somebody who isn't sure
    twice = account.kms.get_key_policy(KeyId=kms_key, PolicyName="default")["Policy"]
    assert json.loads(twice) == json.loads(once)
    assert byok("key", "export", "acme", "pii").exit_code == 0
    run(script, "remove")
    after = account.kms.get_key_policy(KeyId=kms_key, PolicyName="default")["Policy"]
    assert json.loads(after) == json.loads(before)


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        (["--for", "export"], "--for export and --key belong together"),
        (["--key", "pii"], "--for export and --key belong together"),
        (["--for", "export", "--key", "pii", "--mode", "role"], "over the connection that the tenant has"),
    ],
)
def test_options_that_make_no_sense_are_one_line(byok: Byok, options: list[str], wrong: str) -> None:
    refused = policy(byok, *options)
    assert (refused.exit_code, refused.err.count("\n")) == (2, 1)
    assert wrong in refused.err


@pytest.mark.usefixtures("acme")
def test_what_there_is_not_is_one_line(byok: Byok) -> None:
    for options, wrong in (
        (["--for", "export", "--key", "pii", "--format", "terraform"], "is not printed as terraform"),
        (["--for", "export", "--key", "nothing"], "has no key 'nothing'"),
    ):
        refused = policy(byok, *options)
        assert refused.exit_code in (2, 3)
        assert wrong in refused.err
        assert refused.err.count("\n") == 1


def test_a_pending_tenant_has_no_errand(byok: Byok) -> None:
    byok("tenant", "add", "acme")
    refused = policy(byok, "--for", "export", "--key", "pii")
    assert "[not-ready]" in refused.err
