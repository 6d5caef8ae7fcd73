"""Implements `byok.ports.Kms` on AWS KMS."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import tenacity

from byok.core.arns import RoleArn
from byok.core.findings import Finding
from byok.core.looks import ConnectionLook
from byok.core.model import Connection, KmsKeyRotation
from byok.core.policies import (
    EXPORT_ACTION,
    MIGRATION_SOURCE_ACTION,
    MIGRATION_TARGET_ACTION,
    Right,
)
from byok.core.rotation_period import ROTATION_TAG, parse_rotation_tag
from byok.crypto.hazmat import KEY_BYTES, SecretBytes
from byok.errors import (
    ByokError,
    KmsAccessRevoked,
    KmsBackingOff,
    KmsIntegrityError,
    KmsRequestRejected,
    KmsUnavailable,
)
from byok.kms.bulkhead import Bulkhead
from byok.kms.classify import (
    AWS_ERRORS,
    KEY_STATE_CLASSES,
    KMS_ERROR_CLASSES,
    ErrorClass,
    classify,
    error_code,
    reading_reply,
    to_byok_error,
)
from byok.kms.diagnosis import Vendor
from byok.kms.preflight import Preflight
from byok.kms.requests import Requests
from byok.kms.sessions import Sessions
from byok.ports import (
    Clock,
    KmsKeyDescription,
    RequestLog,
    RequestMetrics,
    RotationReading,
    UnwrappedKey,
    WrappedKey,
)

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient
    from mypy_boto3_kms.type_defs import ListResourceTagsResponseTypeDef

_Reply = TypeVar("_Reply")

_WRONG_CONTEXT = frozenset({"InvalidCiphertextException"})
# The customer does not let us ask, or its key knows no such thing.
_NOT_TOLD = frozenset({"AccessDeniedException", "UnsupportedOperationException"})

# At DEBUG botocore logs whole replies, and a Decrypt reply holds the secret. A level of its own keeps
# that shut whatever level the application gives its root logger.
logging.getLogger("botocore").setLevel(logging.WARNING)


class AwsKms:
    """A customer's KMS key through boto3: explicit key on every call, replies checked, errors classified."""

    def __init__(
        self,
        clock: Clock,
        bulkhead: Bulkhead,
        metrics: RequestMetrics,
        request_log: RequestLog,
        *,
        endpoint_url: str | None = None,
        vendor_role: RoleArn | None = None,
        canary_role: RoleArn | None = None,
        regions: Sequence[str] = (),
    ) -> None:
        self._clock = clock
        self._bulkhead = bulkhead
        self._endpoint_url = endpoint_url
        self._requests = Requests(metrics, request_log)
        self._vendor = Vendor(vendor_role, tuple(regions))
        self._canary_role = canary_role
        self.forget()
        self._retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(
                lambda error: isinstance(error, KmsUnavailable) and not isinstance(error, KmsBackingOff)
            ),
            stop=tenacity.stop_after_attempt(3),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=2),
            reraise=True,
        )

    def forget(self) -> None:
        """Drop all sessions and clients: neither may cross a fork."""
        self._sessions = Sessions(
            self._clock, self._endpoint_url, self._requests, self._canary_role, self._bulkhead.note_assumed
        )
        self._bulkhead.forget()

    def generate_data_key(self, connection: Connection, context: Mapping[str, str]) -> WrappedKey:
        arn = str(connection.kms_key_arn)
        reply = self._call(
            connection,
            "GenerateDataKeyWithoutPlaintext",
            lambda kms: kms.generate_data_key_without_plaintext(
                KeyId=arn, KeySpec="AES_256", EncryptionContext=context
            ),
        )
        with reading_reply("GenerateDataKeyWithoutPlaintext", arn):
            _require_key(reply["KeyId"], arn)
            return WrappedKey(
                ciphertext=reply["CiphertextBlob"],
                request_id=reply["ResponseMetadata"]["RequestId"],
                key_material_id=reply.get("KeyMaterialId"),
            )

    def decrypt(
        self,
        connection: Connection,
        ciphertext: bytes,
        context: Mapping[str, str],
        *,
        fresh_session: bool = False,
    ) -> UnwrappedKey:
        arn = str(connection.kms_key_arn)
        reply = self._call(
            connection,
            "Decrypt",
            lambda kms: kms.decrypt(KeyId=arn, CiphertextBlob=ciphertext, EncryptionContext=context),
            fresh_session=fresh_session,
        )
        with reading_reply("Decrypt", arn):
            secret = SecretBytes(reply["Plaintext"])
            _require_key(reply["KeyId"], arn)
            if len(secret) != KEY_BYTES:
                raise KmsIntegrityError(f"Decrypt on {arn} returned {len(secret)} bytes, not {KEY_BYTES}")
            return UnwrappedKey(secret, reply["ResponseMetadata"]["RequestId"])

    def encrypt(
        self, connection: Connection, plaintext: SecretBytes, context: Mapping[str, str]
    ) -> WrappedKey:
        arn = str(connection.kms_key_arn)
        with plaintext.borrow() as raw:
            reply = self._call(
                connection,
                "Encrypt",
                lambda kms: kms.encrypt(KeyId=arn, Plaintext=bytes(raw), EncryptionContext=context),
                beside=(Right(EXPORT_ACTION, connection.kms_key_arn),),
            )
        with reading_reply("Encrypt", arn):
            _require_key(reply["KeyId"], arn)
            return WrappedKey(reply["CiphertextBlob"], reply["ResponseMetadata"]["RequestId"], None)

    def re_encrypt(
        self, source: Connection, target: Connection, ciphertext: bytes, context: Mapping[str, str]
    ) -> WrappedKey:
        old, new = str(source.kms_key_arn), str(target.kms_key_arn)
        reply = self._call(
            target,
            "ReEncrypt",
            lambda kms: kms.re_encrypt(
                CiphertextBlob=ciphertext,
                SourceKeyId=old,
                SourceEncryptionContext=context,
                DestinationKeyId=new,
                DestinationEncryptionContext=context,
            ),
            beside=(
                Right(MIGRATION_SOURCE_ACTION, source.kms_key_arn),
                Right(MIGRATION_TARGET_ACTION, target.kms_key_arn),
            ),
        )
        with reading_reply("ReEncrypt", new):
            _require_key(reply["SourceKeyId"], old)
            _require_key(reply["KeyId"], new)
            return WrappedKey(
                reply["CiphertextBlob"],
                reply["ResponseMetadata"]["RequestId"],
                reply.get("DestinationKeyMaterialId"),
            )

    def refuses_context(self, connection: Connection, ciphertext: bytes, context: Mapping[str, str]) -> bool:
        arn = str(connection.kms_key_arn)
        try:
            self._call(
                connection,
                "Decrypt",
                lambda kms: kms.decrypt(KeyId=arn, CiphertextBlob=ciphertext, EncryptionContext=context),
                answers=_WRONG_CONTEXT,
            )
        except KmsIntegrityError:
            return True
        return False

    def describe_key(self, connection: Connection) -> KmsKeyDescription:
        arn = str(connection.kms_key_arn)
        reply = self._call(connection, "DescribeKey", lambda kms: kms.describe_key(KeyId=arn))
        with reading_reply("DescribeKey", arn):
            metadata = reply["KeyMetadata"]
            return KmsKeyDescription(
                arn=metadata["Arn"],
                state=metadata["KeyState"],
                spec=metadata["KeySpec"],
                usage=metadata["KeyUsage"],
                manager=metadata["KeyManager"],
            )

    def read_rotation(self, connection: Connection) -> RotationReading:
        arn = str(connection.kms_key_arn)
        described = self._if_allowed(connection, "DescribeKey", lambda kms: kms.describe_key(KeyId=arn))
        status = self._if_allowed(
            connection, "GetKeyRotationStatus", lambda kms: kms.get_key_rotation_status(KeyId=arn)
        )
        tag = self._read_tag(connection) if connection.role_arn is not None else None
        days = None if tag is None else parse_rotation_tag(tag)
        with reading_reply("a question for its rotation", arn):
            rotates = status is not None and status["KeyRotationEnabled"]
            return RotationReading(
                KmsKeyRotation(
                    tag_days=days,
                    period_days=status.get("RotationPeriodInDays") if status and rotates else None,
                    material_id=described and described["KeyMetadata"].get("CurrentKeyMaterialId"),
                ),
                ignored_tag=tag if days is None else None,
            )

    def _read_tag(self, connection: Connection) -> str | None:
        arn, marker = str(connection.kms_key_arn), ""

        def read_page(kms: "KMSClient") -> "ListResourceTagsResponseTypeDef":
            if marker:
                return kms.list_resource_tags(KeyId=arn, Marker=marker)
            return kms.list_resource_tags(KeyId=arn)

        while (page := self._if_allowed(connection, "ListResourceTags", read_page)) is not None:
            with reading_reply("ListResourceTags", arn):
                for tag in page["Tags"]:
                    if tag["TagKey"] == ROTATION_TAG:
                        return tag["TagValue"]
                if not page.get("Truncated"):
                    return None
                marker = page["NextMarker"]
        return None

    def _if_allowed(
        self, connection: Connection, operation: str, request: "Callable[[KMSClient], _Reply]"
    ) -> _Reply | None:
        """The reply, or None where the customer does not let us ask or the key knows no such thing."""
        try:
            return self._call(connection, operation, request, answers=_NOT_TOLD)
        except KmsAccessRevoked as refusal:
            if refusal.aws_code not in _NOT_TOLD:
                raise
        except KmsRequestRejected as refusal:
            # A key without rotation of its own. Anything else, such as trouble with our own identity, says
            # nothing of the key: taken for None it would erase what the customer said.
            if refusal.aws_code not in _NOT_TOLD:
                raise
        return None

    def check_connection(self, connection: Connection) -> Sequence[Finding]:
        self._sessions.forget(connection)
        return self._preflight(connection).run()

    def look_over(self, connection: Connection) -> ConnectionLook:
        admitted = partial(self._bulkhead.admitted, connection)
        return self._preflight(connection, admitted).look_over()

    def _preflight(
        self,
        connection: Connection,
        admitted: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> Preflight:
        asking = (self._sessions, self._requests, self._retrying)
        return Preflight(*asking, self._vendor, connection, admitted)

    def _call(
        self,
        connection: Connection,
        operation: str,
        request: "Callable[[KMSClient], _Reply]",
        *,
        fresh_session: bool = False,
        answers: Collection[str] = (),
        beside: Sequence[Right] = (),
    ) -> _Reply:
        """Send a request as the tenant: outages are retried, a denial is repeated once in a new session.

        ``answers``: codes of refusals that are no trouble to be counted; they are raised all the same.
        ``beside``: see `session_policy`.
        """
        for attempt in self._retrying:
            with attempt, self._bulkhead.admitted(connection):
                return self._call_once(connection, operation, request, fresh_session, answers, beside)
        raise AssertionError("tenacity returns or raises")

    def _call_once(
        self,
        connection: Connection,
        operation: str,
        request: "Callable[[KMSClient], _Reply]",
        fresh_session: bool,
        answers: Collection[str],
        beside: Sequence[Right],
    ) -> _Reply:
        client, arn = self._sessions.kms_client(connection.kms_key_arn.region), str(connection.kms_key_arn)
        try:
            with self._sessions.acting_as(connection, fresh=fresh_session, beside=beside):
                return self._requests.send(
                    connection, operation, arn, lambda: request(client), answers=answers
                )
        except AWS_ERRORS as error:
            error_class = classify(error, KMS_ERROR_CLASSES)
            in_doubt = error_class in (ErrorClass.DENIED, ErrorClass.EXPIRED)
            if in_doubt and connection.role_arn is not None and not fresh_session:
                return self._call_once(connection, operation, request, True, answers, beside)
            raise self._translated(connection, error, error_class, operation) from error

    def _translated(
        self, connection: Connection, error: Exception, error_class: ErrorClass, operation: str
    ) -> ByokError:
        """byok's error; where the key's state is at fault, with what DescribeKey says of it."""
        arn = str(connection.kms_key_arn)
        if error_class is not ErrorClass.STATE and error_code(error) != "DisabledException":
            return to_byok_error(error, error_class, operation, arn)
        client = self._sessions.kms_client(connection.kms_key_arn.region)
        try:
            with self._sessions.acting_as(connection), reading_reply("DescribeKey", arn):
                metadata = self._requests.send(
                    connection, "DescribeKey", arn, lambda: client.describe_key(KeyId=arn), is_aside=True
                )["KeyMetadata"]
                state = metadata["KeyState"]
        except (*AWS_ERRORS, ByokError):
            # Nobody tells the state, so nothing says that the customer took anything away: a key whose
            # external key store is slow gives this code, too.
            error_class = ErrorClass.OUTAGE if error_class is ErrorClass.STATE else error_class
            return to_byok_error(error, error_class, operation, arn)
        if error_class is ErrorClass.STATE:
            error_class = KEY_STATE_CLASSES.get(state, ErrorClass.OUTAGE)
        return to_byok_error(
            error, error_class, operation, arn, key_state=state, deletion_date=metadata.get("DeletionDate")
        )


def _require_key(replied: str, asked: str) -> None:
    if replied != asked:
        raise KmsIntegrityError(f"KMS answered with key {replied} instead of {asked}")
