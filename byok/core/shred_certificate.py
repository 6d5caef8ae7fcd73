"""What a shred certificate says, and what is left to do for a customer that has left. Pure.

The members are listed in ``docs/spec/report.md``; numbers are whole, as `byok.crypto.reports` demands.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from byok.core.arns import KmsKeyArn
from byok.core.audit import ChainPlace
from byok.core.model import Check, Connection, Key, KeyVersion, Tenant
from byok.core.moves import Sharing
from byok.core.offboarding import Offboarding
from byok.core.policies import EXPORT_ACTION, MIGRATION_SOURCE_ACTION, MIGRATION_TARGET_ACTION
from byok.core.rotation_period import ROTATION_TAG
from byok.core.stops import StopReport

KIND = "shred-certificate"
ACCESS_KIND = "access-statement"


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that a certificate rests on. ``stop`` is None for a tenant that never was active.

    ``connections``: all that the tenant ever had, or was on its way to, and which other tenants have them.
    """

    tenant: Tenant
    offboarding: Offboarding
    stop: StopReport | None
    keys: Sequence[tuple[Key, Sequence[KeyVersion]]]
    proofs: Sequence[Check]
    head: ChainPlace
    issued_at: datetime
    connections: Sequence[tuple[Connection, Sharing]]


def certificate_of(evidence: Evidence) -> dict[str, Any]:
    """The report of a certificate."""
    tenant, offboarding, connection = evidence.tenant, evidence.offboarding, evidence.tenant.connection
    return {
        "tenant": tenant.name,
        "tenant_id": str(tenant.id),
        "kms_key_arn": connection and str(connection.kms_key_arn),
        "role_arn": connection and connection.role_arn and str(connection.role_arn),
        "other_connections": [_names(one) for one, _ in evidence.connections if one != connection],
        "requested_by": offboarding.requested_by,
        "requested_at": time_text(offboarding.requested_at),
        "reason": offboarding.reason,
        "shred_after": time_text(offboarding.shred_after),
        "shredding_at": time_text(offboarding.shredding_at),
        "shredded_at": time_text(offboarding.shredded_at),
        "issued_at": time_text(evidence.issued_at),
        "passed": all(proof.passed for proof in evidence.proofs),
        "proofs": [
            {"name": proof.name, "passed": proof.passed, "detail": proof.detail} for proof in evidence.proofs
        ],
        "stop": None if evidence.stop is None else _stop(evidence.stop),
        "keys": [
            {"key": key.name, "key_id": str(key.id), "versions": [_version(one) for one in versions]}
            for key, versions in evidence.keys
        ],
        "audit_chain": {"sequence": evidence.head.sequence, "hash": evidence.head.hash.hex()},
        "customer_removes": _removals(tenant, evidence.connections),
        "remains": _remains([one for one, _ in evidence.connections]),
    }


def access_statement_of(
    tenant: Tenant, connection: Connection, calls: Sequence[Mapping[str, Any]], checked_at: datetime
) -> dict[str, Any]:
    """The report of whether a customer that has left still lets us in."""
    return {
        "tenant": tenant.name,
        "tenant_id": str(tenant.id),
        "kms_key_arn": str(connection.kms_key_arn),
        "role_arn": connection.role_arn and str(connection.role_arn),
        "checked_at": time_text(checked_at),
        "calls": [dict(call) for call in calls],
        "shut_out": all(call["refused"] for call in calls),
    }


def time_text(at: datetime | None) -> str | None:
    """A time as certificates have it: ISO 8601, to the millisecond."""
    return None if at is None else at.isoformat(timespec="milliseconds")


def _stop(report: StopReport) -> dict[str, Any]:
    stop = report.stop
    return {
        "stop": str(stop.id),
        "kind": stop.kind.value,
        "noticed_at": time_text(stop.noticed_at),
        "committed_at": time_text(stop.committed_at),
        "processes": [
            {"process": one.member, "dropped_at": time_text(one.dropped_at), "leases": one.leases}
            for one in report.acknowledgements
        ],
        "not_answered": list(report.silent),
    }


def _version(version: KeyVersion) -> dict[str, Any]:
    return {
        "version": version.number,
        "state": version.state.value,
        "kms_key_arn": str(version.kms_key_arn),
        "kms_request_id": version.kms_request_id,
        "generated_at": time_text(version.generated_at),
        "activated_at": time_text(version.activated_at),
        "destroyed_at": time_text(version.ended_at),
    }


