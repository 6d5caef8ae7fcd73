"""The simulator enforces what AWS enforces: key states, policies, external ids, contexts, DryRun."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from moto.iam.models import iam_backends

from byok.core import policies
from byok.core.arns import KmsKeyArn, RoleArn
from byok.core.encryption_context import version_context
from byok.embedded.stack import Stack
from byok.simulator import VENDOR_ACCESS_KEY_ID, VENDOR_ACCOUNT_ID, VENDOR_ROLE_ARN
from byok.simulator.control import SimulatorControl
from byok.simulator.customer import CustomerAccount
from byok.simulator.errors import AwsError
from byok.simulator.identity import Identities
from tests.customers import new_account

CONFIG = Config(retries={"mode": "standard", "total_max_attempts": 1}, read_timeout=2, connect_timeout=2)
REGION = "eu-central-1"
VENDOR = RoleArn.parse(VENDOR_ROLE_ARN)


def client(stack: Stack, service: str, region: str = REGION, **credentials: str) -> Any:
    found = {"aws_access_key_id": VENDOR_ACCESS_KEY_ID, "aws_secret_access_key": "x"} | credentials
    return boto3.client(service, region_name=region, endpoint_url=stack.simulator.url, config=CONFIG, **found)  # type: ignore[call-overload]


def code_of(call: Callable[[], object]) -> str:
    """AWS's error code, or "ok"."""
    try:
        call()
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return "ok"


