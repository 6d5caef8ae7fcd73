"""Checks of a tenant's connection: what must work, what must be refused."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import tenacity
from botocore.credentials import ReadOnlyCredentials

from byok.core.encryption_context import probe_context
from byok.core.findings import Cause, Finding, Verdict
from byok.core.model import Connection
from byok.core.policies import FOREIGN_TENANT_ID, UNNEEDED_ACTIONS
from byok.errors import KmsAccessRevoked, KmsRequestRejected
from byok.kms.classify import AWS_ERRORS, KMS_ERROR_CLASSES, ErrorClass, classify, error_code, to_byok_error
from byok.kms.diagnosis import Outcome, Report, Vendor, layer_at_fault, message_of, request_id_of
from byok.kms.sessions import Sessions, signing_with

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient

_Result = TypeVar("_Result")

# A blob for dry runs of ReEncrypt and Decrypt: AWS looks at rights alone under IGNORE_CIPHERTEXT.
_ANY_BLOB = b"ignored"
_IGNORE: Final[Sequence[Literal["IGNORE_CIPHERTEXT"]]] = ["IGNORE_CIPHERTEXT"]
_GENERATE, _DECRYPT = "kms:GenerateDataKeyWithoutPlaintext", "kms:Decrypt"
_CAUSES_BY_STATE = {
    "Disabled": Cause.KEY_DISABLED,
    "PendingDeletion": Cause.KEY_PENDING_DELETION,
    "PendingReplicaDeletion": Cause.KEY_PENDING_DELETION,
    "PendingImport": Cause.KEY_WITHOUT_MATERIAL,
}


class _Stop(Exception):  # no error: the other checks would say the same again
    """The checks that follow make no sense."""


class Preflight:
    """One run over a connection."""

    def __init__(
        self, sessions: Sessions, retrying: tenacity.Retrying, vendor: Vendor, connection: Connection
    ) -> None:
        self._sessions = sessions
        self._retrying = retrying
        self._vendor = vendor
        self._connection = connection
        self._key = connection.kms_key_arn
        self._arn = str(connection.kms_key_arn)
        self._own = probe_context(connection.tenant_id)
        self._report = Report(connection, vendor)
        self._can_look = True
        self._credentials: ReadOnlyCredentials | None = None

    def run(self) -> Sequence[Finding]:
        """Run the checks, up to one that makes the others meaningless.

        Raises:
            KmsUnavailable: AWS can't be reached, so nothing is known.
        """
        try:
            self._arns()
            if self._connection.role_arn is not None:
                self._role()
            self._caller()
            self._kms_key()
            self._needed_rights()
            self._foreign_contexts()
            self._unneeded_rights()
            self._round_trip()
            self._options()
        except _Stop:
            pass
        return self._report.findings

    # --- the checks, in order ---------------------------------------------------------------------

    def _arns(self) -> None:
        check, key, vendor = "arns-fit", self._key, self._vendor
        if vendor.role is not None and key.partition != vendor.role.partition:
            self._report.failed(
                check, self._arn, Cause.OTHER_PARTITION, vendor_partition=vendor.role.partition
            )
            raise _Stop
        if vendor.role is not None and key.account == vendor.role.account:
            self._report.failed(check, self._arn, Cause.KEY_IN_VENDOR_ACCOUNT)
            raise _Stop
        if vendor.regions and key.region not in vendor.regions:
            self._report.failed(check, self._arn, Cause.REGION_NOT_SERVED, regions=", ".join(vendor.regions))
            raise _Stop
        self._report.passed(check, f"account {key.account}, {key.region}")

    def _role(self) -> None:
        check = "role-can-be-assumed"
        try:
            role = self._retried(
                lambda: self._sessions.assume_role(self._connection, external_id=self._connection.external_id)
            )
        except KmsAccessRevoked as refused:
            disabled = refused.aws_code in ("RegionDisabledException", "OptInRequired")
            cause = Cause.REGION_DISABLED if disabled else Cause.ROLE_REFUSES_US
            self._report.failed(check, refused.aws_code, cause, may_pass_later=not disabled)
            raise _Stop from None
        except KmsRequestRejected as rejected:
            self._report.failed(check, rejected.message, Cause.OUR_IDENTITY)
            raise _Stop from None
        self._credentials = role.credentials
        self._report.passed(check, f"assumed {self._connection.role_arn}")
        self._must_not_assume("role-refuses-missing-external-id", None, Cause.EXTERNAL_ID_NOT_REQUIRED)
        self._must_not_assume(
            "role-refuses-wrong-external-id", secrets.token_urlsafe(24), Cause.EXTERNAL_ID_NOT_CHECKED
        )

    def _must_not_assume(self, check: str, external_id: str | None, cause: Cause) -> None:
        try:
            self._retried(lambda: self._sessions.assume_role(self._connection, external_id=external_id))
        except KmsAccessRevoked as refused:
            self._report.passed(check, f"refused: {refused.aws_code}")
        else:
            self._report.failed(check, "AssumeRole succeeded", cause)

    def _caller(self) -> None:
        if self._connection.role_arn is None:
            return
        account = self._retried(lambda: self._sessions.caller_account(self._key.region, self._signer()))
        if account == self._key.account:
            self._report.passed("session-is-in-key-account", account)
        else:
            self._report.failed(
                "session-is-in-key-account", account, Cause.WRONG_ACCOUNT, seen_account=account
            )

    def _kms_key(self) -> None:
        check = "kms-key-is-usable"
        outcome = self._ask(lambda kms: kms.describe_key(KeyId=self._arn))
        if outcome.code:
            self._can_look = False
            self._report.refused(check, outcome, "kms:DescribeKey")
            if not outcome.is_denied:
                raise _Stop
            return
        metadata = outcome.reply["KeyMetadata"]
        state, spec, usage = metadata["KeyState"], metadata["KeySpec"], metadata["KeyUsage"]
        date = metadata.get("DeletionDate")
        told = {
            "state": state,
            "spec": spec,
            "usage": usage,
            "deletion_date": f" on {date:%Y-%m-%d}" if date else "",
        }
        if metadata["KeyManager"] != "CUSTOMER":
            self._report.failed(check, f"KeyManager {metadata['KeyManager']}", Cause.KEY_NOT_CUSTOMER_MANAGED)
        elif (spec, usage) != ("SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT"):
            self._report.failed(check, f"{spec}, {usage}", Cause.KEY_OF_WRONG_KIND, **told)
        elif state != "Enabled":
            self._report.failed(check, state, _CAUSES_BY_STATE.get(state, Cause.KEY_NOT_READY), **told)
        else:
            self._report.passed(
                check, f"enabled, symmetric, customer managed, origin {metadata.get('Origin')}"
            )
            return
        raise _Stop

    def _needed_rights(self) -> None:
        """Whether we may do what we need, by dry runs: they name each right that is missing."""
        tried = (
            ("may-generate", _GENERATE, self._dry_generate(self._own)),
            ("may-decrypt", _DECRYPT, self._dry_decrypt(self._own)),
        )
        if self._can_look and all(_is_left_out(outcome) for _, _, outcome in tried):
            for check, _, outcome in tried:
                self._report.failed(
                    check, outcome.code, Cause.NOT_WITH_OUR_CONTEXT,
                    may_pass_later=True, layer=layer_at_fault(outcome).name,
                )  # fmt: skip
            raise _Stop
        for check, action, outcome in tried:
            if outcome.code:
                self._report.refused(check, outcome, action)
            else:
                self._report.passed(check, f"{action} would succeed")
        if any(outcome.code for _, _, outcome in tried):
            raise _Stop

    def _foreign_contexts(self) -> None:
        """In key-policy mode nothing but this keeps another tenant from registering the same KMS key."""
        contexts = {
            "foreign-tenant-context-is-refused": (probe_context(FOREIGN_TENANT_ID), "another tenant"),
            "missing-context-is-refused": ({}, "nobody"),
        }
        for check, (context, what) in contexts.items():
            outcomes = [self._dry_generate(context), self._dry_decrypt(context)]
            if all(outcome.is_denied for outcome in outcomes):
                self._report.passed(check, "refused: AccessDeniedException")
                continue
            verdict = Verdict.FAILED if self._connection.role_arn is None else Verdict.WARNING
            self._report.add(check, verdict, "it would succeed", Cause.CONTEXT_NOT_ENFORCED, what=what)

    def _unneeded_rights(self) -> None:
        """What the customer gave beyond need, seen without our session policy, by dry runs."""
        check = "no-unneeded-rights"
        credentials = self._retried(lambda: self._sessions.unrestricted(self._connection))
        dry_runs = self._dry_runs_of_unneeded_actions()
        excess = [action for action in UNNEEDED_ACTIONS if not self._ask(dry_runs[action], credentials).code]
        if excess:
            principal = "key policy" if self._connection.role_arn is None else "role"
            self._report.add(
                check, Verdict.WARNING, "by dry runs", Cause.TOO_MANY_RIGHTS,
                principal=principal, actions=", ".join(excess),
            )  # fmt: skip
        else:
            self._report.passed(check, f"refused: {', '.join(UNNEEDED_ACTIONS)}")

    def _round_trip(self) -> None:
        made = self._ask(
            lambda kms: kms.generate_data_key_without_plaintext(
                KeyId=self._arn, KeySpec="AES_256", EncryptionContext=self._own
            )
        )
        if made.code:
            self._report.refused("round-trip", made, _GENERATE)
            raise _Stop
        blob = made.reply["CiphertextBlob"]
        opened = self._decrypt(blob, self._own)
        if opened.code:
            self._report.refused("round-trip", opened, _DECRYPT)
            raise _Stop
        if opened.reply["KeyId"] != self._arn or len(opened.reply["Plaintext"]) != 32:
            what = f"key {opened.reply['KeyId']}, {len(opened.reply['Plaintext'])} bytes"
            self._report.failed("round-trip", what, Cause.NOT_AWS_KMS, what=what)
            raise _Stop
        self._report.passed("round-trip", f"generated and decrypted (request {request_id_of(made)})")
        wrong = self._decrypt(blob, self._own | {"byok-version": "0"})
        if wrong.code == "InvalidCiphertextException":
            self._report.passed("wrong-context-is-refused", f"refused: {wrong.code}")
        else:
            what = "it decrypts under another encryption context"
            self._report.failed(
                "wrong-context-is-refused", wrong.code or "decrypted", Cause.NOT_AWS_KMS, what=what
            )

    def _options(self) -> None:
        self._note_option(
            "rotation-status-is-readable",
            self._ask(lambda kms: kms.get_key_rotation_status(KeyId=self._arn)),
            "its rotation period is not followed",
        )
        if self._connection.role_arn is None:
            self._report.add(
                "tags-are-readable", Verdict.NOTE, "never across accounts: tags are not followed"
            )
            return
        self._note_option(
            "tags-are-readable",
            self._ask(lambda kms: kms.list_resource_tags(KeyId=self._arn)),
            "its tag byok:rotation-days is not followed",
        )

    def _note_option(self, check: str, outcome: Outcome, without: str) -> None:
        if outcome.code:
            self._report.add(check, Verdict.NOTE, f"{outcome.code}: {without}")
        else:
            self._report.passed(check, "yes")

    # --- requests ---------------------------------------------------------------------------------

    def _dry_generate(self, context: Mapping[str, str]) -> Outcome:
        return self._ask(
            lambda kms: kms.generate_data_key_without_plaintext(
                KeyId=self._arn, KeySpec="AES_256", EncryptionContext=context, DryRun=True
            )
        )

    def _dry_decrypt(self, context: Mapping[str, str]) -> Outcome:
        return self._ask(
            lambda kms: kms.decrypt(
                KeyId=self._arn, EncryptionContext=context, DryRun=True, DryRunModifiers=_IGNORE
            )
        )

    def _decrypt(self, blob: bytes, context: Mapping[str, str]) -> Outcome:
        return self._ask(
            lambda kms: kms.decrypt(KeyId=self._arn, CiphertextBlob=blob, EncryptionContext=context)
        )

    def _dry_runs_of_unneeded_actions(self) -> dict[str, "Callable[[KMSClient], Any]"]:
        arn, own = self._arn, self._own
        grantee = str(
            self._vendor.role or self._connection.role_arn or f"arn:aws:iam::{self._key.account}:root"
        )
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
        request: "Callable[[KMSClient], Mapping[str, Any]]",
        credentials: ReadOnlyCredentials | None = None,
    ) -> Outcome:
        """How a request ends, as the tenant. Outages are retried, then raised."""
        client = self._sessions.kms_client(self._key.region)

        def once() -> Outcome:
            try:
                with signing_with(credentials or self._signer()):
                    return Outcome(request(client))
            except AWS_ERRORS as error:
                code = error_code(error)
                if code == "DryRunOperationException":
                    return Outcome({})
                if classify(error, KMS_ERROR_CLASSES) is ErrorClass.OUTAGE:
                    raise to_byok_error(error, ErrorClass.OUTAGE, "a check", self._arn) from error
                return Outcome({}, code, message_of(error))

        return self._retried(once)

    def _retried(self, call: Callable[[], _Result]) -> _Result:
        return self._retrying(call)

    def _signer(self) -> ReadOnlyCredentials:
        if self._credentials is None:
            self._credentials = self._sessions.own_credentials()
        return self._credentials


def _is_left_out(outcome: Outcome) -> bool:
    """Whether no Allow applies, and it is not that the key policy leaves everything out."""
    return outcome.is_denied and not layer_at_fault(outcome).is_explicit
