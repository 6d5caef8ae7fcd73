"""What a customer can do to stop us, each as one function: shared by the tests over the simulator, where
each must bite, and over bare moto, where none is noticed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from byok.core import policies
from byok.simulator.customer import CustomerAccount
from tests.customers import VENDOR


@dataclass(frozen=True)
class Revocation:
    """An act, and whether a session that lives feels it or only the next AssumeRole does."""

    act: Callable[[CustomerAccount, str], object]
    bites_live_session: bool = True


def _deny_all(account: CustomerAccount, key: str) -> None:
    deny = {"Effect": "Deny", "Principal": "*", "Action": "kms:Decrypt", "Resource": "*"}
    own: dict[str, Any] = {
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{account.account_id}:root"},
        "Action": "kms:*",
        "Resource": "*",
    }
    account.put_key_policy(key, {"Version": "2012-10-17", "Statement": [own, deny]})


REVOCATIONS: dict[str, Revocation] = {
    "the key is disabled": Revocation(lambda account, key: account.disable_key(key)),
    "the key is about to be deleted": Revocation(lambda account, key: account.schedule_key_deletion(key)),
    "the key policy denies": Revocation(_deny_all),
    "the role's policy is gone": Revocation(lambda account, key: account.delete_role_policy("byok")),
    "the role is deleted": Revocation(lambda account, key: account.delete_role("byok")),
    "the external id is changed": Revocation(
        lambda account, key: account.update_trust_policy(
            "byok", policies.trust_policy(VENDOR, "another-external-id")
        ),
        bites_live_session=False,
    ),
    "the trust is withdrawn": Revocation(
        lambda account, key: account.update_trust_policy(
            "byok",
            {
                "Version": "2012-10-17",
                "Statement": [
                    {"Effect": "Deny", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"},
                ],
            },
        ),
        bites_live_session=False,
    ),
}
