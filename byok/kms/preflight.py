"""Checks of a tenant's connection: what must work, and what must be refused."""

import secrets
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from byok.core.encryption_context import probe_context
from byok.core.model import Check, Connection
from byok.errors import ByokError, KmsAccessRevoked, KmsIntegrityError, KmsUnavailable
from byok.kms.sessions import Sessions

if TYPE_CHECKING:
    from byok.kms.aws import AwsKms


class Preflight:
    """One run over a connection. Each check gives a named verdict; outages alone raise."""

    def __init__(self, kms: "AwsKms", sessions: Sessions, connection: Connection, tenant_id: UUID) -> None:
        self._kms = kms
        self._sessions = sessions
        self._connection = connection
        self._tenant_id = tenant_id

    def run(self) -> Sequence[Check]:
        """Run all checks, or stop after the first that makes the others meaningless.

        Raises:
            KmsUnavailable: AWS can't be reached, so nothing is known.
        """
        checks: list[Check] = []
        for name, check, is_fundamental in self._plan():
            verdict = _judge(name, check)
            checks.append(verdict)
            if is_fundamental and not verdict.passed:
                break
        return checks

    def _plan(self) -> Sequence[tuple[str, Callable[[], str], bool]]:
        role_checks: list[tuple[str, Callable[[], str], bool]] = [
            ("role-can-be-assumed", self._assume_role, True),
            ("role-refuses-missing-external-id", lambda: self._must_not_assume(None), False),
            (
                "role-refuses-wrong-external-id",
                lambda: self._must_not_assume(secrets.token_urlsafe(32)),
                False,
            ),
        ]
        return [
            *(role_checks if self._connection.role_arn is not None else []),
            ("kms-key-is-usable", self._describe_key, True),
            ("round-trip", self._round_trip, True),
            ("wrong-context-is-refused", self._wrong_context, False),
            ("foreign-tenant-context-is-refused", self._foreign_context, False),
        ]

    def _assume_role(self) -> str:
        with self._sessions.acting_as(self._connection, fresh=True):
            return f"assumed {self._connection.role_arn}"

    def _must_not_assume(self, external_id: str | None) -> str:
        assert self._connection.role_arn is not None
        try:
            self._sessions.assume_role(self._connection, self._connection.role_arn, external_id=external_id)
        except KmsAccessRevoked as refused:
            return f"refused: {refused.aws_code}"
        raise _Finding("the role's trust policy does not require our external id: add the condition to it")

    def _describe_key(self) -> str:
        key = self._kms.describe_key(self._connection)
        wanted = {
            "state": (key.state, "Enabled"),
            "key spec": (key.spec, "SYMMETRIC_DEFAULT"),
            "key usage": (key.usage, "ENCRYPT_DECRYPT"),
            "manager": (key.manager, "CUSTOMER"),
        }
        wrong = [f"{what} is {is_} and must be {must}" for what, (is_, must) in wanted.items() if is_ != must]
        if wrong:
            raise _Finding("; ".join(wrong))
        return "enabled, symmetric, customer managed"

    def _round_trip(self) -> str:
        context = probe_context(self._tenant_id)
        wrapped = self._kms.generate_data_key(self._connection, context)
        self._kms.decrypt(self._connection, wrapped.ciphertext, context).secret.wipe()
        return f"generated and decrypted (request {wrapped.request_id})"

    def _wrong_context(self) -> str:
        context = probe_context(self._tenant_id)
        wrapped = self._kms.generate_data_key(self._connection, context)
        try:
            self._kms.decrypt(self._connection, wrapped.ciphertext, context | {"byok-version": "0"})
        except KmsIntegrityError:
            return "refused: the encryption context is enforced"
        raise _Finding("KMS decrypted under another encryption context: this is not AWS KMS")

    def _foreign_context(self) -> str:
        try:
            self._kms.generate_data_key(self._connection, probe_context(uuid4()))
        except KmsAccessRevoked as refused:
            return f"refused: {refused.aws_code}"
        raise _Finding(
            "the policy lets another tenant's encryption context pass: "
            "add the condition kms:EncryptionContext:byok-tenant to it"
        )


class _Finding(ByokError):
    """A check did not pass."""


def _judge(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, passed=True, detail=check())
    except KmsUnavailable:
        raise
    except ByokError as error:
        return Check(name, passed=False, detail=error.message)
