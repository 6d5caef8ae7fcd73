"""The gate: named checks that a version passes before any service may use it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from byok.core.encryption_context import version_context
from byok.core.lifecycle import check_versions, may_decrypt
from byok.core.model import Check, Key, KeyVersion, Tenant
from byok.core.wire import associated_data, format_token, parse_token
from byok.crypto.hazmat import XAES_NONCE_BYTES, NotAuthentic, SecretBytes, XaesKey, fingerprint
from byok.errors import (
    AccessStopped,
    ByokError,
    CannotDecrypt,
    Unavailable,
    UnknownVersion,
    ValidationFailed,
)
from byok.ports import Clock, Kms, Random
from byok.services.leases import LeaseDesk
from byok.services.records import Records, require_connection

_CANARY_TEXT = b"byok canary"


@dataclass(frozen=True, slots=True)
class Validated:
    """What a passed validation found out."""

    checks: tuple[Check, ...]
    fingerprint: bytes
    canary: bytes
    secret: SecretBytes
    decrypted_at: datetime


class _Gate:
    """Collects verdicts. Outages and revocations pass through: they say nothing about the version."""

    def __init__(self) -> None:
        self.checks: list[Check] = []

    def check(self, name: str, run: Callable[[], str]) -> bool:
        try:
            detail, passed = run(), True
        except (Unavailable, AccessStopped):
            raise
        except ByokError as error:
            detail, passed = error.message, False
        self.checks.append(Check(name, passed, detail))
        return passed


class Validator:
    """Runs the gate over one version, read anew from its row."""

    def __init__(self, kms: Kms, records: Records, desk: LeaseDesk, clock: Clock, random: Random) -> None:
        self._kms = kms
        self._records = records
        self._desk = desk
        self._clock = clock
        self._random = random

    def validate(
        self,
        tenant: Tenant,
        key: Key,
        version: KeyVersion,
        versions: Sequence[KeyVersion],
        *,
        routine: bool = False,
    ) -> Validated:
        """Check ``version`` against KMS and against its key's ``versions``: all, or from the active one on.

        ``routine`` leaves out what says nothing of this version and is proven daily anyway: that KMS
        refuses a wrong context, what DescribeKey tells beyond the data key just made, and that the
        version before still opens. One KMS call is left of up to four.

        Raises:
            ValidationFailed: a check failed; `Rejected.checks` has the whole report.
            KmsUnavailable, KmsAccessRevoked: nothing is known about the version.
        """
        gate = _Gate()
        run = _Run(self._records, self._random, tenant, key, version, versions)
        gate.check("versions-are-consistent", run.versions_are_consistent)
        if routine:
            gate.check("kms-key-is-usable", lambda: _made_the_data_key(tenant, version))
        else:
            gate.check("kms-key-is-usable", lambda: self._kms_key_is_usable(tenant, version))
        opened = gate.check("record-opens", run.record_opens)
        decrypted_at = self._clock.now()
        if opened and gate.check("kms-decrypts-under-stored-key", run.kms_decrypts):
            gate.check("secret-is-sound", run.secret_is_sound)
            if not routine:
                gate.check("wrong-context-is-refused", lambda: self._wrong_context(tenant, version))
            gate.check("fingerprint", run.fingerprint_fits)
            gate.check("canary", run.canary_opens)
            if not routine:
                gate.check("previous-canary", lambda: self._previous_canary(tenant, key, version, versions))
        failed = [check for check in gate.checks if not check.passed]
        if failed:
            raise Rejected(version.number, tuple(gate.checks))
        return Validated(tuple(gate.checks), fingerprint(run.secret), run.canary, run.secret, decrypted_at)

    def _kms_key_is_usable(self, tenant: Tenant, version: KeyVersion) -> str:
        described = self._kms.describe_key(require_connection(tenant))
        _require(described.arn == str(version.kms_key_arn), f"DescribeKey answers for {described.arn}")
        _require(described.state == "Enabled", f"the KMS key is {described.state}")
        _require(described.spec == "SYMMETRIC_DEFAULT", f"the KMS key's spec is {described.spec}")
        _require(described.usage == "ENCRYPT_DECRYPT", f"the KMS key is for {described.usage}")
        return f"enabled, symmetric, account {version.kms_key_arn.account}, {version.kms_key_arn.region}"

    def _wrong_context(self, tenant: Tenant, version: KeyVersion) -> str:
        context = version_context(tenant.id, version.key_id, version.number + 1)
        wrapped = self._records.wrapped_key(tenant, version)
        refuses = self._kms.refuses_context(require_connection(tenant), wrapped, context)
        _require(refuses, "KMS decrypted under a wrong encryption context")
        return "KMS refused it"

    def _previous_canary(
        self, tenant: Tenant, key: Key, version: KeyVersion, versions: Sequence[KeyVersion]
    ) -> str:
        previous = [one for one in versions if one.number < version.number and may_decrypt(key, one)]
        if not previous or previous[-1].canary is None:
            return "there is no earlier version that decrypts"
        number = previous[-1].number
        try:
            lease = self._desk.checking(tenant.name, key.name, number)
        except UnknownVersion:  # below the floor, or destroyed, since the versions were read
            return f"version {number} decrypts no more"
        _open_canary(lease.cipher, previous[-1], previous[-1].canary)
        return f"version {number} still opens"


def _made_the_data_key(tenant: Tenant, version: KeyVersion) -> str:
    """GenerateDataKey works with an enabled, symmetric key for encryption alone, and its reply was checked
    to be this key's."""
    current = require_connection(tenant).kms_key_arn
    _require(version.kms_key_arn == current, f"the data key was made under {version.kms_key_arn}")
    return f"made the data key, request {version.kms_request_id}"


