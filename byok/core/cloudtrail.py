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
_PUNCTUATION = ".,;:\"'()"
_CONTEXTS = ("encryptionContext", "sourceEncryptionContext", "destinationEncryptionContext")


class Concern(StrEnum):
    """Why a call must be in our log."""

    SESSION = "session"  # made in a session of the tenant's role, with whatever service
    ASSUMPTION = "assumption"  # of the tenant's role, by whomever
    VENDOR = "vendor"  # by the vendor's account, on the tenant's KMS key
    CONTEXT = "context"  # under byok's encryption context, by whomever


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose calls are looked for. ``vendor_account`` is None where we don't know our own."""

    tenant_id: UUID
    kms_key_arn: KmsKeyArn
    role_arn: RoleArn | None
    vendor_account: str | None


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
        if at.tzinfo is None:
            raise ValueError("eventTime is in no time zone")
        if not record.get("requestID") and not record.get("eventID"):
            raise ValueError("a record without requestID and eventID")
        return Seen(str(record.get("recipientAccountId", "")), str(record["awsRegion"]), at)
    except (KeyError, TypeError) as error:
        raise ValueError(f"a record without {error}") from error


def is_about_kms_key(record: Mapping[str, Any], subject: Subject) -> bool:
    """Whether a record names the tenant's KMS key, in whatever region: keys may have replicas."""
    key = subject.kms_key_arn
    ending = f":{key.account}:key/{key.key_id}"
    return any(name == key.key_id or name.endswith(ending) for name in _names(record))


def concern_of(record: Mapping[str, Any], subject: Subject) -> Concern | None:
    """Why a call must be in our log; None if it need not."""
    parameters = _mapping(record.get("requestParameters"))
    role = None if subject.role_arn is None else str(subject.role_arn)
    # The tenant may have had another role before: the sessions that we open are known by their names.
    session_prefix = f"byok.{subject.tenant_id}."
    if _session_role(record) is not None and (
        _session_role(record) == role or f"/{session_prefix}" in _principal(record)
    ):
        return Concern.SESSION
    if record.get("eventName") in _ASSUMPTIONS and (
        str(parameters.get("roleSessionName", "")).startswith(session_prefix) or role in _names(record)
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
    user_agent = str(record.get("userAgent") or "")
    seen = seen_in(record)
    return TrailCall(
        call_id=str(record.get("requestID") or record.get("eventID")),
        mark=mark_in(user_agent),
        at=seen.at,
        operation=str(record.get("eventName", "")),
        service=str(record.get("eventSource", "")).removesuffix(".amazonaws.com"),
        region=seen.region,
        role_arn=_session_role(record),
        principal=_principal(record),
        source_ip=str(record.get("sourceIPAddress") or ""),
        user_agent=user_agent,
        code=str(record.get("errorCode") or ""),
        concern=concern,
    )


def _session_role(record: Mapping[str, Any]) -> str | None:
    """The role in whose session a call was made, or none."""
    session = _mapping(_mapping(record.get("userIdentity")).get("sessionContext"))
    arn = _mapping(session.get("sessionIssuer")).get("arn")
    return arn if isinstance(arn, str) else None


def _principal(record: Mapping[str, Any]) -> str:
    identity = _mapping(record.get("userIdentity"))
    return str(identity.get("arn") or identity.get("principalId") or identity.get("accountId") or "")


def _names(record: Mapping[str, Any]) -> Sequence[str]:
    """The roles and KMS keys that a record names."""
    arns = [_mapping(resource).get("ARN") for resource in record.get("resources") or ()]
    parameters = _mapping(record.get("requestParameters")).items()
    arns += [value for name, value in parameters if name.lower().endswith(("keyid", "rolearn"))]
    arns += [word.strip(_PUNCTUATION) for word in str(record.get("errorMessage") or "").split()]
    return [arn for arn in arns if isinstance(arn, str)]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
