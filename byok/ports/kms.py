"""What the services need of a customer's KMS."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeAlias
from uuid import UUID

from byok.core.findings import Finding
from byok.core.model import Connection, KmsKeyRotation
from byok.crypto.hazmat import SecretBytes


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A new data key as KMS returns it: wrapped, without its plaintext."""

    ciphertext: bytes
    request_id: str
    key_material_id: str | None


@dataclass(frozen=True, slots=True)
class UnwrappedKey:
    """The secret inside a wrapped key."""

    secret: SecretBytes
    request_id: str


@dataclass(frozen=True, slots=True)
class KmsKeyDescription:
    """What DescribeKey says of a KMS key, in AWS's words."""

    arn: str
    state: str
    spec: str
    usage: str
    manager: str


@dataclass(frozen=True, slots=True)
class RotationReading:
    """What a KMS key says of rotation; ``ignored_tag`` is a tag's value that makes no sense."""

    known: KmsKeyRotation
    ignored_tag: str | None = None


class KmsOutcome(StrEnum):
    """How a request to AWS went."""

    OK = "ok"
    DENIED = "denied"  # the customer, or the state of its key, refuses it
    THROTTLED = "throttled"
    OUTAGE = "outage"  # no answer, or one that says nothing of the customer's will
    REJECTED = "rejected"  # our request or identity is at fault
    INTEGRITY = "integrity"  # the ciphertext does not fit, or what answers is not AWS


@dataclass(frozen=True, slots=True)
class KmsRequest:
    """A request to a customer's KMS, or to STS on the way there, once it has ended.

    ``code`` is AWS's, or the name of botocore's exception where there was no reply, and empty where it went
    well. ``request_id`` is AWS's; empty without a reply. ``is_aside``: sent to learn about another request,
    or to see it refused, so that a failure is no news.
    """

    operation: str
    tenant_id: UUID
    outcome: KmsOutcome
    code: str
    request_id: str
    duration_seconds: float
    is_aside: bool = False


KmsObserver: TypeAlias = Callable[[KmsRequest], None]  # told of each request in the thread that made it


class Kms(Protocol):
    """A customer's KMS key, reached through the tenant's connection.

    Every method raises KmsAccessRevoked, KmsUnavailable, KmsIntegrityError or KmsRequestRejected.
    """

    def generate_data_key(self, connection: Connection, context: Mapping[str, str]) -> WrappedKey:
        """Make a random 256-bit data key; its plaintext never leaves KMS."""

    def decrypt(
        self,
        connection: Connection,
        ciphertext: bytes,
        context: Mapping[str, str],
        *,
        fresh_session: bool = False,
        is_aside: bool = False,
    ) -> UnwrappedKey:
        """Unwrap a data key of 32 bytes. ``fresh_session`` assumes the role anew first, so that a change
        of the role's trust policy is noticed. ``is_aside``: see `KmsRequest`."""

    def describe_key(self, connection: Connection) -> KmsKeyDescription:
        """Read the KMS key's metadata. Works in every key state: it proves no access."""

    def read_rotation(self, connection: Connection) -> RotationReading:
        """Read what the KMS key says of rotation; what we may not read counts as not said."""

    def check_connection(self, connection: Connection, tenant_name: str) -> Sequence[Finding]:
        """Try what must work and what must be refused; remedies name the tenant.

        Raises KmsUnavailable only.
        """
