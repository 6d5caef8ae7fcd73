"""What is asked of both: each scenario is a few AWS calls, and the code of the last one is its outcome."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

VENDOR, CUSTOMER = "111111111111", "222222222222"
EXTERNAL_ID = "right-external-id"
CONTEXT = {"byok-tenant": "acme"}
REGION = "eu-central-1"


@dataclass
class Cloud:
    """One emulator: how its administrators sign, and a customer with a key and a role."""

    url: str
    admin_key: Callable[[str], str]
    vendor_key: str
    role: str = ""
    key: str = ""
    role_name: str = field(default_factory=lambda: f"byok-{uuid4().hex[:8]}")

    def client(self, service: str, access_key_id: str, secret: str = "", token: str | None = None) -> Any:
        make: Any = boto3.client
        return make(
            service,
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=access_key_id,
            aws_secret_access_key=secret or "test",
            aws_session_token=token,
            config=Config(retries={"total_max_attempts": 1}, read_timeout=20),
        )

    @property
    def kms(self) -> Any:
        return self.client("kms", self.admin_key(CUSTOMER))

    @property
    def iam(self) -> Any:
        return self.client("iam", self.admin_key(CUSTOMER))

    def provision(self) -> None:
        """A key, and a role that the vendor may assume with the external id."""
        self.key = self.kms.create_key()["KeyMetadata"]["Arn"]
        self.role = self.iam.create_role(
            RoleName=self.role_name, AssumeRolePolicyDocument=json.dumps(trust(EXTERNAL_ID))
        )["Role"]["Arn"]
        self.iam.put_role_policy(
            RoleName=self.role_name, PolicyName="byok", PolicyDocument=json.dumps(allow("kms:*", self.key))
        )

    def assume(self, **changes: Any) -> Any:
        wanted = {"RoleArn": self.role, "RoleSessionName": "byok", "ExternalId": EXTERNAL_ID} | changes
        arguments = {name: value for name, value in wanted.items() if value is not None}
        reply = self.client("sts", self.vendor_key).assume_role(**arguments)["Credentials"]
        return self.client("kms", reply["AccessKeyId"], reply["SecretAccessKey"], reply["SessionToken"])

    def wrap(self) -> bytes:
        blob: bytes = self.kms.generate_data_key_without_plaintext(
            KeyId=self.key, KeySpec="AES_256", EncryptionContext=CONTEXT
        )["CiphertextBlob"]
        return blob

    def unwrap(self, kms: Any, **changes: Any) -> Any:
        wanted = {"KeyId": self.key, "EncryptionContext": CONTEXT} | changes
        return kms.decrypt(**wanted)


def trust(external_id: str) -> dict[str, Any]:
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:aws:iam::{VENDOR}:root"},
                "Action": "sts:AssumeRole",
                "Condition": {"StringEquals": {"sts:ExternalId": external_id}},
            }
        ],
    }


def allow(action: str, resource: str, **more: Any) -> dict[str, Any]:
    statement = {"Effect": "Allow", "Action": action, "Resource": resource} | more
    return {"Version": "2012-10-17", "Statement": [statement]}


def disabled(cloud: Cloud) -> None:
    blob = cloud.wrap()
    cloud.kms.disable_key(KeyId=cloud.key)
    cloud.unwrap(cloud.kms, CiphertextBlob=blob)


def generate_when_disabled(cloud: Cloud) -> None:
    cloud.kms.disable_key(KeyId=cloud.key)
    cloud.wrap()


def pending_deletion(cloud: Cloud) -> None:
    blob = cloud.wrap()
    cloud.kms.schedule_key_deletion(KeyId=cloud.key, PendingWindowInDays=7)
    cloud.unwrap(cloud.kms, CiphertextBlob=blob)


def cancelled_deletion_stays_disabled(cloud: Cloud) -> None:
    cloud.kms.schedule_key_deletion(KeyId=cloud.key, PendingWindowInDays=7)
    cloud.kms.cancel_key_deletion(KeyId=cloud.key)
    cloud.wrap()


def wrong_key(cloud: Cloud) -> None:
    other = cloud.kms.create_key()["KeyMetadata"]["Arn"]
    cloud.unwrap(cloud.kms, CiphertextBlob=cloud.wrap(), KeyId=other)


def flipped_bit(cloud: Cloud) -> None:
    blob = bytearray(cloud.wrap())
    blob[-1] ^= 1
    cloud.unwrap(cloud.kms, CiphertextBlob=bytes(blob))


def own_role(cloud: Cloud) -> None:
    cloud.unwrap(cloud.assume(), CiphertextBlob=cloud.wrap())


def changed_external_id(cloud: Cloud) -> None:
    cloud.iam.update_assume_role_policy(
        RoleName=cloud.role_name, PolicyDocument=json.dumps(trust("another-external-id"))
    )
    cloud.assume()


def live_session_after_changed_trust(cloud: Cloud) -> None:
    session, blob = cloud.assume(), cloud.wrap()
    cloud.iam.update_assume_role_policy(
        RoleName=cloud.role_name, PolicyDocument=json.dumps(trust("another-external-id"))
    )
    cloud.unwrap(session, CiphertextBlob=blob)


def role_policy_removed(cloud: Cloud) -> None:
    session, blob = cloud.assume(), cloud.wrap()
    cloud.iam.delete_role_policy(RoleName=cloud.role_name, PolicyName="byok")
    cloud.unwrap(session, CiphertextBlob=blob)


def key_policy_denies(cloud: Cloud) -> None:
    session, blob = cloud.assume(), cloud.wrap()
    root = {"AWS": f"arn:aws:iam::{CUSTOMER}:root"}
    policy = allow("kms:*", "*", Principal=root)
    policy["Statement"].append(
        {"Effect": "Deny", "Principal": {"AWS": cloud.role}, "Action": "kms:Decrypt", "Resource": "*"}
    )
    cloud.kms.put_key_policy(KeyId=cloud.key, PolicyName="default", Policy=json.dumps(policy))
    cloud.unwrap(session, CiphertextBlob=blob)


def session_policy_narrows(cloud: Cloud) -> None:
    narrow = json.dumps(allow("kms:DescribeKey", cloud.key))
    cloud.unwrap(cloud.assume(Policy=narrow), CiphertextBlob=cloud.wrap())


def context_condition(cloud: Cloud) -> None:
    blob = cloud.wrap()
    condition = {"StringEquals": {"kms:EncryptionContext:byok-tenant": "somebody-else"}}
    policy = allow("kms:*", cloud.key, Condition=condition)
    cloud.iam.put_role_policy(RoleName=cloud.role_name, PolicyName="byok", PolicyDocument=json.dumps(policy))
    cloud.unwrap(cloud.assume(), CiphertextBlob=blob)


SCENARIOS: dict[str, Callable[[Cloud], object]] = {
    "decrypt": lambda cloud: cloud.unwrap(cloud.kms, CiphertextBlob=cloud.wrap()),
    "decrypt under a disabled key": disabled,
    "generate under a disabled key": generate_when_disabled,
    "decrypt under a key pending deletion": pending_deletion,
    "generate after a cancelled deletion": cancelled_deletion_stays_disabled,
    "decrypt with another KeyId": wrong_key,
    "decrypt under another context": lambda cloud: cloud.unwrap(
        cloud.kms, CiphertextBlob=cloud.wrap(), EncryptionContext={"byok-tenant": "x"}
    ),
    "decrypt without context": lambda cloud: cloud.unwrap(
        cloud.kms, CiphertextBlob=cloud.wrap(), EncryptionContext={}
    ),
    "context with the same bytes elsewhere": lambda cloud: cloud.unwrap(
        cloud.kms, CiphertextBlob=cloud.wrap(), EncryptionContext={"byok-tenanta": "cme"}
    ),
    "decrypt a flipped bit": flipped_bit,
    "decrypt as the role": own_role,
    "assume without external id": lambda cloud: cloud.assume(ExternalId=None),
    "assume with a wrong external id": lambda cloud: cloud.assume(ExternalId="wrong"),
    "assume a role that is not there": lambda cloud: cloud.assume(RoleArn=f"{cloud.role}-not"),
    "assume after the external id changed": changed_external_id,
    "a live session after the external id changed": live_session_after_changed_trust,
    "decrypt after the role's policy is gone": role_policy_removed,
    "decrypt under a key policy that denies": key_policy_denies,
    "decrypt in a session narrowed by a policy": session_policy_narrows,
    "decrypt where the context condition does not fit": context_condition,
    "dry run of a decrypt": lambda cloud: cloud.unwrap(cloud.kms, CiphertextBlob=cloud.wrap(), DryRun=True),
    "rotation period of 120 days": lambda cloud: cloud.kms.enable_key_rotation(
        KeyId=cloud.key, RotationPeriodInDays=120
    ),
}


def outcome(cloud: Cloud, scenario: Callable[[Cloud], object]) -> str:
    """``ok``, or the code of AWS's error."""
    try:
        cloud.provision()
    except ClientError as error:
        return f"not provisioned: {error.response['Error']['Code']}"
    try:
        scenario(cloud)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return "ok"
