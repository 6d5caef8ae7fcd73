"""Implements `byok.ports.Kms` on AWS KMS."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

import tenacity

from byok.core.model import Check, Connection
from byok.crypto.hazmat import KEY_BYTES, SecretBytes
from byok.errors import KmsIntegrityError, KmsUnavailable
from byok.kms.classify import (
    AWS_ERRORS,
    KEY_STATE_CLASSES,
    KMS_ERROR_CLASSES,
    ErrorClass,
    classify,
    to_byok_error,
)
from byok.kms.preflight import Preflight
from byok.kms.sessions import Sessions
from byok.ports import Clock, KmsKeyDescription, UnwrappedKey, WrappedKey

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient

_Reply = TypeVar("_Reply")

# At DEBUG botocore logs whole replies, and a Decrypt reply holds the secret. A level of its own keeps
# that shut whatever level the application gives its root logger.
logging.getLogger("botocore").setLevel(logging.WARNING)


class AwsKms:
    """A customer's KMS key through boto3: explicit key on every call, replies checked, errors classified."""

    def __init__(self, clock: Clock, endpoint_url: str | None = None) -> None:
        self._clock = clock
        self._endpoint_url = endpoint_url
        self.forget()
        self._retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(KmsUnavailable),
            stop=tenacity.stop_after_attempt(3),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=2),
            reraise=True,
        )

    def forget(self) -> None:
        """Drop all sessions and clients: neither may cross a fork."""
        self._sessions = Sessions(self._clock, self._endpoint_url)

    def generate_data_key(self, connection: Connection, context: Mapping[str, str]) -> WrappedKey:
        arn = str(connection.kms_key_arn)
        reply = self._call(
            connection,
            "GenerateDataKeyWithoutPlaintext",
            lambda kms: kms.generate_data_key_without_plaintext(
                KeyId=arn, KeySpec="AES_256", EncryptionContext=context
            ),
        )
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
        secret = SecretBytes(reply["Plaintext"])
        _require_key(reply["KeyId"], arn)
        if len(secret) != KEY_BYTES:
            raise KmsIntegrityError(f"Decrypt on {arn} returned {len(secret)} bytes, not {KEY_BYTES}")
        return UnwrappedKey(secret, reply["ResponseMetadata"]["RequestId"])

    def describe_key(self, connection: Connection) -> KmsKeyDescription:
        arn = str(connection.kms_key_arn)
        reply = self._call(connection, "DescribeKey", lambda kms: kms.describe_key(KeyId=arn))
        metadata = reply["KeyMetadata"]
        return KmsKeyDescription(
            arn=metadata["Arn"],
            state=metadata["KeyState"],
            spec=metadata["KeySpec"],
            usage=metadata["KeyUsage"],
            manager=metadata["KeyManager"],
        )

    def check_connection(self, connection: Connection, tenant_id: UUID) -> Sequence[Check]:
        self._sessions.forget(connection)
        return Preflight(self, self._sessions, connection, tenant_id).run()

    def _call(
        self,
        connection: Connection,
        operation: str,
        request: "Callable[[KMSClient], _Reply]",
        *,
        fresh_session: bool = False,
    ) -> _Reply:
        """Send a request as the tenant: outages are retried, a denial is repeated once in a new session."""
        for attempt in self._retrying:
            with attempt:
                return self._call_once(connection, operation, request, fresh_session)
        raise AssertionError("tenacity returns or raises")

    def _call_once(
        self,
        connection: Connection,
        operation: str,
        request: "Callable[[KMSClient], _Reply]",
        fresh_session: bool,
    ) -> _Reply:
        client = self._sessions.kms_client(connection.kms_key_arn.region)
        try:
            with self._sessions.acting_as(connection, fresh=fresh_session):
                return request(client)
        except AWS_ERRORS as error:
            error_class = self._classify(connection, error)
            in_doubt = error_class in (ErrorClass.DENIED, ErrorClass.EXPIRED)
            if in_doubt and connection.role_arn is not None and not fresh_session:
                return self._call_once(connection, operation, request, fresh_session=True)
            raise to_byok_error(error, error_class, operation, str(connection.kms_key_arn)) from error

    def _classify(self, connection: Connection, error: Exception) -> ErrorClass:
        error_class = classify(error, KMS_ERROR_CLASSES)
        if error_class is not ErrorClass.STATE:
            return error_class
        client = self._sessions.kms_client(connection.kms_key_arn.region)
        try:
            with self._sessions.acting_as(connection):
                reply = client.describe_key(KeyId=str(connection.kms_key_arn))
        except AWS_ERRORS as describe_error:
            return classify(describe_error, KMS_ERROR_CLASSES)
        return KEY_STATE_CLASSES.get(reply["KeyMetadata"]["KeyState"], ErrorClass.OUTAGE)


def _require_key(replied: str, asked: str) -> None:
    if replied != asked:
        raise KmsIntegrityError(f"KMS answered with key {replied} instead of {asked}")
