"""From what AWS answered to a finding: the cause by its error code, in words that name the policy at fault.

Verdicts rest on error codes alone. AWS's messages serve for one thing: to tell the customer which of its
policies refused, where AWS says so (IAM User Guide, "Troubleshoot access denied error messages").
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from byok.core.arns import RoleArn
from byok.core.findings import EXPLANATIONS, Cause, Finding, Verdict
from byok.core.model import Connection
from byok.errors import ByokError, KmsAccessRevoked, KmsIntegrityError, KmsRequestRejected


@dataclass(frozen=True, slots=True)
class Vendor:
    """Our side of the connection, as far as it is known; no ``regions`` means all."""

    role: RoleArn | None
    regions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request ended: ``code`` is empty where it succeeded, or would have."""

    reply: Mapping[str, Any]
    code: str = ""
    message: str = ""

    @property
    def is_denied(self) -> bool:
        return self.code == "AccessDeniedException"


@dataclass(frozen=True, slots=True)
class Layer:
    """Which policy refused. ``is_of_caller``: it belongs to the side that calls, not to the KMS key's."""

    name: str
    cause: Cause
    is_of_caller: bool = False


# What AWS's message says of it (IAM User Guide, "Troubleshoot access denied error messages"). Where it says
# nothing, the finding stays general.
_SCP, _RCP = "a service control policy", "a resource control policy"
_LAYERS: Sequence[tuple[str, Layer]] = (
    ("explicit deny in a resource-based policy", Layer("the key policy", Cause.DENIED_BY_KEY_POLICY)),
    ("explicit deny in an identity-based policy", Layer("the role", Cause.DENIED_BY_ROLE_POLICY, True)),
    (f"explicit deny in {_SCP}", Layer(_SCP, Cause.DENIED_BY_ORGANISATION, True)),
    ("no service control policy allows", Layer(_SCP, Cause.DENIED_BY_ORGANISATION, True)),
    (f"explicit deny in {_RCP}", Layer(_RCP, Cause.DENIED_BY_ORGANISATION)),
    ("no resource control policy allows", Layer(_RCP, Cause.DENIED_BY_ORGANISATION)),
    ("explicit deny in a permissions boundary", Layer("the boundary", Cause.DENIED_BY_BOUNDARY, True)),
    ("no permissions boundary allows", Layer("the boundary", Cause.DENIED_BY_BOUNDARY, True)),
    ("explicit deny in a session policy", Layer("byok's session policy", Cause.OUR_POLICY)),
    ("no session policy allows", Layer("byok's session policy", Cause.OUR_POLICY)),
    ("explicit deny in a VPC endpoint policy", Layer("the vendor's VPC endpoint", Cause.OUR_POLICY)),
    ("no VPC endpoint policy allows", Layer("the vendor's VPC endpoint", Cause.OUR_POLICY)),
    ("no resource-based policy allows", Layer("the key policy", Cause.KEY_POLICY_SILENT)),
    ("no identity-based policy allows", Layer("the role's policy", Cause.ACTION_NOT_ALLOWED, True)),
)


_CAUSES_BY_STATE = {
    "Disabled": Cause.KEY_DISABLED,
    "PendingDeletion": Cause.KEY_PENDING_DELETION,
    "PendingReplicaDeletion": Cause.KEY_PENDING_DELETION,
    "PendingImport": Cause.KEY_WITHOUT_MATERIAL,
}