class Rejected(ValidationFailed):
    """A version failed its gate."""

    def __init__(self, number: int, checks: tuple[Check, ...]) -> None:
        self.number = number
        self.checks = checks
        failed = "; ".join(f"{check.name}: {check.detail}" for check in checks if not check.passed)
        super().__init__(f"version {number} failed validation: {failed}")


class _Run:
    """One validation of one version: each method is a check, and says what it saw."""

    secret: SecretBytes
    canary: bytes

    def __init__(
        self,
        records: Records,
        random: Random,
        tenant: Tenant,
        key: Key,
        version: KeyVersion,
        versions: Sequence[KeyVersion],
    ) -> None:
        self._records = records
        self._random = random
        self._tenant = tenant
        self._key = key
        self._version = version
        self._versions = versions

    def versions_are_consistent(self) -> str:
        first, last = self._versions[0].number, self._versions[-1].number
        check_versions(self._versions, first=first)
        return f"{first} to {last} in a row"

    def record_opens(self) -> str:
        self._records.wrapped_key(self._tenant, self._version)
        return f"sealed under master key {self._version.sealed_wrapped_key.master_key_id}"

    def kms_decrypts(self) -> str:
        unwrapped = self._records.unwrap(self._tenant, self._version)
        self.secret = unwrapped.secret
        return f"request {unwrapped.request_id}"

    def secret_is_sound(self) -> str:
        with self.secret.borrow() as raw:
            _require(len(raw) == 32, f"the secret has {len(raw)} bytes")
            _require(any(raw), "the secret is all zeros")
        return "32 bytes"

    def fingerprint_fits(self) -> str:
        """A stored fingerprint must match; a new one must differ from that of every other version."""
        found = fingerprint(self.secret)
        if self._version.fingerprint is not None:
            _require(found == self._version.fingerprint, "the secret is not the one that was validated")
            return "the same as at first validation"
        twins = [one.number for one in self._versions if one.fingerprint == found]
        _require(not twins, f"the secret is that of version {twins}")
        return "differs from every other version's"

    def canary_opens(self) -> str:
        cipher = XaesKey(self.secret)
        context = canary_context(self._version)
        if self._version.canary is None:
            nonce = self._random.bytes(XAES_NONCE_BYTES)
            body = cipher.encrypt(nonce, _CANARY_TEXT, context)
            self.canary = format_token(self._version.number, nonce, body)
        else:
            self.canary = self._version.canary
        _open_canary(cipher, self._version, self.canary)
        return "encrypted and decrypted"


def canary_context(version: KeyVersion) -> bytes:
    """The context of a version's canary."""
    return associated_data("byok/canary/1", str(version.key_id), version.number)


def _open_canary(cipher: XaesKey, version: KeyVersion, canary: bytes) -> None:
    token = parse_token(canary)
    try:
        opened = cipher.decrypt(token.nonce, token.body, canary_context(version))
    except NotAuthentic:
        raise CannotDecrypt(f"the canary of version {version.number} does not open") from None
    _require(opened == _CANARY_TEXT, f"the canary of version {version.number} reads otherwise")


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ValidationFailed(otherwise)
