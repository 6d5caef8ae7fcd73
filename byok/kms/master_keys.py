"""Master keys that a KMS key of the vendor's own wraps. Asked once a process, at its start.

Signed by the process's own AWS identity, as no tenant. Nothing of it stays: no client crosses a fork.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import boto3
import tenacity

from byok.core.arns import KmsKeyArn
from byok.core.encryption_context import master_key_context
from byok.crypto.hazmat import KEY_BYTES, SecretBytes
from byok.errors import ByokError, InvalidMasterKey, KmsUnavailable
from byok.kms.classify import (
    AWS_ERRORS,
    KMS_ERROR_CLASSES,
    ErrorClass,
    classify,
    error_code,
    reading_reply,
    request_id,
)
from byok.kms.signing import CLIENT_CONFIG

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient

_Reply = TypeVar("_Reply")

_REMEDIES = {
    ErrorClass.DENIED: "let this process's role use {action} on it, in its policy and in the key's",
    ErrorClass.REVOKED: "enable the KMS key, or name the right one; its copy in escrow serves meanwhile",
    ErrorClass.STATE: "enable the KMS key, or cancel its deletion; its copy in escrow serves meanwhile",
    ErrorClass.INTEGRITY: "the entry is of another id or another KMS key: compare it with the backup",
    ErrorClass.EXPIRED: "check this process's AWS credentials and clock",
    ErrorClass.REJECTED: "check this process's AWS credentials, and that the KMS key is a symmetric one",
}
_retrying = tenacity.Retrying(
    retry=tenacity.retry_if_exception_type(KmsUnavailable),
    stop=tenacity.stop_after_attempt(3),
    wait=tenacity.wait_random_exponential(multiplier=0.2, max=2),
    reraise=True,
)


class VendorKms:
    """The vendor's KMS keys. ``endpoint_url`` is the simulator's; None: AWS."""

    def __init__(self, endpoint_url: str | None) -> None:
        self._endpoint_url = endpoint_url

    def unwrap(self, master_key_id: str, kms_key_arn: KmsKeyArn, wrapped_key: bytes) -> SecretBytes:
        """The master key inside a wrapped one.

        Raises:
            InvalidMasterKey: KMS refuses, or answers with what is no master key; what to do.
            KmsUnavailable: KMS does not answer now.
        """
        arn = str(kms_key_arn)
        reply = self._ask(
            master_key_id,
            kms_key_arn,
            "Decrypt",
            lambda kms: kms.decrypt(
                KeyId=arn, CiphertextBlob=wrapped_key, EncryptionContext=master_key_context(master_key_id)
            ),
        )
        with reading_reply("Decrypt", arn):
            secret = SecretBytes(reply["Plaintext"])
            _require_key(master_key_id, reply["KeyId"], arn)
        if len(secret) != KEY_BYTES:
            raise InvalidMasterKey(
                f"master key {master_key_id!r}: {arn} unwrapped {len(secret)} bytes, not {KEY_BYTES}",
                remedy="byok master-key generate --kms-key-arn makes one",
            )
        return secret

    def generate(self, master_key_id: str, kms_key_arn: KmsKeyArn) -> bytes:
        """A new master key, wrapped; its plaintext never leaves KMS.

        Raises:
            InvalidMasterKey, KmsUnavailable: as `unwrap`.
        """
        arn = str(kms_key_arn)
        reply = self._ask(
            master_key_id,
            kms_key_arn,
            "GenerateDataKeyWithoutPlaintext",
            lambda kms: kms.generate_data_key_without_plaintext(
                KeyId=arn, KeySpec="AES_256", EncryptionContext=master_key_context(master_key_id)
            ),
        )
        with reading_reply("GenerateDataKeyWithoutPlaintext", arn):
            _require_key(master_key_id, reply["KeyId"], arn)
            return reply["CiphertextBlob"]

    def _ask(
        self,
        master_key_id: str,
        kms_key_arn: KmsKeyArn,
        operation: str,
        request: "Callable[[KMSClient], _Reply]",
    ) -> _Reply:
        for attempt in _retrying:
            with attempt, reading_reply(operation, str(kms_key_arn)):
                try:
                    client = boto3.session.Session().client(
                        "kms",
                        region_name=kms_key_arn.region,
                        endpoint_url=self._endpoint_url,
                        config=CLIENT_CONFIG,
                    )
                    return request(client)
                except AWS_ERRORS as error:
                    raise _translated(error, master_key_id, operation, kms_key_arn) from error
        raise AssertionError("tenacity returns or raises")


def _translated(error: Exception, master_key_id: str, operation: str, kms_key_arn: KmsKeyArn) -> ByokError:
    """Never a customer's revocation: it is the vendor's own key, and this process does not start."""
    error_class, request = classify(error, KMS_ERROR_CLASSES), request_id(error)
    message = f"master key {master_key_id!r}: {operation} on {kms_key_arn}: {error_code(error)}"
    message += f" (request {request})" if request else ""
    if error_class is ErrorClass.OUTAGE:
        return KmsUnavailable(message, remedy="start again as soon as the vendor's KMS answers")
    return InvalidMasterKey(message, remedy=_REMEDIES[error_class].format(action=f"kms:{operation}"))


def _require_key(master_key_id: str, replied: str, asked: str) -> None:
    if replied != asked:
        raise InvalidMasterKey(
            f"master key {master_key_id!r}: KMS answered with key {replied} instead of {asked}",
            remedy="find out what answers in AWS's place",
        )
