"""What the services need of a customer's KMS."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from byok.core.findings import Finding
from byok.core.looks import ConnectionLook
from byok.core.metric_list import KmsOutcome
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


@dataclass(frozen=True, slots=True)
class KmsRequest:
    """A request to a customer's KMS, or to STS on the way there, once it has ended.

    ``code`` is AWS's error code, or the name of botocore's exception where there was no reply; empty without
    an error. ``request_id`` is AWS's; empty without a reply. ``is_aside``: one of a preflight, or about
    another request, so that a failure is no news.
    """

    operation: str
    connection: Connection
    outcome: KmsOutcome
    code: str
    request_id: str
    duration_seconds: float
    is_aside: bool = False


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
    ) -> UnwrappedKey:
        """Unwrap a data key of 32 bytes. ``fresh_session`` assumes the role anew first, so that a change
        of the role's trust policy is noticed."""

    def encrypt(
        self, connection: Connection, plaintext: SecretBytes, context: Mapping[str, str]
    ) -> WrappedKey:
        """Encrypt up to 4096 bytes. Not among the rights that byok always has: for errands.

        The refusal of it, KmsAccessRevoked, revokes nothing.
        """

    def re_encrypt(
        self, source: Connection, target: Connection, ciphertext: bytes, context: Mapping[str, str]
    ) -> WrappedKey:
        """Have KMS wrap a data key under the KMS key of ``target``, as the principal of ``target``; its
        plaintext never leaves KMS. Both KMS keys are in one region, and the context stays.

        For errands, as `encrypt`.
        """

    def refuses_context(self, connection: Connection, ciphertext: bytes, context: Mapping[str, str]) -> bool:
        """Whether KMS refuses to unwrap a data key under a context that is not its own, as it must."""

    def describe_key(self, connection: Connection) -> KmsKeyDescription:
        """Read the KMS key's metadata. Works in every key state: it proves no access."""

    def read_rotation(self, connection: Connection) -> RotationReading:
        """Read what the KMS key says of rotation; what we may not read counts as not said."""

    def check_connection(self, connection: Connection) -> Sequence[Finding]:
        """Try what must work and what must be refused; remedies name the tenant.

        Raises KmsUnavailable only.
        """

    def look_over(self, connection: Connection) -> ConnectionLook:
        """The same checks of a connection that is in use, with what was read on the way. They go beside its
        other calls, and are left undone where its KMS is left alone for a while.

        Raises KmsUnavailable only.
        """


class RequestMetrics(Protocol):
    """What the adapter tells of its requests; a part of `byok.ports.Metrics`."""

    def kms_requested(self, operation: str, outcome: KmsOutcome, tenant: str, seconds: float) -> None:
        """A request to a tenant's KMS ended so, after so long."""
