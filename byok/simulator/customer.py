"""A customer's administrator at work in its own AWS account, for the demo and tests."""

import json
from functools import cache
from typing import Any

import boto3
from botocore.config import Config

from byok.simulator import ADMIN_ACCESS_KEY_PREFIX

_CONFIG = Config(retries={"mode": "standard", "total_max_attempts": 1})


@cache
def _boto_session() -> boto3.session.Session:
    return boto3.session.Session()  # loading its service models is what costs


class CustomerAccount:
    """One customer's AWS account. ``endpoint_url`` is the simulator's."""

    def __init__(self, endpoint_url: str, account_id: str, region: str = "eu-central-1") -> None:
        self.account_id = account_id
        access: dict[str, Any] = {
            "endpoint_url": endpoint_url,
            "region_name": region,
            "aws_access_key_id": ADMIN_ACCESS_KEY_PREFIX + account_id,
            "aws_secret_access_key": "simulator-not-a-secret",
            "config": _CONFIG,
        }
        self.kms = _boto_session().client("kms", **access)
        self.iam = _boto_session().client("iam", **access)

    def create_key(self, policy: dict[str, Any] | None = None, description: str = "") -> str:
        """Create a KMS key; return its ARN. The default policy leaves access to the account's IAM."""
        arguments: dict[str, Any] = {} if policy is None else {"Policy": json.dumps(policy)}
        arn: str = self.kms.create_key(Description=description, **arguments)["KeyMetadata"]["Arn"]
        return arn

    def create_role(
        self,
        name: str,
        trust_policy: dict[str, Any],
        permissions: dict[str, Any],
        max_session_seconds: int = 3600,
    ) -> str:
        """Create a role with one inline policy; return its ARN."""
        arn: str = self.iam.create_role(
            RoleName=name,
            AssumeRolePolicyDocument=json.dumps(trust_policy),
            MaxSessionDuration=max_session_seconds,
        )["Role"]["Arn"]
        self.put_role_policy(name, permissions)
        return arn

    def put_role_policy(self, role_name: str, permissions: dict[str, Any], name: str = "byok") -> None:
        """Put or replace an inline policy of the role."""
        self.iam.put_role_policy(RoleName=role_name, PolicyName=name, PolicyDocument=json.dumps(permissions))

    def renew_role_policies(self, role_name: str, permissions: dict[str, Any]) -> None:
        """Put one inline policy in place of all that there are, at no moment without its rights."""
        self.put_role_policy(role_name, permissions)
        for name in self.iam.list_role_policies(RoleName=role_name)["PolicyNames"]:
            if name != "byok":
                self.iam.delete_role_policy(RoleName=role_name, PolicyName=name)

    def delete_role_policy(self, role_name: str) -> None:
        """Take the role's rights away."""
        self.iam.delete_role_policy(RoleName=role_name, PolicyName="byok")

    def update_trust_policy(self, role_name: str, trust_policy: dict[str, Any]) -> None:
        """Change who may assume the role."""
        self.iam.update_assume_role_policy(RoleName=role_name, PolicyDocument=json.dumps(trust_policy))

    def delete_role(self, role_name: str) -> None:
        """Delete the role and its inline policies."""
        for name in self.iam.list_role_policies(RoleName=role_name)["PolicyNames"]:
            self.iam.delete_role_policy(RoleName=role_name, PolicyName=name)
        self.iam.delete_role(RoleName=role_name)

    def put_key_policy(self, arn: str, policy: dict[str, Any]) -> None:
        """Replace the key's policy."""
        self.kms.put_key_policy(KeyId=arn, PolicyName="default", Policy=json.dumps(policy))

    def disable_key(self, arn: str) -> None:
        """Stop all use of the key."""
        self.kms.disable_key(KeyId=arn)

    def enable_key(self, arn: str) -> None:
        """Allow use of the key again."""
        self.kms.enable_key(KeyId=arn)

    def schedule_key_deletion(self, arn: str, days: int = 7) -> None:
        """Have the key deleted after ``days``."""
        self.kms.schedule_key_deletion(KeyId=arn, PendingWindowInDays=days)

    def cancel_key_deletion(self, arn: str) -> None:
        """Keep the key; it stays disabled."""
        self.kms.cancel_key_deletion(KeyId=arn)

    def rotate_key_on_demand(self, arn: str) -> None:
        """Give the key new material."""
        self.kms.rotate_key_on_demand(KeyId=arn)

    def enable_key_rotation(self, arn: str, period_days: int) -> None:
        """Have AWS rotate the key's material."""
        self.kms.enable_key_rotation(KeyId=arn, RotationPeriodInDays=period_days)

    def disable_key_rotation(self, arn: str) -> None:
        """Have AWS rotate the key's material no more."""
        self.kms.disable_key_rotation(KeyId=arn)
