"""Master keys that a KMS key of the vendor's own wraps, over the simulator's vendor account."""

import base64
import json
import subprocess
import sys
from collections.abc import Callable, Mapping

import pytest

from byok.core.arns import KmsKeyArn
from byok.crypto.keyring import MasterKeyRing
from byok.crypto.ring_entries import WrappedEntry, format_entry, parse_entries
from byok.embedded.stack import Stack
from byok.errors import ConfigurationError, InvalidMasterKey, KmsUnavailable
from byok.kms import master_keys
from byok.kms.master_keys import VendorKms
from byok.settings import child_environment, load_settings
from byok.simulator import VENDOR_ACCOUNT_ID
from byok.simulator.control import SimulatorControl
from byok.simulator.customer import CustomerAccount
from byok.wiring import build
from byok.wiring.master_keys import load_ring
from tests.scripts import run_script

Put = Callable[[str, str], None]


@pytest.fixture
def vendor(stack: Stack, simulator: SimulatorControl, environment: Mapping[str, str]) -> CustomerAccount:
    """The vendor's own AWS account, in which a process of byok is the worker role."""
    return CustomerAccount(stack.simulator.url, VENDOR_ACCOUNT_ID)


@pytest.fixture
def arn(vendor: CustomerAccount) -> str:
    return vendor.create_key()


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str]) -> Put:
    return monkeypatch.setenv


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(master_keys._retrying, "sleep", lambda _: None)


def wrapped(stack: Stack, arn: str, name: str = "mk-kms") -> str:
    """What KMS gives for a new master key, in base64."""
    made = VendorKms(stack.simulator.url).generate(name, KmsKeyArn.parse(arn))
    return base64.b64encode(made).decode()


def test_plain_and_wrapped_keys_stand_in_one_ring(stack: Stack, arn: str, put: Put) -> None:
    plain = format_entry("mk-plain", bytes(range(32)))
    put("BYOK_MASTER_KEYS", f"mk-kms:kms:{wrapped(stack, arn)},{plain}")
    put("BYOK_MASTER_KEYS_KMS_KEY_ARN", arn)
    ring = load_ring(load_settings())
    assert ring.ids == ("mk-kms", "mk-plain")
    sealed = ring.seal(b"x", "test", 1)
    assert load_ring(load_settings()).open(sealed, "test", 1) == b"x"
    assert MasterKeyRing.parse(plain, bytes).ids == ("mk-plain",)


def test_an_entry_may_name_its_kms_key_itself(
    vendor: CustomerAccount, stack: Stack, arn: str, put: Put
) -> None:
    other = vendor.create_key()
    put("BYOK_MASTER_KEYS", f"mk-kms:kms:{arn}:{wrapped(stack, arn)}")
    put("BYOK_MASTER_KEYS_KMS_KEY_ARN", other)
    assert load_ring(load_settings()).ids == ("mk-kms",)


def test_kms_is_asked_once_a_process_by_its_own_identity_with_key_and_context(
    stack: Stack, arn: str, put: Put, simulator: SimulatorControl
) -> None:
    put("BYOK_MASTER_KEYS", f"mk-kms:kms:{arn}:{wrapped(stack, arn)}")
    simulator.forget_calls()
    runtime = build(load_settings())
    runtime.master_keys.seal(b"x", "test")
    runtime.close()
    assert [call["operation"] for call in simulator.calls()] == ["Decrypt"]
    (event,) = [one for one in simulator.cloudtrail(VENDOR_ACCOUNT_ID) if one["eventName"] == "Decrypt"][-1:]
    assert event["requestParameters"]["encryptionContext"] == {
        "byok-app": "byok", "byok-master-key": "mk-kms", "byok-purpose": "master-key", "byok-schema": "1"
    }  # fmt: skip
    assert "byok-worker" in json.dumps(event["userIdentity"])


def refused(match: str, remedy: str, error: type[Exception] = InvalidMasterKey) -> None:
    with pytest.raises(error, match=match) as caught:
        load_ring(load_settings())
    assert remedy in (caught.value.remedy or "")  # type: ignore[attr-defined]  # an error of ours
    assert "\n" not in str(caught.value)


def test_under_another_id_an_entry_does_not_open(stack: Stack, arn: str, put: Put) -> None:
    put("BYOK_MASTER_KEYS", f"mk-other:kms:{arn}:{wrapped(stack, arn)}")
    refused("'mk-other': Decrypt on .*InvalidCiphertextException", "another id or another KMS key")


def test_with_another_kms_key_it_does_not_open(
    vendor: CustomerAccount, stack: Stack, arn: str, put: Put
) -> None:
    put("BYOK_MASTER_KEYS", f"mk-kms:kms:{vendor.create_key()}:{wrapped(stack, arn)}")
    refused("IncorrectKeyException", "another id or another KMS key")


def test_a_kms_key_that_is_not_there(stack: Stack, arn: str, put: Put) -> None:
    gone = arn[:-12] + "000000000000"
    put("BYOK_MASTER_KEYS", f"mk-kms:kms:{gone}:{wrapped(stack, arn)}")
    refused("NotFoundException", "name the right one")


