"""From what AWS answered to a finding: the cause by its error code, in words that name the policy at fault.

Verdicts rest on error codes alone. AWS's messages serve for one thing: to tell the customer which of its
policies refused, where AWS says so (IAM User Guide, "Troubleshoot access denied error messages").
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from byok.core.findings import EXPLANATIONS, Cause, Finding, Verdict
from byok.core.model import Connection, RoleArn


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


class Report:
    """The findings of one preflight, in order."""

    def __init__(self, connection: Connection, vendor: Vendor) -> None:
        self._connection = connection
        self._vendor = vendor
        self.findings: list[Finding] = []

    def refused(self, check: str, outcome: Outcome, action: str) -> None:
        """A needed request was refused: name the policy that did it, where AWS tells."""
        if outcome.is_denied:
            layer = layer_at_fault(outcome)
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
        return {
            "account": self._connection.kms_key_arn.account,
            "region": self._connection.kms_key_arn.region,
            "partition": self._connection.kms_key_arn.partition,
            "key_id": self._connection.kms_key_arn.key_id,
            "kms_key": str(self._connection.kms_key_arn),
            "tenant_id": str(self._connection.tenant_id),
            "external_id": self._connection.external_id,
            "role": str(self._connection.role_arn or "–"),
            "vendor_role": str(self._vendor.role or "the workers' role"),
        }


@dataclass(frozen=True, slots=True)
class Layer:
    """Which of the customer's policies refused."""

    name: str
    cause: Cause
    is_explicit: bool = False


# What AWS's message says of it. Where it says nothing, the finding stays general.
_LAYERS: Sequence[tuple[str, Layer]] = (
    ("explicit deny in a resource-based policy", Layer("the key policy", Cause.DENIED_BY_KEY_POLICY, True)),
    ("explicit deny in an identity-based policy", Layer("the role", Cause.DENIED_BY_ROLE_POLICY, True)),
    ("a service control policy", Layer("the organisation", Cause.DENIED_BY_ORGANISATION, True)),
    ("no resource-based policy allows", Layer("the key policy", Cause.KEY_POLICY_SILENT)),
    ("no identity-based policy allows", Layer("the role's policy", Cause.ACTION_NOT_ALLOWED)),
)


def layer_at_fault(outcome: Outcome) -> Layer:
    """The policy that refused, as far as AWS tells."""
    for phrase, layer in _LAYERS:
        if phrase in outcome.message:
            return layer
    return Layer("a policy of the customer's", Cause.ACTION_NOT_ALLOWED)


def message_of(error: Exception) -> str:
    """AWS's own words."""
    return str(error.response["Error"].get("Message", "")) if isinstance(error, ClientError) else str(error)


def request_id_of(outcome: Outcome) -> str:
    """AWS's id of a request that succeeded."""
    return str(outcome.reply["ResponseMetadata"]["RequestId"])