class Report:
    """The findings of one preflight, in order."""

    def __init__(self, connection: Connection, vendor: Vendor) -> None:
        self._connection = connection
        self._vendor = vendor
        self.findings: list[Finding] = []

    def refused(self, check: str, outcome: Outcome, action: str) -> None:
        """A needed request was refused: name the policy that did it, where AWS tells."""
        if outcome.is_denied:
            layer = self.layer_at_fault(outcome)
            self.failed(
                check, outcome.code, layer.cause, may_pass_later=True, action=action, layer=layer.name
            )
        elif outcome.code == "NotFoundException":
            self.failed(check, outcome.code, Cause.KEY_NOT_FOUND)
        elif outcome.code == "DisabledException":
            self.failed(check, outcome.code, Cause.KEY_DISABLED)
        elif outcome.code == "InvalidKeyUsageException":
            self.failed(check, outcome.code, Cause.KEY_OF_WRONG_KIND, spec="not symmetric", usage="other use")
        else:
            self.failed(check, outcome.code, Cause.REFUSED_BY_AWS, action=action, code=outcome.code)

    def broke(self, check: str, error: ByokError, action: str) -> None:
        """A check that ended by an error, no matter for what it asked."""
        if isinstance(error, KmsIntegrityError):
            self.failed(check, error.message, Cause.NOT_AWS_KMS, what=error.message)
            return
        known = isinstance(error, (KmsAccessRevoked, KmsRequestRejected)) and error.aws_code
        code = known or error.code
        self.failed(check, error.message, Cause.REFUSED_BY_AWS, action=action, code=code)

    def layer_at_fault(self, outcome: Outcome) -> Layer:
        """The policy that refused, as far as AWS tells."""
        for phrase, layer in _LAYERS:
            if phrase in outcome.message:
                if self._connection.role_arn is None and layer.is_of_caller:
                    return Layer(layer.name, Cause.OUR_POLICY)  # in key-policy mode the caller is ourselves
                return layer
        return Layer("a policy of the customer's", Cause.ACTION_NOT_ALLOWED)

    def is_left_out(self, outcome: Outcome) -> bool:
        """Whether no statement of the customer's allows it; not that some other policy forbids it."""
        causes = (Cause.ACTION_NOT_ALLOWED, Cause.KEY_POLICY_SILENT)
        return outcome.is_denied and self.layer_at_fault(outcome).cause in causes

    def judge_key(self, check: str, metadata: Mapping[str, Any]) -> bool:
        """Whether the KMS key that DescribeKey describes is of the right kind and enabled."""
        state, spec, usage = metadata["KeyState"], metadata["KeySpec"], metadata["KeyUsage"]
        date = metadata.get("DeletionDate")
        told = {
            "state": state,
            "spec": spec,
            "usage": usage,
            "deletion_date": f" on {date:%Y-%m-%d}" if date else "",
        }
        if metadata["KeyManager"] != "CUSTOMER":
            self.failed(check, f"KeyManager {metadata['KeyManager']}", Cause.KEY_NOT_CUSTOMER_MANAGED)
        elif (spec, usage) != ("SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT"):
            self.failed(check, f"{spec}, {usage}", Cause.KEY_OF_WRONG_KIND, **told)
        elif state != "Enabled":
            self.failed(check, state, _CAUSES_BY_STATE.get(state, Cause.KEY_NOT_READY), **told)
        else:
            self.passed(check, f"enabled, symmetric, customer managed, origin {metadata.get('Origin')}")
            return True
        return False

    def passed(self, check: str, seen: str) -> None:
        self.add(check, Verdict.PASSED, seen)

    def failed(
        self, check: str, seen: str, cause: Cause, *, may_pass_later: bool = False, **names: str
    ) -> None:
        self.add(check, Verdict.FAILED, seen, cause, may_pass_later=may_pass_later, **names)

    def add(
        self,
        check: str,
        verdict: Verdict,
        seen: str,
        cause: Cause | None = None,
        *,
        may_pass_later: bool = False,
        **names: str,
    ) -> None:
        explanation = remedy = ""
        if cause is not None:
            known = self._names() | names
            explanation = EXPLANATIONS[cause].cause.format_map(known)
            remedy = EXPLANATIONS[cause].remedy.format_map(known)
        self.findings.append(Finding(check, verdict, seen, cause, explanation, remedy, may_pass_later))

    def _names(self) -> dict[str, str]:
        role, vendor_role = self._connection.role_arn, str(self._vendor.role or "the workers' role")
        return {
            "account": self._connection.kms_key_arn.account,
            "region": self._connection.kms_key_arn.region,
            "partition": self._connection.kms_key_arn.partition,
            "key_id": self._connection.kms_key_arn.key_id,
            "kms_key": str(self._connection.kms_key_arn),
            "tenant_id": str(self._connection.tenant_id),
            "external_id": self._connection.external_id,
            "vendor_role": vendor_role,
            "tenant": self._connection.tenant_name,
        } | (
            {"principal": f"the role {role}", "missing": "neither the role nor the account's IAM", "mode": ""}
            if role is not None
            else {"principal": vendor_role, "missing": f"not {vendor_role}", "mode": " --mode key-policy"}
        )


def message_of(error: Exception) -> str:
    """AWS's own words."""
    return str(error.response["Error"].get("Message", "")) if isinstance(error, ClientError) else str(error)


def request_id_of(outcome: Outcome) -> str:
    """AWS's id of a request that succeeded."""
    return str(outcome.reply["ResponseMetadata"]["RequestId"])