def test_denied(vendor: CustomerAccount, stack: Stack, arn: str, put: Put) -> None:
    put("BYOK_MASTER_KEYS", f"mk-kms:kms:{arn}:{wrapped(stack, arn)}")
    vendor.put_key_policy(arn, {"Version": "2012-10-17", "Statement": []})
    refused("AccessDeniedException", "let this process's role use kms:Decrypt on it")


def test_disabled_and_enabled_again(vendor: CustomerAccount, stack: Stack, arn: str, put: Put) -> None:
    put("BYOK_MASTER_KEYS", f"mk-kms:kms:{arn}:{wrapped(stack, arn)}")
    vendor.disable_key(arn)
    refused("DisabledException", "enable the KMS key")
    vendor.enable_key(arn)
    assert load_ring(load_settings()).ids == ("mk-kms",)
    vendor.schedule_key_deletion(arn)
    refused("KMSInvalidStateException", "cancel its deletion")


def test_an_outage_is_retried_and_then_told_as_one(
    stack: Stack, arn: str, put: Put, simulator: SimulatorControl
) -> None:
    put("BYOK_MASTER_KEYS", f"mk-kms:kms:{arn}:{wrapped(stack, arn)}")
    simulator.throttle(operation="Decrypt", times=2)
    assert load_ring(load_settings()).ids == ("mk-kms",)
    simulator.throttle(operation="Decrypt")
    refused("ThrottlingException", "as soon as the vendor's KMS answers", KmsUnavailable)


def test_a_wrong_arn_is_refused_before_anything_is_asked(put: Put, simulator: SimulatorControl) -> None:
    put("BYOK_MASTER_KEYS_KMS_KEY_ARN", "arn:aws:kms:eu-central-1:111111111111:alias/byok")
    with pytest.raises(ConfigurationError, match=r"^BYOK_MASTER_KEYS_KMS_KEY_ARN: must be the ARN"):
        load_settings()
    assert simulator.calls() == []


def test_without_an_arn_it_says_where_one_may_stand(put: Put) -> None:
    put("BYOK_MASTER_KEYS", "mk-kms:kms:AAAA")
    refused("nothing says which KMS key wraps master key 'mk-kms'", "BYOK_MASTER_KEYS_KMS_KEY_ARN")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("mk-1:kms:", "no CiphertextBlob"),
        ("mk-1:kms:not base64", "is not base64"),
        ("mk-1:kms:hidden-needle:AAAA", "not the ARN of a KMS key"),
        (f"mk-1:kms:{'A' * 8196}", "no CiphertextBlob"),
        ("mk-1:kms:AAAA,mk-1:kms:AAAA", "same id"),
        ("kms:AAAA", "has 3 bytes"),
    ],
)
def test_a_malformed_entry_is_named_by_its_place(entry: str, message: str) -> None:
    with pytest.raises(InvalidMasterKey, match=message) as caught:
        parse_entries(entry)
    assert "hidden-needle" not in str(caught.value)


def test_what_generate_prints_is_a_wrapped_entry(arn: str, put: Put, stack: Stack) -> None:
    command = ["-m", "byok.cli", "master-key", "generate", "--id", "mk-7", "--kms-key-arn", arn]
    printed = run_script(stack, *command)
    (entry,) = parse_entries(printed)
    assert isinstance(entry, WrappedEntry)
    assert (entry.key_id, str(entry.kms_key_arn)) == ("mk-7", arn)
    put("BYOK_MASTER_KEYS", printed)
    assert load_ring(load_settings()).ids == ("mk-7",)


FORK = """
import os
from byok.settings import child_environment, load_settings
from byok.wiring import build

runtime = build(load_settings())
sealed = runtime.master_keys.seal(b"x", "test")
pid = os.fork()
if pid == 0:
    again = build(load_settings())  # as a child of a prefork pool does
    os._exit(0 if again.master_keys.open(sealed, "test") == runtime.master_keys.open(sealed, "test") else 1)
assert os.waitpid(pid, 0)[1] == 0, "the child failed"
"""


def test_a_forked_child_has_the_ring_and_can_ask_for_one_of_its_own(
    arn: str, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = stack.environment | {"BYOK_MASTER_KEYS": f"mk-kms:kms:{arn}:{wrapped(stack, arn)}"}
    monkeypatch.setattr(Stack, "environment", environment)
    run_script(stack, "-c", FORK)


def test_a_worker_whose_ring_kms_does_not_unwrap_ends_at_its_start_with_one_line(
    vendor: CustomerAccount, stack: Stack, arn: str
) -> None:
    environment = stack.environment | {"BYOK_MASTER_KEYS": f"mk-kms:kms:{arn}:{wrapped(stack, arn)}"}
    vendor.disable_key(arn)
    ended = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "workers", "worker"],
        env=child_environment(environment | {"PYTHONWARNINGS": "ignore"}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 78
    (line,) = [one for one in ended.stderr.splitlines() if one.startswith("byok: ")]
    assert "DisabledException" in line
    assert "enable the KMS key" in line
