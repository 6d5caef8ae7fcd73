"""Checks of a tenant's connection: what must work, what must be refused."""

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import tenacity

from byok.core.encryption_context import probe_context
from byok.core.findings import Cause, Finding, Verdict
from byok.core.looks import ConnectionLook, KmsKeyFacts
from byok.core.model import Connection
from byok.core.policies import FOREIGN_TENANT_ID
from byok.crypto.hazmat import KEY_BYTES
from byok.errors import ByokError, KmsAccessRevoked, KmsRequestRejected, KmsUnavailable
from byok.kms.asking import Asker
from byok.kms.classify import reading_reply
from byok.kms.diagnosis import Outcome, Report, Vendor, request_id_of
from byok.kms.requests import Requests
from byok.kms.sessions import Sessions

_GENERATE, _DECRYPT = "kms:GenerateDataKeyWithoutPlaintext", "kms:Decrypt"


class _Stop(Exception):  # no error: the other checks would say the same again
    """The checks that follow make no sense."""


class Preflight:
    """One run over a connection; each request to KMS is made once it is ``admitted``."""

    def __init__(
        self,
        sessions: Sessions,
        requests: Requests,
        retrying: tenacity.Retrying,
        vendor: Vendor,
        connection: Connection,
        admitted: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._vendor = vendor
        self._connection = connection
        self._key = connection.kms_key_arn
        self._arn = str(connection.kms_key_arn)
        self._own = probe_context(connection.tenant_id)
        self._report = Report(connection, vendor)
        self._aws = Asker(sessions, requests, retrying, connection, vendor.role, admitted)
        self._can_look = True
        self._facts: KmsKeyFacts | None = None
        self._rotates: bool | None = None

    def look_over(self) -> ConnectionLook:
        """Run the checks, and tell what was read on the way as well.

        Raises:
            KmsUnavailable: AWS can't be reached, so nothing is known.
        """
        findings = self.run()
        return ConnectionLook(findings, self._facts, self._rotates)

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

    @contextmanager
    def _row(self, check: str, action: str, *, goes_on: bool = False) -> Iterator[None]:
        """Whatever goes wrong inside is a row like any other: what was found before is not lost."""
        try:
            yield
        except KmsUnavailable:
            raise
        except ByokError as error:
            self._report.broke(check, error, action)
            if not goes_on:
                raise _Stop from None

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
        with self._row(check, "sts:AssumeRole"):
            try:
                self._aws.assume()
            except KmsAccessRevoked as refused:
                disabled = refused.aws_code in ("RegionDisabledException", "OptInRequired")
                cause = Cause.REGION_DISABLED if disabled else Cause.ROLE_REFUSES_US
                self._report.failed(check, refused.aws_code, cause, may_pass_later=not disabled)
                raise _Stop from None
            except KmsRequestRejected as rejected:
                self._report.failed(check, rejected.message, Cause.OUR_IDENTITY)
                raise _Stop from None
        self._report.passed(check, f"assumed {self._connection.role_arn}")
        self._must_not_assume("role-refuses-missing-external-id", None, Cause.EXTERNAL_ID_NOT_REQUIRED)
        self._must_not_assume(
            "role-refuses-wrong-external-id", secrets.token_urlsafe(24), Cause.EXTERNAL_ID_NOT_CHECKED
        )

    def _must_not_assume(self, check: str, external_id: str | None, cause: Cause) -> None:
        with self._row(check, "sts:AssumeRole", goes_on=True):
            try:
                self._aws.try_to_assume(external_id)
            except KmsAccessRevoked as refused:
                if refused.aws_code != "AccessDenied":  # that was not for the external id
                    raise
                self._report.passed(check, f"refused: {refused.aws_code}")
            else:
                self._report.failed(check, "AssumeRole succeeded", cause)

    def _caller(self) -> None:
        check = "session-is-in-key-account"
        with self._row(check, "sts:GetCallerIdentity", goes_on=True):
            account = self._aws.caller_account()
            if account == self._key.account:
                self._report.passed(check, account)
            else:
                self._report.failed(check, account, Cause.WRONG_ACCOUNT, seen_account=account)

    def _kms_key(self) -> None:
        check, action = "kms-key-is-usable", "kms:DescribeKey"
        with self._row(check, action):
            outcome = self._aws.describe()
            if outcome.code:
                self._can_look = False
                self._report.refused(check, outcome, action)
                if not outcome.is_denied:
                    raise _Stop
                return
            with reading_reply("DescribeKey", self._arn):
                usable = self._report.judge_key(check, outcome.reply["KeyMetadata"])
                self._facts = _facts(outcome.reply["KeyMetadata"])
        if not usable:
            raise _Stop

    def _needed_rights(self) -> None:
        """Whether we may do what we need, by dry runs: they name each right that is missing."""
        with self._row("may-generate", _GENERATE):
            generated = self._aws.generate(self._own, dry_run=True)
        with self._row("may-decrypt", _DECRYPT):
            decrypted = self._aws.dry_decrypt(self._own)
        tried = (("may-generate", _GENERATE, generated), ("may-decrypt", _DECRYPT, decrypted))
        if self._can_look and all(self._report.is_left_out(outcome) for _, _, outcome in tried):
            for check, _, outcome in tried:
                self._report.failed(
                    check, outcome.code, Cause.NOT_WITH_OUR_CONTEXT,
                    may_pass_later=True, layer=self._report.layer_at_fault(outcome).name,
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
        self._must_refuse(
            "foreign-tenant-context-is-refused", probe_context(FOREIGN_TENANT_ID), "another tenant"
        )
        self._must_refuse("missing-context-is-refused", {}, "nobody")

    def _must_refuse(self, check: str, context: Mapping[str, str], what: str) -> None:
        with self._row(check, f"{_GENERATE} and {_DECRYPT}", goes_on=True):
            outcomes = {
                _GENERATE: self._aws.generate(context, dry_run=True),
                _DECRYPT: self._aws.dry_decrypt(context),
            }
            open_to_others = [action for action, outcome in outcomes.items() if not outcome.code]
            untried = {action: one for action, one in outcomes.items() if one.code and not one.is_denied}
            verdict = Verdict.FAILED if self._connection.role_arn is None else Verdict.WARNING
            if open_to_others:
                seen = f"would succeed: {', '.join(open_to_others)}"
                self._report.add(check, verdict, seen, Cause.CONTEXT_NOT_ENFORCED, what=what)
            elif untried:
                action, outcome = next(iter(untried.items()))
                cause, seen = Cause.REFUSED_BY_AWS, f"could not be tried: {outcome.code}"
                self._report.add(check, verdict, seen, cause, action=action, code=outcome.code)
            else:
                self._report.passed(check, "refused: AccessDeniedException")

    def _unneeded_rights(self) -> None:
        """What the customer gave beyond need, seen without our session policy, by dry runs."""
        check = "no-unneeded-rights"
        with self._row(check, "the dry runs", goes_on=True):
            outcomes = self._aws.unneeded()
            excess = [action for action, outcome in outcomes.items() if not outcome.code]
            refused = [action for action, outcome in outcomes.items() if outcome.is_denied]
            untried = [
                f"{action} could not be tried: {outcome.code}"
                for action, outcome in outcomes.items()
                if outcome.code and not outcome.is_denied
            ]
            seen = "; ".join([*([f"refused: {', '.join(refused)}"] if refused else []), *untried])
            if excess:
                principal = "key policy" if self._connection.role_arn is None else "role"
                self._report.add(
                    check, Verdict.WARNING, "; ".join(["by dry runs", *untried]), Cause.TOO_MANY_RIGHTS,
                    principal=principal, actions=", ".join(excess),
                )  # fmt: skip
            elif untried:
                self._report.add(check, Verdict.NOTE, seen)
            else:
                self._report.passed(check, seen)

    def _round_trip(self) -> None:
        check = "round-trip"
        with self._row(check, _GENERATE), reading_reply("the round trip", self._arn):
            made = self._aws.generate(self._own)
            if made.code:
                self._report.refused(check, made, _GENERATE)
                raise _Stop
            blob = made.reply["CiphertextBlob"]
            opened = self._aws.decrypt(blob, self._own)
            if opened.code:
                self._report.refused(check, opened, _DECRYPT)
                raise _Stop
            if opened.reply["KeyId"] != self._arn or len(opened.reply["Plaintext"]) != KEY_BYTES:
                what = f"key {opened.reply['KeyId']}, {len(opened.reply['Plaintext'])} bytes"
                self._report.failed(check, what, Cause.NOT_AWS_KMS, what=what)
                raise _Stop
            self._report.passed(check, f"generated and decrypted (request {request_id_of(made)})")
        self._wrong_context(blob)

    def _wrong_context(self, blob: bytes) -> None:
        check = "wrong-context-is-refused"
        with self._row(check, _DECRYPT, goes_on=True):
            wrong = self._aws.decrypt(blob, self._own | {"byok-version": "0"})
            if wrong.code == "InvalidCiphertextException":
                self._report.passed(check, f"refused: {wrong.code}")
            elif wrong.code:
                self._report.refused(check, wrong, _DECRYPT)
            else:
                what = "it decrypts under another encryption context"
                self._report.failed(check, "decrypted", Cause.NOT_AWS_KMS, what=what)

    def _options(self) -> None:
        check = "rotation-status-is-readable"
        with self._row(check, "kms:GetKeyRotationStatus", goes_on=True):
            status = self._aws.rotation_status()
            self._note_option(check, status, "its rotation period is not followed")
            if not status.code:
                with reading_reply("GetKeyRotationStatus", self._arn):
                    self._rotates = bool(status.reply["KeyRotationEnabled"])
        check = "tags-are-readable"
        if self._connection.role_arn is None:
            self._report.add(check, Verdict.NOTE, "never across accounts: tags are not followed")
            return
        with self._row(check, "kms:ListResourceTags", goes_on=True):
            self._note_option(check, self._aws.tags(), "its tag byok:rotation-days is not followed")

    def _note_option(self, check: str, outcome: Outcome, without: str) -> None:
        if outcome.code:
            self._report.add(check, Verdict.NOTE, f"{outcome.code}: {without}")
        else:
            self._report.passed(check, "yes")


def _facts(metadata: Mapping[str, Any]) -> KmsKeyFacts:
    return KmsKeyFacts(
        metadata["KeyState"],
        metadata.get("Origin", ""),
        metadata.get("DeletionDate"),
        metadata.get("ValidTo"),
    )
