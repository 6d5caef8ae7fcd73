"""What a record of AWS CloudTrail says, and whether it is about a tenant. Pure.

Field names are those of the CloudTrail User Guide, "CloudTrail record contents". A record of a call that came
from another account names that account and no ARN in the trail of the key's owner; that of a refused call may
have no parameters, and what it was about stands in the error's message alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from byok.core.arns import KmsKeyArn, RoleArn
from byok.core.encryption_context import APP
from byok.core.request_log import mark_in

# Every way into a role.
_ASSUMPTIONS = frozenset({"AssumeRole", "AssumeRoleWithSAML", "AssumeRoleWithWebIdentity"})
# CloudTrail began in 2013; what is reckoned with such a time stays a time.
_YEARS = range(2013, 9999)
_PUNCTUATION = ".,;:\"'()"
_CONTEXTS = ("encryptionContext", "sourceEncryptionContext", "destinationEncryptionContext")


class Concern(StrEnum):
    """Why a call must be in our log."""

    SESSION = "session"  # made in a session of the tenant's role, with whatever service
    ASSUMPTION = "assumption"  # of the tenant's role, by whomever
    VENDOR = "vendor"  # by the vendor's account, on the tenant's KMS key
    CONTEXT = "context"  # under byok's encryption context, by whomever


@dataclass(frozen=True, slots=True)
class Former:
    """A connection of a move: what the tenant came from, or was to go to. ``until`` when it is the tenant's;
    None: still."""

    kms_key_arn: KmsKeyArn
    role_arn: RoleArn | None
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose calls are looked for. ``vendor_account`` is None where we don't know our own."""

    tenant_id: UUID
    kms_key_arn: KmsKeyArn
    role_arn: RoleArn | None
    vendor_account: str | None
    formers: Sequence[Former] = ()

    def kms_keys(self, at: datetime) -> Sequence[KmsKeyArn]:
        """The tenant's KMS keys at a moment."""
        return [self.kms_key_arn, *(one.kms_key_arn for one in self._formers(at))]

    def roles(self, at: datetime) -> frozenset[str]:
        """The ARNs of its roles then."""
        roles = [self.role_arn, *(one.role_arn for one in self._formers(at))]
        return frozenset(str(role) for role in roles if role is not None)

    def _formers(self, at: datetime) -> Sequence[Former]:
        return [one for one in self.formers if one.until is None or at <= one.until]


@dataclass(frozen=True, slots=True)
class TrailCall:
    """One call, as AWS saw it.

    ``call_id`` is AWS's request id: the same in both accounts' trails, and however often a record is
    delivered. ``mark`` is our id in the User-Agent, which anybody can copy. ``role_arn``: in whose session.
    """

    call_id: str
    mark: UUID | None
    at: datetime
    operation: str
    service: str
    region: str
    role_arn: str | None
    principal: str
    source_ip: str
    user_agent: str
    code: str
    concern: Concern


@dataclass(frozen=True, slots=True)
class Seen:
    """Where and when a record is from: what a trail covers is told by all of its records."""

    account: str
    region: str
    at: datetime


def seen_in(record: Mapping[str, Any]) -> Seen:
    """Where and when a record is from.

    Raises:
        ValueError: it is no record of CloudTrail's.
    """
    try:
        at = datetime.fromisoformat(record["eventTime"])
        region = record["awsRegion"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"a record without {error}") from error
    if at.tzinfo is None or at.year not in _YEARS:
        raise ValueError("eventTime is in no time zone, or in no year of CloudTrail's")
    if not isinstance(region, str):
        raise ValueError("awsRegion is no text")
    if not _call_id(record).isascii():
        raise ValueError("requestID is none of AWS's")
    if not _call_id(record):
        raise ValueError("a record without requestID and eventID")
    return Seen(_text(record.get("recipientAccountId")), region, at)


def _call_id(record: Mapping[str, Any]) -> str:
    return _text(record.get("requestID")) or _text(record.get("eventID"))


def is_about_kms_key(record: Mapping[str, Any], subject: Subject) -> bool:
    """Whether a record names a KMS key of the tenant's, in whatever region: keys may have replicas."""
    names = _names(record)
    return any(
        name == key.key_id or name.endswith(f":{key.account}:key/{key.key_id}")
        for key in subject.kms_keys(seen_in(record).at)
        for name in names
    )


def concern_of(record: Mapping[str, Any], subject: Subject) -> Concern | None:
    """Why a call must be in our log; None if it need not."""
    parameters = _mapping(record.get("requestParameters"))
    roles = subject.roles(seen_in(record).at)
    # The tenant may have been verified with another role before: our sessions are known by their names.
    session_prefix = f"byok.{subject.tenant_id}."
    session_role = _session_role(record)
    if session_role is not None and (session_role in roles or f"/{session_prefix}" in _principal(record)):
        return Concern.SESSION
    if _text(record.get("eventName")) in _ASSUMPTIONS and (
        _text(parameters.get("roleSessionName")).startswith(session_prefix)
        or not roles.isdisjoint(_names(record))
    ):
        return Concern.ASSUMPTION
    if record.get("eventSource") != "kms.amazonaws.com":
        return None
    contexts = [_mapping(parameters.get(name)) for name in _CONTEXTS]
    if any(context.get("byok-tenant") == str(subject.tenant_id) for context in contexts):
        return Concern.CONTEXT
    if is_about_kms_key(record, subject):
        if any(context.get("byok-app") == APP for context in contexts):
            return Concern.CONTEXT
        caller = _mapping(record.get("userIdentity")).get("accountId")
        if subject.vendor_account is not None and caller == subject.vendor_account:
            return Concern.VENDOR
    return None


def call_of(record: Mapping[str, Any], concern: Concern) -> TrailCall:
    """The call that a record tells of, one that `seen_in` took for one."""
    user_agent = _text(record.get("userAgent"))
    seen = seen_in(record)
    return TrailCall(
        call_id=_call_id(record),
        mark=mark_in(user_agent),
        at=seen.at,
        operation=_text(record.get("eventName")),
        service=_text(record.get("eventSource")).removesuffix(".amazonaws.com"),
        region=seen.region,
        role_arn=_session_role(record),
        principal=_principal(record),
        source_ip=_text(record.get("sourceIPAddress")),
        user_agent=user_agent,
        code=_text(record.get("errorCode")),
        concern=concern,
    )


def _session_role(record: Mapping[str, Any]) -> str | None:
    """The role in whose session a call was made, or none."""
    session = _mapping(_mapping(record.get("userIdentity")).get("sessionContext"))
    arn = _mapping(session.get("sessionIssuer")).get("arn")
    return arn if isinstance(arn, str) else None


def _principal(record: Mapping[str, Any]) -> str:
    identity = _mapping(record.get("userIdentity"))
    return next(
        (told for name in ("arn", "principalId", "accountId") if (told := _text(identity.get(name)))), ""
    )


def _names(record: Mapping[str, Any]) -> Sequence[str]:
    """The roles and KMS keys that a record names."""
    resources = record.get("resources")
    arns = [_mapping(one).get("ARN") for one in (resources if isinstance(resources, list) else ())]
    parameters = _mapping(record.get("requestParameters")).items()
    arns += [value for name, value in parameters if name.lower().endswith(("keyid", "rolearn"))]
    arns += [word.strip(_PUNCTUATION) for word in _text(record.get("errorMessage")).split()]
    return [arn for arn in arns if isinstance(arn, str)]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
