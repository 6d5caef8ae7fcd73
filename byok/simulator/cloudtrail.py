"""The log of calls in the record format of AWS CloudTrail, as a customer reads it."""

from collections.abc import Sequence
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from byok.simulator.faults import Call

_STS = frozenset({"AssumeRole", "GetCallerIdentity"})
# What CloudTrail marks as reading.
_READ_ONLY = frozenset(
    {"Decrypt", "Encrypt", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext", "ReEncrypt", "DescribeKey"}
    | {"GetKeyRotationStatus", "ListResourceTags", "GetKeyPolicy", "AssumeRole", "GetCallerIdentity"}
)


def records(calls: Sequence[Call], account: str) -> list[dict[str, Any]]:
    """The records that an account's trail holds, oldest first.

    Calls across accounts stand in both, but one that was refused for want of rights stands in the
    caller's alone (AWS KMS Developer Guide, "Logging AWS KMS API calls with AWS CloudTrail").
    """
    return [_record(call, account) for call in calls if account in _recipients(call)]


def _recipients(call: Call) -> set[str]:
    parts = call.key_arn.split(":")
    owner = parts[4] if len(parts) > 5 else call.account
    denied = call.outcome in ("AccessDenied", "AccessDeniedException")
    return {call.account} if denied else {call.account, owner}


def _record(call: Call, account: str) -> dict[str, Any]:
    is_sts = call.operation in _STS
    parameters: dict[str, Any] = (
        {"roleArn": call.key_arn, "roleSessionName": call.session_name, "externalId": call.external_id}
        if is_sts
        else {"keyId": call.key_arn, "encryptionContext": call.context, "dryRun": call.dry_run}
    )
    record: dict[str, Any] = {
        "eventVersion": "1.11",
        "userIdentity": _identity(call),
        "eventTime": f"{call.at[:19]}Z",
        "eventSource": "sts.amazonaws.com" if is_sts else "kms.amazonaws.com",
        "eventName": call.operation,
        "awsRegion": call.region,
        "sourceIPAddress": "127.0.0.1",
        "userAgent": "byok-simulator",
        "requestParameters": {name: value for name, value in parameters.items() if value},
        "responseElements": None,
        "requestID": call.request_id,
        "eventID": str(uuid5(NAMESPACE_URL, f"{call.request_id}/{account}")),
        "readOnly": call.operation in _READ_ONLY,
        "eventType": "AwsApiCall",
        "managementEvent": True,
        "recipientAccountId": account,
        "eventCategory": "Management",
    }
    if not is_sts and call.key_arn.startswith("arn:"):
        owner = call.key_arn.split(":")[4]
        record["resources"] = [{"accountId": owner, "type": "AWS::KMS::Key", "ARN": call.key_arn}]
    if call.outcome != "ok":
        record["errorCode"] = call.outcome.removesuffix("Exception") if is_sts else call.outcome
    if len(_recipients(call)) > 1:
        record["sharedEventID"] = str(uuid5(NAMESPACE_URL, call.request_id))
    return record


def _identity(call: Call) -> dict[str, Any]:
    if call.session_arn:
        return {
            "type": "AssumedRole",
            "arn": call.session_arn,
            "accountId": call.account,
            "sessionContext": {"sessionIssuer": {"type": "Role", "arn": call.principal}},
        }
    return {"type": "AWSAccount", "arn": call.principal, "accountId": call.account}
