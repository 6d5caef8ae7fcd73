"""The log of calls in the record format of AWS CloudTrail, as a customer reads it."""

import gzip
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from byok.simulator.faults import Call

NOT_SEEN = "fault"  # the outcome of a call that never got to AWS
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


def deliver(trail: Sequence[dict[str, Any]], folder: Path, records_a_file: int = 500) -> list[Path]:
    """Write a trail into a folder as AWS delivers it to S3: one account's, by region and day, gzipped.

    Names follow the CloudTrail User Guide, "Finding your CloudTrail log files". Returns the files.
    """
    days: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for record in trail:
        day = record["eventTime"][:10].replace("-", "/")
        days.setdefault((record["recipientAccountId"], record["awsRegion"], day), []).append(record)
    written = []
    for (account, region, day), found in days.items():
        place = folder / "AWSLogs" / account / "CloudTrail" / region / day
        place.mkdir(parents=True, exist_ok=True)
        for start in range(0, len(found), records_a_file):
            part = found[start : start + records_a_file]
            minute = re.sub("[-:]", "", part[-1]["eventTime"][:16])
            unique = uuid5(NAMESPACE_URL, part[0]["eventID"]).hex[:16]
            file = place / f"{account}_CloudTrail_{region}_{minute}Z_{unique}.json.gz"
            file.write_bytes(gzip.compress(json.dumps({"Records": part}).encode()))
            written.append(file)
    return written


def _recipients(call: Call) -> set[str]:
    parts = call.key_arn.split(":")
    owner = parts[4] if len(parts) > 5 else call.account
    if not call.account or call.outcome == NOT_SEEN:
        return set()  # AWS does not know whose it would be, or the call never got there
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
        "userAgent": call.user_agent,
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
        record["errorMessage"] = call.message
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
