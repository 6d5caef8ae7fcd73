"""What an operator does about work that failed, and about a tenant that is stopped. Pure."""

from collections.abc import Mapping

from byok.core.model import OpenWork, SuspensionKind, Tenant

# The codes of `byok.errors` with which rotations end; docs/runbook.md tells more of each.
_BY_CODE: Mapping[str, str] = {
    "kms-access-revoked": "the tenant is suspended: it ends with that",
    "tenant-not-active": "the tenant is stopped: once it is active again",
    "validation-failed": "byok key show {tenant} {key} --json names the checks; mend that",
    "kms-request-rejected": "byok doctor: the workers' AWS identity and clock; the KMS key's type",
    "kms-unavailable": "once AWS answers (its health page; the customer's KMS quota)",
    "kms-integrity": "don't rotate: compare the KMS key with the customer's (docs/runbook.md)",
    "unknown-master-key": "byok doctor: put the missing master key back",
    "seal-broken": "byok doctor: a wrong master key? Else restore the row (docs/runbook.md)",
    "invariant-broken": "somebody wrote to the table by hand (docs/runbook.md)",
    "gave-up": "its workers died: look at their logs and memory",
}


def failure_code(failure: str) -> str:
    """The code at the beginning of what is kept of a failure."""
    return failure.partition(":")[0]


def after_failure(work: OpenWork) -> str:
    """What to see to before a failed rotation is tried again."""
    code = failure_code(work.rotation.failure or "")
    known = _BY_CODE.get(code, "docs/runbook.md has the code")
    return known.format(tenant=work.tenant, key=work.key)


def while_stuck(work: OpenWork) -> str:
    """What to look at while a rotation does not get on."""
    if work.rotation.failure is not None:
        return f"{after_failure(work)}; it is tried again by itself"
    if work.rotation.attempts == 0:
        return "no worker took it: see workers and queues above, then byok doctor"
    return "a worker has it, or died over it: the workers' logs have its id"


def while_suspended(tenant: Tenant) -> str:
    """How a suspended tenant comes back."""
    assert tenant.suspension is not None
    match tenant.suspension.kind:
        case SuspensionKind.REVOKED:
            return (
                "the customer's decision until shown otherwise: look the request up in its CloudTrail "
                "together; the probe resumes it once access is back"
            )
        case SuspensionKind.LOCKED:
            return f"byok tenant resume {tenant.name}, once whoever stopped it agrees"
        case SuspensionKind.DRILL:
            return f"ends with the drill; if that is over: byok tenant resume {tenant.name}"
        case SuspensionKind.LEAVING:
            return f"it leaves; to take that back: byok tenant offboard {tenant.name} --cancel"
