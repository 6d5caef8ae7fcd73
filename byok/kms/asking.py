"""The requests of a preflight: how each ends, as the tenant. Outages are retried, then raised."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final, Literal

import tenacity
from botocore.credentials import ReadOnlyCredentials

from byok.core.arns import RoleArn
from byok.core.encryption_context import probe_context
from byok.core.model import Connection
from byok.core.policies import UNNEEDED_ACTIONS
from byok.kms.classify import (
    AWS_ERRORS,
    KMS_ERROR_CLASSES,
    ErrorClass,
    classify,
    error_code,
    to_byok_error,
)
from byok.kms.diagnosis import Outcome, message_of
from byok.kms.requests import Requests
from byok.kms.sessions import Sessions
from byok.kms.signing import signing_with

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient

# Dry runs of ReEncrypt and Decrypt look at rights alone, and need no blob.
_IGNORE: Final[Sequence[Literal["IGNORE_CIPHERTEXT"]]] = ["IGNORE_CIPHERTEXT"]


class Asker:
    """Asks AWS about one connection; each request to KMS is made once it is ``admitted``."""

    def __init__(
        self,
        sessions: Sessions,
        requests: Requests,
        retrying: tenacity.Retrying,
        connection: Connection,
        vendor_role: RoleArn | None,
        admitted: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._sessions = sessions
        self._requests = requests
        self._retrying = retrying
        self._connection = connection
        self._vendor_role = vendor_role
        self._admitted = admitted
        self._arn = str(connection.kms_key_arn)
        self._credentials: ReadOnlyCredentials | None = None

    def assume(self) -> None:
        """Assume the role; what follows is asked in this session."""
        self._credentials = self._retrying(
            lambda: self._sessions.assume_role(
                self._connection, external_id=self._connection.external_id, is_aside=True
            )
        ).credentials

    def try_to_assume(self, external_id: str | None) -> None:
        """Assume the role under another external id, for nothing."""
        self._retrying(
            lambda: self._sessions.assume_role(self._connection, external_id=external_id, is_aside=True)
        )

    def caller_account(self) -> str:
        """The account that we act in."""
        account: str = self._retrying(lambda: self._sessions.caller_account(self._connection, self._signer()))
        return account

    def describe(self) -> Outcome:
        return self._ask("DescribeKey", lambda kms: kms.describe_key(KeyId=self._arn))

    def rotation_status(self) -> Outcome:
        return self._ask("GetKeyRotationStatus", lambda kms: kms.get_key_rotation_status(KeyId=self._arn))

    def tags(self) -> Outcome:
        return self._ask("ListResourceTags", lambda kms: kms.list_resource_tags(KeyId=self._arn))

    def generate(self, context: Mapping[str, str], *, dry_run: bool = False) -> Outcome:
        return self._ask(
            "GenerateDataKeyWithoutPlaintext",
            lambda kms: kms.generate_data_key_without_plaintext(
                KeyId=self._arn, KeySpec="AES_256", EncryptionContext=context, DryRun=dry_run
            ),
        )

    def decrypt(self, blob: bytes, context: Mapping[str, str]) -> Outcome:
        return self._ask(
            "Decrypt",
            lambda kms: kms.decrypt(KeyId=self._arn, CiphertextBlob=blob, EncryptionContext=context),
        )

    def dry_decrypt(self, context: Mapping[str, str]) -> Outcome:
        return self._ask(
            "Decrypt",
            lambda kms: kms.decrypt(
                KeyId=self._arn, EncryptionContext=context, DryRun=True, DryRunModifiers=_IGNORE
            ),
        )

    def unneeded(self) -> Mapping[str, Outcome]:
        """Dry runs of what byok never does, by action, in a session without our session policy."""
        everything = self._retrying(lambda: self._sessions.unrestricted(self._connection))
        requests = self._unneeded_requests()
        return {
            action: self._ask(_operation(action), requests[action], everything) for action in UNNEEDED_ACTIONS
        }

    def _unneeded_requests(self) -> Mapping[str, "Callable[[KMSClient], Any]"]:
        arn, own = self._arn, probe_context(self._connection.tenant_id)
        account = self._connection.kms_key_arn.account
        grantee = str(self._vendor_role or self._connection.role_arn or f"arn:aws:iam::{account}:root")
        return {
            "kms:Encrypt": lambda kms: kms.encrypt(
                KeyId=arn, Plaintext=b"probe", EncryptionContext=own, DryRun=True
            ),
            "kms:GenerateDataKey": lambda kms: kms.generate_data_key(
                KeyId=arn, KeySpec="AES_256", EncryptionContext=own, DryRun=True
            ),
            "kms:ReEncrypt*": lambda kms: kms.re_encrypt(
                SourceKeyId=arn,
                DestinationKeyId=arn,
                SourceEncryptionContext=own,
                DestinationEncryptionContext=own,
                DryRun=True,
                DryRunModifiers=_IGNORE,
            ),
            "kms:CreateGrant": lambda kms: kms.create_grant(
                KeyId=arn, GranteePrincipal=grantee, Operations=["DescribeKey"], DryRun=True
            ),
        }

    def _ask(
        self,
        operation: str,
        request: "Callable[[KMSClient], Mapping[str, Any]]",
        credentials: ReadOnlyCredentials | None = None,
    ) -> Outcome:
        client = self._sessions.kms_client(self._connection.kms_key_arn.region)

        def once() -> Outcome:
            try:
                with signing_with(credentials or self._signer()):
                    # Aside: what is refused here is a finding, and findings are what is asked for.
                    reply = self._requests.send(
                        self._connection,
                        operation,
                        self._arn,
                        lambda: request(client),
                        is_aside=True,
                    )
                    return Outcome(reply)
            except AWS_ERRORS as error:
                code = error_code(error)
                if code == "DryRunOperationException":
                    return Outcome({})
                if classify(error, KMS_ERROR_CLASSES) is ErrorClass.OUTAGE:
                    raise to_byok_error(error, ErrorClass.OUTAGE, "a check", self._arn) from error
                return Outcome({}, code, message_of(error))

        def when_admitted() -> Outcome:
            with self._admitted():
                return once()

        outcome: Outcome = self._retrying(when_admitted)
        return outcome

    def _signer(self) -> ReadOnlyCredentials:
        if self._credentials is None:
            self._credentials = self._sessions.own_credentials()
        return self._credentials


def _operation(action: str) -> str:
    """The operation of an IAM action, as CloudTrail names it."""
    return action.removeprefix("kms:").removesuffix("*")