def _names(connection: Connection) -> dict[str, str | None]:
    role = connection.role_arn
    return {"kms_key_arn": str(connection.kms_key_arn), "role_arn": None if role is None else str(role)}


def _removals(tenant: Tenant, connections: Sequence[tuple[Connection, Sharing]]) -> list[dict[str, str]]:
    """What the customer takes away now, each with how."""
    if not connections:
        return []
    of_connections = [
        one
        for connection, sharing in connections
        for one in [*_access(connection, sharing), *_at_key(connection, sharing)]
    ]
    once = [
        ("the webhook's endpoint, and alarms about our calls, if there are any", "in your own systems"),
        (
            f"rights for errands that are still there: {EXPORT_ACTION}, {MIGRATION_SOURCE_ACTION},"
            f" {MIGRATION_TARGET_ACTION}",
            "in the policies in which you put them for an export or a move",
        ),
        ("nothing more", f"ask the vendor for byok tenant offboard {tenant.name} --check-access"),
    ]
    return [{"what": what, "how": how} for what, how in dict.fromkeys([*of_connections, *once])]


def _access(connection: Connection, sharing: Sharing) -> list[tuple[str, str]]:
    """What lets us in. What another tenant of the customer's has, too, must stay for that."""
    arn, role = connection.kms_key_arn, connection.role_arn
    in_key_policy = (
        f"aws kms get-key-policy {_key_options(arn)} --policy-name default, then put-key-policy without them"
    )
    of_this = (
        f"those that name tenant {connection.tenant_id}, for another tenant of yours uses the KMS key, too"
    )
    if role is None:
        which = of_this if sharing.kms_key else "of the key policy"
        return [(f"statements ByokUseWithContext and ByokLook, {which}", in_key_policy)]
    name = str(role).rpartition("/")[2]
    by_hand = f"aws iam list-role-policies --role-name {name}, delete-role-policy for each"
    if sharing.role:
        access = (
            f"what the policies of the role {role} say of tenant {connection.tenant_id}; the role stays, for"
            " another tenant of yours uses it, too",
            f"aws iam list-role-policies --role-name {name}, then put-role-policy without it",
        )
    else:
        access = (
            f"the role {role} with its policies",
            "delete the stack or the Terraform module that made it; by hand: "
            f"{by_hand}, then delete-role --role-name {name}",
        )
    which = of_this if sharing.kms_key else "of the key policy, if you added them"
    return [access, (f"statements ByokRoleUseWithContext and ByokRoleLook, {which}", in_key_policy)]


def _at_key(connection: Connection, sharing: Sharing) -> list[tuple[str, str]]:
    """What else is set at a KMS key that no other tenant has."""
    if sharing.kms_key:
        return []
    at_key = _key_options(connection.kms_key_arn)
    return [
        (
            f"the tag {ROTATION_TAG} of the KMS key, if you set it",
            f"aws kms untag-resource {at_key} --tag-keys {ROTATION_TAG}",
        ),
        ("grants to the vendor's role, if you made any", f"aws kms list-grants {at_key}, then revoke-grant"),
    ]


def _key_options(arn: KmsKeyArn) -> str:
    return f"--region {arn.region} --key-id {arn.key_id}"


def _remains(connections: Sequence[Connection]) -> list[dict[str, str]]:
    """What is not gone with the wrapped keys, and what makes it useless."""
    if not connections:
        return []
    # Backups from before a move hold what the KMS key of that time opens.
    keys = list(dict.fromkeys(one.kms_key_arn.key_id for one in connections))
    which = f"the KMS key {keys[0]} is" if len(keys) == 1 else f"all of the KMS keys {', '.join(keys)} are"
    remedy = (
        f"useless at once when {which} disabled or the access above is removed, for good when {which} deleted"
    )
    return [
        {
            "what": "backups, replicas and the write-ahead log of the vendor's database, which hold wrapped"
            " keys until they expire",
            "remedy": remedy,
        },
        {
            "what": "dumps of the vendor's Redis from before the stop, which hold sealed leases: byok serves"
            " none past its deadline, which is over; who has both a dump and the master key could open one",
            "remedy": "the vendor keeps none (byok doctor looks), deletes them, or destroys the master key",
        },
        {
            "what": "data that was decrypted while the vendor had access, in its own systems",
            "remedy": "what you agreed with the vendor; byok does not see it",
        },
        {
            "what": "names of keys, times, numbers, ARNs, fingerprints, the audit log; nothing that decrypts",
            "remedy": "kept as evidence of what was done",
        },
    ]