class Setup:
    """A customer with a key and a least-privilege role, and the vendor with a session of that role."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.account = new_account(stack)
        self.tenant_id = uuid4()
        self.key = self.account.create_key()
        self.trust = policies.trust_policy(VENDOR, "right-external-id")
        self.permissions = policies.role_permissions(self.key, self.tenant_id)
        self.role = self.account.create_role("byok", self.trust, self.permissions)
        self.sts = client(stack, "sts")
        self.kms = self.session()
        self.context = version_context(self.tenant_id, UUID(int=1), 1)

    def assume(self, **changes: Any) -> dict[str, Any]:
        arguments = {
            "RoleArn": self.role,
            "RoleSessionName": "test",
            "ExternalId": "right-external-id",
        } | changes
        reply: dict[str, Any] = self.sts.assume_role(**{k: v for k, v in arguments.items() if v is not None})
        return reply["Credentials"]  # type: ignore[no-any-return]

    def session(self, **changes: Any) -> Any:
        found = self.assume(**changes)
        return client(
            self.stack,
            "kms",
            aws_access_key_id=found["AccessKeyId"],
            aws_secret_access_key=found["SecretAccessKey"],
            aws_session_token=found["SessionToken"],
        )

    def generate(self, **changes: Any) -> Any:
        arguments = {"KeyId": self.key, "KeySpec": "AES_256", "EncryptionContext": self.context} | changes
        return self.kms.generate_data_key_without_plaintext(**arguments)

    def decrypt(self, blob: bytes, **changes: Any) -> Any:
        arguments = {"KeyId": self.key, "CiphertextBlob": blob, "EncryptionContext": self.context} | changes
        return self.kms.decrypt(**arguments)


@pytest.fixture
def setup(stack: Stack, simulator: SimulatorControl) -> Setup:
    return Setup(stack)


def test_the_least_privilege_role_works(setup: Setup) -> None:
    reply = setup.generate()
    opened = setup.decrypt(reply["CiphertextBlob"])
    assert opened["KeyId"] == reply["KeyId"] == setup.key
    assert len(opened["Plaintext"]) == 32
    assert opened["KeyMaterialId"] == reply["KeyMaterialId"]
    assert "Plaintext" not in reply
    UUID(opened["ResponseMetadata"]["RequestId"])


@pytest.mark.parametrize(
    "change",
    [{"ExternalId": None}, {"ExternalId": "wrong"}, {"RoleArn": "arn:aws:iam::222222222222:role/none"}],
)
def test_assume_role_is_refused_without_the_right_external_id_or_role(
    setup: Setup, change: dict[str, Any]
) -> None:
    assert code_of(lambda: setup.assume(**change)) == "AccessDenied"


def test_assume_role_refuses_sessions_longer_than_the_role_allows(setup: Setup) -> None:
    assert code_of(lambda: setup.assume(DurationSeconds=7200)) == "ValidationError"


def test_unneeded_operations_are_refused(setup: Setup) -> None:
    assert code_of(lambda: setup.kms.generate_data_key(KeyId=setup.key, KeySpec="AES_256")) == (
        "AccessDeniedException"
    )
    assert code_of(lambda: setup.kms.disable_key(KeyId=setup.key)) == "AccessDeniedException"
    assert code_of(lambda: setup.kms.create_key()) == "AccessDeniedException"
    assert code_of(lambda: setup.kms.describe_key(KeyId=setup.key)) == "ok"


@pytest.mark.parametrize(
    "changed",
    [
        {"byok-tenant": str(uuid4())},
        {"byok-app": "other"},
        {"another-key": "x"},
    ],
)
def test_a_foreign_context_is_refused_by_policy(setup: Setup, changed: dict[str, str]) -> None:
    foreign = setup.context | changed
    assert code_of(lambda: setup.generate(EncryptionContext=foreign)) == "AccessDeniedException"
    assert code_of(lambda: setup.generate(EncryptionContext={})) == "AccessDeniedException"


def test_another_version_in_the_context_is_an_invalid_ciphertext(setup: Setup) -> None:
    blob = setup.generate()["CiphertextBlob"]
    other = setup.context | {"byok-version": "2"}
    assert code_of(lambda: setup.decrypt(blob, EncryptionContext=other)) == "InvalidCiphertextException"


def test_each_flipped_byte_is_an_invalid_ciphertext(setup: Setup) -> None:
    blob = setup.generate()["CiphertextBlob"]
    for place in range(0, len(blob), 7):
        broken = blob[:place] + bytes([blob[place] ^ 1]) + blob[place + 1 :]
        assert code_of(lambda broken=broken: setup.decrypt(broken)) == "InvalidCiphertextException"  # type: ignore[misc]


def test_another_key_of_the_customer_is_an_incorrect_key(setup: Setup) -> None:
    blob = setup.generate()["CiphertextBlob"]
    other = setup.account.create_key()
    setup.account.put_role_policy("byok", policies.role_permissions(other, setup.tenant_id))
    assert code_of(lambda: setup.decrypt(blob, KeyId=other)) == "IncorrectKeyException"


def test_key_states(setup: Setup) -> None:
    blob = setup.generate()["CiphertextBlob"]
    setup.account.disable_key(setup.key)
    assert code_of(lambda: setup.decrypt(blob)) == "DisabledException"
    assert code_of(setup.generate) == "DisabledException"
    setup.account.enable_key(setup.key)
    assert code_of(lambda: setup.decrypt(blob)) == "ok"
    setup.account.schedule_key_deletion(setup.key)
    assert code_of(lambda: setup.decrypt(blob)) == "KMSInvalidStateException"
    metadata = setup.kms.describe_key(KeyId=setup.key)["KeyMetadata"]
    assert metadata["KeyState"] == "PendingDeletion"
    for revive in (setup.account.enable_key, setup.account.disable_key, setup.account.schedule_key_deletion):
        assert code_of(lambda revive=revive: revive(setup.key)) == "KMSInvalidStateException"  # type: ignore[misc]
    setup.account.cancel_key_deletion(setup.key)
    assert code_of(lambda: setup.account.cancel_key_deletion(setup.key)) == "KMSInvalidStateException"
    assert code_of(lambda: setup.decrypt(blob)) == "DisabledException"
    setup.account.enable_key(setup.key)
    assert code_of(lambda: setup.decrypt(blob)) == "ok"


def test_taking_rights_away_bites_a_live_session(setup: Setup) -> None:
    blob = setup.generate()["CiphertextBlob"]
    setup.account.delete_role_policy("byok")
    assert code_of(lambda: setup.decrypt(blob)) == "AccessDeniedException"
    setup.account.put_role_policy("byok", setup.permissions)
    assert code_of(lambda: setup.decrypt(blob)) == "ok"
    deny = {"Effect": "Deny", "Principal": "*", "Action": "kms:Decrypt", "Resource": "*"}
    root = {"AWS": f"arn:aws:iam::{setup.account.account_id}:root"}
    allow = {"Effect": "Allow", "Principal": root, "Action": "kms:*", "Resource": "*"}
    setup.account.put_key_policy(setup.key, {"Version": "2012-10-17", "Statement": [allow, deny]})
    assert code_of(lambda: setup.decrypt(blob)) == "AccessDeniedException"
    assert code_of(setup.generate) == "ok"


def test_a_changed_trust_policy_spares_the_live_session_and_stops_the_next(setup: Setup) -> None:
    setup.account.update_trust_policy("byok", policies.trust_policy(VENDOR, "another-external-id"))
    assert code_of(setup.generate) == "ok"
    assert code_of(setup.assume) == "AccessDenied"


def test_a_deleted_role_ends_its_sessions(setup: Setup) -> None:
    setup.account.delete_role("byok")
    assert code_of(setup.generate) == "UnrecognizedClientException"
    assert code_of(setup.assume) == "AccessDenied"
    setup.account.create_role("byok", setup.trust, setup.permissions)
    assert code_of(setup.generate) == "UnrecognizedClientException"  # another role of the same name


def test_a_session_policy_narrows_a_wide_role(setup: Setup) -> None:
    wide = {"Effect": "Allow", "Action": "kms:*", "Resource": "*"}
    setup.account.put_role_policy("byok", {"Version": "2012-10-17", "Statement": [wide]})
    assert code_of(lambda: setup.kms.disable_key(KeyId=setup.key)) == "ok"
    setup.account.enable_key(setup.key)
    narrow = '{"Statement": [{"Effect": "Allow", "Action": "kms:Decrypt", "Resource": "*"}]}'
    narrowed = setup.session(Policy=narrow)
    assert code_of(lambda: narrowed.disable_key(KeyId=setup.key)) == "AccessDeniedException"


def test_key_policy_mode_works_across_accounts_within_the_context(setup: Setup) -> None:
    direct = client(setup.stack, "kms")
    use: dict[str, Any] = {"KeyId": setup.key, "KeySpec": "AES_256"}

    def generate(tenant_id: UUID) -> object:
        context = version_context(tenant_id, UUID(int=1), 1)
        return direct.generate_data_key_without_plaintext(**use, EncryptionContext=context)

    assert code_of(lambda: generate(setup.tenant_id)) == "AccessDeniedException"
    root = {"AWS": f"arn:aws:iam::{setup.account.account_id}:root"}
    own = {"Effect": "Allow", "Principal": root, "Action": "kms:*", "Resource": "*"}
    statements = [own, *policies.key_policy_statements(VENDOR, setup.tenant_id)]
    setup.account.put_key_policy(setup.key, {"Version": "2012-10-17", "Statement": statements})
    assert code_of(lambda: generate(setup.tenant_id)) == "ok"
    assert code_of(lambda: generate(uuid4())) == "AccessDeniedException"
    assert code_of(lambda: direct.list_resource_tags(KeyId=setup.key)) == "AccessDeniedException"


def test_dry_run_tells_without_doing(setup: Setup) -> None:
    assert code_of(lambda: setup.generate(DryRun=True)) == "DryRunOperationException"
    foreign = setup.context | {"byok-tenant": str(uuid4())}
    assert code_of(lambda: setup.generate(DryRun=True, EncryptionContext=foreign)) == "AccessDeniedException"
    blob = setup.generate()["CiphertextBlob"]
    assert code_of(lambda: setup.decrypt(blob, DryRun=True)) == "DryRunOperationException"
    authorised = code_of(
        lambda: setup.kms.decrypt(
            KeyId=setup.key,
            EncryptionContext=setup.context,
            DryRun=True,
            DryRunModifiers=["IGNORE_CIPHERTEXT"],
        )
    )
    assert authorised == "DryRunOperationException"
    administrator = setup.account.kms
    again: dict[str, Any] = {
        "CiphertextBlob": blob,
        "SourceKeyId": setup.key,
        "SourceEncryptionContext": setup.context,
        "DestinationKeyId": setup.key,
        "DryRun": True,
    }
    assert code_of(lambda: administrator.re_encrypt(**again)) == "DryRunOperationException"
    grant: dict[str, Any] = {"KeyId": setup.key, "GranteePrincipal": setup.role, "Operations": ["Decrypt"]}
    assert code_of(lambda: administrator.create_grant(**grant, DryRun=True)) == "DryRunOperationException"
    assert administrator.list_grants(KeyId=setup.key)["Grants"] == []


def test_statements_by_exclusion_count(setup: Setup) -> None:
    def document(*statements: dict[str, Any]) -> dict[str, Any]:
        return {"Version": "2012-10-17", "Statement": list(statements)}

    allow = {"Effect": "Allow", "Action": "kms:*", "Resource": "*"}
    for deny in (
        {"NotAction": "kms:DescribeKey", "Resource": "*"},
        {"Action": "*", "NotResource": setup.key[:-12] + "0" * 12},
    ):
        setup.account.put_role_policy("byok", document(allow, {"Effect": "Deny", **deny}))
        assert code_of(setup.generate) == "AccessDeniedException"
    elsewhere = {"Effect": "Allow", "Action": "kms:*", "NotResource": setup.key}
    setup.account.put_role_policy("byok", document(elsewhere))
    assert code_of(setup.generate) == "AccessDeniedException"
    setup.account.put_role_policy("byok", document(allow))
    root = {"AWS": f"arn:aws:iam::{setup.account.account_id}:root"}
    others = {"Effect": "Allow", "NotPrincipal": root, "Action": "kms:*", "Resource": "*"}
    setup.account.put_key_policy(setup.key, document(others))
    assert code_of(setup.generate) == "AccessDeniedException"


def test_a_role_of_a_third_account_needs_the_leave_of_both_sides(setup: Setup) -> None:
    third = new_account(setup.stack)
    role = third.create_role("byok", setup.trust, policies.session_policy(KmsKeyArn.parse(setup.key)))
    root = {"AWS": f"arn:aws:iam::{setup.account.account_id}:root"}
    statements = [
        {"Effect": "Allow", "Principal": who, "Action": "kms:*", "Resource": "*"}
        for who in (root, {"AWS": role})
    ]
    setup.account.put_key_policy(setup.key, {"Version": "2012-10-17", "Statement": statements})
    stranger = setup.session(RoleArn=role)

    def generate() -> object:
        return stranger.generate_data_key_without_plaintext(KeyId=setup.key, KeySpec="AES_256")

    assert code_of(generate) == "ok"
    third.delete_role_policy("byok")
    assert code_of(generate) == "AccessDeniedException"


def key_policy(setup: Setup, *principals: object, **changes: Any) -> None:
    """A key policy of one statement for each principal: all of KMS, unless ``changes`` say otherwise."""
    statements = [
        {"Effect": "Allow", "Principal": principal, "Action": "kms:*", "Resource": "*"} | changes
        for principal in principals
    ]
    setup.account.put_key_policy(setup.key, {"Version": "2012-10-17", "Statement": statements})


def test_a_key_policy_that_names_a_role_of_its_account_is_enough(setup: Setup) -> None:
    setup.account.delete_role_policy("byok")
    account = setup.account.account_id
    for delegating in (f"arn:aws:iam::{account}:root", account):
        key_policy(setup, {"AWS": delegating})
        assert code_of(setup.generate) == "AccessDeniedException"
    for naming in ({"AWS": setup.role}, {"AWS": [account, setup.role]}, {"AWS": "*"}, "*"):
        key_policy(setup, naming)
        assert code_of(setup.generate) == "ok"
        assert code_of(lambda: setup.generate(EncryptionContext={})) == "ok"
    key_policy(setup, {"AWS": setup.role}, Action="kms:Decrypt")
    assert code_of(setup.generate) == "AccessDeniedException"
    foreign = {"StringEquals": {"kms:EncryptionContext:byok-tenant": str(uuid4())}}
    key_policy(setup, {"AWS": setup.role}, Condition=foreign)
    assert code_of(setup.generate) == "AccessDeniedException"
    key_policy(setup, {"AWS": f"{setup.role}-of-another-name"})
    assert code_of(setup.generate) == "AccessDeniedException"


def test_a_deny_and_a_session_policy_count_also_where_the_key_policy_names_the_role(setup: Setup) -> None:
    key_policy(setup, {"AWS": setup.role})
    deny = {"Effect": "Deny", "Action": "kms:GenerateDataKeyWithoutPlaintext", "Resource": "*"}
    setup.account.put_role_policy("byok", {"Version": "2012-10-17", "Statement": [deny]})
    with pytest.raises(ClientError, match="explicit deny in an identity-based policy"):
        setup.generate()
    setup.account.delete_role_policy("byok")
    looking = {"Effect": "Allow", "Action": "kms:DescribeKey", "Resource": "*"}
    setup.kms = setup.session(Policy=json.dumps({"Version": "2012-10-17", "Statement": [looking]}))
    assert code_of(lambda: setup.kms.describe_key(KeyId=setup.key)) == "ok"
    with pytest.raises(ClientError, match="no session policy allows"):
        setup.generate()


def test_another_region_and_unknown_keys_are_not_found(setup: Setup) -> None:
    elsewhere = setup.key.replace(REGION, "eu-west-1")
    assert code_of(lambda: setup.generate(KeyId=elsewhere)) == "NotFoundException"
    unknown = setup.key[:-12] + "000000000000"
    assert code_of(lambda: setup.generate(KeyId=unknown)) == "NotFoundException"


def test_an_unknown_access_key_is_refused(stack: Stack) -> None:
    stranger = {"aws_access_key_id": "AKIASTRANGER"}
    assert code_of(lambda: client(stack, "kms", **stranger).list_keys()) == "UnrecognizedClientException"
    assert code_of(lambda: client(stack, "sts", **stranger).get_caller_identity()) == "InvalidClientTokenId"


def test_rotation_on_demand_gives_new_material_and_old_ciphertexts_open(setup: Setup) -> None:
    before = setup.generate()
    setup.account.rotate_key_on_demand(setup.key)
    after = setup.generate()
    assert before["KeyMaterialId"] != after["KeyMaterialId"]
    current = setup.kms.describe_key(KeyId=setup.key)["KeyMetadata"]["CurrentKeyMaterialId"]
    assert current == after["KeyMaterialId"]
    assert setup.decrypt(before["CiphertextBlob"])["KeyMaterialId"] == before["KeyMaterialId"]
    for _ in range(24):
        setup.account.rotate_key_on_demand(setup.key)
    limit = code_of(lambda: setup.account.rotate_key_on_demand(setup.key))
    assert limit == "LimitExceededException"


def test_rotation_status_tells_the_period(setup: Setup) -> None:
    assert not setup.kms.get_key_rotation_status(KeyId=setup.key)["KeyRotationEnabled"]
    setup.account.enable_key_rotation(setup.key, 180)
    status = setup.kms.get_key_rotation_status(KeyId=setup.key)
    assert status["RotationPeriodInDays"] == 180
    assert status["NextRotationDate"] > datetime.now(UTC) + timedelta(days=179)


def test_rotation_that_is_switched_off_is_off(setup: Setup) -> None:
    setup.account.enable_key_rotation(setup.key, 180)
    setup.account.disable_key_rotation(setup.key)
    assert not setup.kms.get_key_rotation_status(KeyId=setup.key)["KeyRotationEnabled"]


def test_imported_material_tells_its_day_and_is_gone_after_it(
    setup: Setup, simulator: SimulatorControl
) -> None:
    def metadata() -> dict[str, Any]:
        found: dict[str, Any] = setup.kms.describe_key(KeyId=setup.key)["KeyMetadata"]
        return found

    assert (metadata()["Origin"], "ExpirationModel" in metadata()) == ("AWS_KMS", False)
    simulator.import_material(setup.key)
    assert metadata()["ExpirationModel"] == "KEY_MATERIAL_DOES_NOT_EXPIRE"
    assert "ValidTo" not in metadata()
    soon = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    simulator.import_material(setup.key, soon)
    assert (metadata()["ExpirationModel"], metadata()["ValidTo"]) == ("KEY_MATERIAL_EXPIRES", soon)
    assert code_of(setup.generate) == "ok"
    status = code_of(lambda: setup.kms.get_key_rotation_status(KeyId=setup.key))
    assert status == "UnsupportedOperationException"
    simulator.import_material(setup.key, datetime.now(UTC) - timedelta(seconds=1))
    assert code_of(setup.generate) == "KMSInvalidStateException"
    assert metadata()["KeyState"] == "PendingImport"
    assert not {"ExpirationModel", "ValidTo"} & set(metadata())
    simulator.import_material(setup.key)
    assert code_of(setup.generate) == "ok"


def test_sessions_expire() -> None:
    time_now = [datetime(2026, 1, 1, tzinfo=UTC)]
    identities = Identities(lambda: time_now[0])
    backend = iam_backends["222222222222"]["aws"]
    role = backend.create_role("short", "{}", "/", None, "", [], "3600")
    session = identities.open_session(role, None, 900, "test")
    assert identities.resolve(session.access_key_id).arn == role.arn
    time_now[0] += timedelta(seconds=901)
    with pytest.raises(AwsError) as caught:
        identities.resolve(session.access_key_id)
    assert caught.value.code == "ExpiredTokenException"


def test_faults_strike_whom_they_are_ordered_for(setup: Setup, simulator: SimulatorControl) -> None:
    simulator.throttle(account=setup.account.account_id, times=2)
    assert [code_of(setup.generate) for _ in range(3)] == ["ThrottlingException"] * 2 + ["ok"]
    simulator.throttle(account="999999999999")
    assert code_of(setup.generate) == "ok"
    simulator.bad_gateway(times=1)
    assert code_of(setup.generate) == "502"
    simulator.internal_error(times=1)
    assert code_of(setup.generate) == "KMSInternalException"
    simulator.reset(times=1)
    with pytest.raises((HTTPClientError, BotoCoreError)):
        setup.generate()
    started = time.monotonic()
    simulator.hang(0.3, times=1)
    assert code_of(setup.generate) == "ok"
    assert time.monotonic() - started >= 0.3
    simulator.clear_faults()


def test_the_log_tells_each_call_and_no_plaintext(setup: Setup, simulator: SimulatorControl) -> None:
    simulator.forget_calls()
    opened = setup.decrypt(setup.generate()["CiphertextBlob"])
    setup.account.disable_key(setup.key)
    code_of(setup.generate)
    calls = simulator.calls(key_arn=setup.key)
    assert [(call["operation"], call["outcome"]) for call in calls] == [
        ("GenerateDataKeyWithoutPlaintext", "ok"),
        ("Decrypt", "ok"),
        ("DisableKey", "ok"),
        ("GenerateDataKeyWithoutPlaintext", "DisabledException"),
    ]
    assert calls[1]["request_id"] == opened["ResponseMetadata"]["RequestId"]
    assert calls[1]["context"] == setup.context
    assert opened["Plaintext"].hex() not in str(calls)


@contextmanager
def alone(state_file: Path, port: int) -> Iterator[None]:
    """A simulator process of its own, stopped by SIGTERM at the end of the block."""
    command = [sys.executable, "-m", "byok.simulator", "--port", str(port), "--state-file", str(state_file)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    control = SimulatorControl(f"http://127.0.0.1:{port}")
    try:
        while not control.healthy():
            assert process.poll() is None
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        assert process.wait(10) == 0


def test_keys_and_roles_survive_a_restart(tmp_path: Path, unused_port: int) -> None:
    state_file, url = tmp_path / "state.json", f"http://127.0.0.1:{unused_port}"
    account = CustomerAccount(url, "222222222222")
    with alone(state_file, unused_port):
        key = account.create_key()
        permissions = policies.session_policy(KmsKeyArn.parse(key))
        account.create_role("byok", policies.trust_policy(VENDOR, "x"), permissions)
        account.rotate_key_on_demand(key)
        blob = account.kms.encrypt(KeyId=key, Plaintext=b"x", EncryptionContext={"a": "b"})["CiphertextBlob"]
        account.disable_key(key)
        imported = account.create_key()
        soon = datetime.now(UTC) + timedelta(days=1)
        SimulatorControl(url).import_material(imported, soon)
    assert state_file.stat().st_mode & 0o777 == 0o600
    decrypt: dict[str, Any] = {"KeyId": key, "CiphertextBlob": blob, "EncryptionContext": {"a": "b"}}
    with alone(state_file, unused_port):
        assert code_of(lambda: account.kms.decrypt(**decrypt)) == "DisabledException"
        account.enable_key(key)
        assert account.kms.decrypt(**decrypt)["Plaintext"] == b"x"
        assert account.iam.get_role(RoleName="byok")["Role"]["RoleName"] == "byok"
        metadata = account.kms.describe_key(KeyId=imported)["KeyMetadata"]
        assert (metadata["Origin"], metadata["ValidTo"]) == ("EXTERNAL", soon)


def test_it_listens_on_loopback_only(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "byok.simulator", "--port", "1", "--state-file", str(tmp_path / "s")]
    ended = subprocess.run([*command, "--host", "0.0.0.0"], capture_output=True, check=False)
    assert ended.returncode != 0
    assert b"loopback" in ended.stderr


def test_bare_moto_decrypts_under_a_disabled_key() -> None:
    """Why the simulator exists: the same story on bare moto goes on after the revocation."""
    from moto import mock_aws

    with mock_aws():
        bare = boto3.client(
            "kms", region_name=REGION, aws_access_key_id="x", aws_secret_access_key="x", config=CONFIG
        )
        key = bare.create_key()["KeyMetadata"]["KeyId"]
        blob = bare.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
        bare.disable_key(KeyId=key)
        assert bare.decrypt(KeyId=key, CiphertextBlob=blob)["Plaintext"] == b"x"


def test_cloudtrail_tells_both_sides_what_they_may_know(setup: Setup, simulator: SimulatorControl) -> None:
    customer = setup.account.account_id
    blob = setup.kms.generate_data_key_without_plaintext(
        KeyId=setup.key, KeySpec="AES_256", EncryptionContext=setup.context
    )["CiphertextBlob"]
    with pytest.raises(ClientError):
        setup.kms.decrypt(KeyId=setup.key, CiphertextBlob=blob, EncryptionContext={"byok-tenant": "x"})
    assumed, generated, refused = simulator.cloudtrail(customer)[-3:]
    assert assumed["eventSource"] == "sts.amazonaws.com"
    assert assumed["requestParameters"]["externalId"] == "right-external-id"
    assert generated["userIdentity"]["type"] == "AssumedRole"
    assert generated["userIdentity"]["arn"].startswith(f"arn:aws:sts::{customer}:assumed-role/byok/")
    assert generated["requestParameters"]["encryptionContext"] == setup.context
    assert generated["resources"] == [{"accountId": customer, "type": "AWS::KMS::Key", "ARN": setup.key}]
    assert refused["errorCode"] == "AccessDeniedException"
    direct = client(setup.stack, "kms")
    with pytest.raises(ClientError):
        direct.describe_key(KeyId=setup.key)
    vendor = simulator.cloudtrail(VENDOR_ACCOUNT_ID)[-1]
    assert (vendor["eventName"], vendor["errorCode"]) == ("DescribeKey", "AccessDeniedException")
    assert vendor["requestID"] not in {record["requestID"] for record in simulator.cloudtrail(customer)}


def test_a_refusal_names_the_policy_that_refused(setup: Setup) -> None:
    def message() -> str:
        with pytest.raises(ClientError) as caught:
            setup.kms.describe_key(KeyId=setup.key)
        return str(caught.value)

    setup.account.delete_role_policy("byok")
    assert "no identity-based policy allows the kms:DescribeKey action" in message()
    deny = {"Effect": "Deny", "Principal": "*", "Action": "kms:*", "Resource": "*"}
    setup.account.put_key_policy(setup.key, {"Version": "2012-10-17", "Statement": [deny]})
    assert "explicit deny in a resource-based policy" in message()


def test_a_grant_allows_its_operations_under_its_context_only(setup: Setup) -> None:
    direct = client(setup.stack, "kms")
    wanted = {"KeyId": setup.key, "KeySpec": "AES_256", "EncryptionContext": setup.context}
    grant = setup.account.kms.create_grant(
        KeyId=setup.key,
        GranteePrincipal=VENDOR_ROLE_ARN,
        Operations=["GenerateDataKeyWithoutPlaintext"],
        Constraints={"EncryptionContextSubset": {"byok-tenant": str(setup.tenant_id)}},
    )
    direct.generate_data_key_without_plaintext(**wanted)
    with pytest.raises(ClientError):
        direct.generate_data_key_without_plaintext(**{**wanted, "EncryptionContext": {}})
    with pytest.raises(ClientError):
        direct.describe_key(KeyId=setup.key)
    setup.account.kms.revoke_grant(KeyId=setup.key, GrantId=grant["GrantId"])
    with pytest.raises(ClientError):
        direct.generate_data_key_without_plaintext(**wanted)


def test_changes_are_seen_once_they_have_propagated(setup: Setup, simulator: SimulatorControl) -> None:
    simulator.delay_propagation(60)
    try:
        setup.account.delete_role_policy("byok")
        setup.kms.describe_key(KeyId=setup.key)
        simulator.advance_clock(61)
        with pytest.raises(ClientError):
            setup.kms.describe_key(KeyId=setup.key)
    finally:
        simulator.delay_propagation(0)


def test_encrypt_takes_4096_bytes_and_no_more(stack: Stack) -> None:
    account = new_account(stack)
    key = account.create_key()
    assert code_of(lambda: account.kms.encrypt(KeyId=key, Plaintext=bytes(4096))) == "ok"
    assert code_of(lambda: account.kms.encrypt(KeyId=key, Plaintext=bytes(4097))) == "ValidationException"
