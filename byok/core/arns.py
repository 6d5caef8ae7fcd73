"""The ARNs that a customer tells us: of its KMS key and of its role."""

import re
from dataclasses import dataclass

from byok.errors import InvalidArn

_KMS_KEY_ARN = re.compile(
    r"arn:(?P<partition>aws|aws-cn|aws-us-gov):kms:(?P<region>[a-z]{2}(?:-[a-z]+)+-\d)"
    r":(?P<account>\d{12}):key/(?P<key_id>mrk-[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
)
_ROLE_ARN = re.compile(
    r"arn:(?P<partition>aws|aws-cn|aws-us-gov):iam::(?P<account>\d{12}):role/(?P<name>[\w+=,.@/-]{1,512})",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class KmsKeyArn:
    """The parsed ARN of a customer's KMS key. ``str()`` gives the ARN back."""

    partition: str
    region: str
    account: str
    key_id: str

    @classmethod
    def parse(cls, text: str) -> "KmsKeyArn":
        """Parse a key ARN; an alias ARN is refused, since the customer can point it elsewhere.

        Raises:
            InvalidArn: not the ARN of a KMS key.
        """
        match = _KMS_KEY_ARN.fullmatch(text)
        if match is None:
            raise InvalidArn(
                f"{text!r} is not the ARN of a KMS key",
                remedy="it reads arn:aws:kms:REGION:ACCOUNT:key/KEY-ID; an alias ARN will not do",
            )
        return cls(**match.groupdict())

    def __str__(self) -> str:
        return f"arn:{self.partition}:kms:{self.region}:{self.account}:key/{self.key_id}"


@dataclass(frozen=True, slots=True)
class RoleArn:
    """The parsed ARN of an IAM role. ``str()`` gives the ARN back."""

    partition: str
    account: str
    name: str

    @classmethod
    def parse(cls, text: str) -> "RoleArn":
        """Parse a role ARN.

        Raises:
            InvalidArn: not the ARN of an IAM role.
        """
        match = _ROLE_ARN.fullmatch(text)
        if match is None:
            raise InvalidArn(
                f"{text!r} is not the ARN of an IAM role",
                remedy="it reads arn:aws:iam::ACCOUNT:role/NAME",
            )
        return cls(**match.groupdict())

    def __str__(self) -> str:
        return f"arn:{self.partition}:iam::{self.account}:role/{self.name}"
