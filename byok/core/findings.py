"""What a preflight finds out about a customer's connection: verdicts, causes, remedies. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    NOTE = "note"  # nothing wrong; worth knowing
    WARNING = "warning"  # more rights than needed: a setting makes it a refusal
    FAILED = "failed"


class Cause(StrEnum):
    """Why a check did not pass, in a word that stays the same."""

    KEY_IN_VENDOR_ACCOUNT = "key-in-vendor-account"
    OTHER_PARTITION = "other-partition"
    REGION_NOT_SERVED = "region-not-served"
    ROLE_REFUSES_US = "role-refuses-us"
    OUR_IDENTITY = "our-identity"
    REGION_DISABLED = "region-disabled"
    EXTERNAL_ID_NOT_REQUIRED = "external-id-not-required"
    EXTERNAL_ID_NOT_CHECKED = "external-id-not-checked"
    WRONG_ACCOUNT = "wrong-account"
    KEY_NOT_FOUND = "kms-key-not-found"
    KEY_DISABLED = "kms-key-disabled"
    KEY_PENDING_DELETION = "kms-key-pending-deletion"
    KEY_WITHOUT_MATERIAL = "kms-key-without-material"
    KEY_NOT_READY = "kms-key-not-ready"
    KEY_OF_WRONG_KIND = "kms-key-of-wrong-kind"
    KEY_NOT_CUSTOMER_MANAGED = "kms-key-not-customer-managed"
    ACTION_NOT_ALLOWED = "action-not-allowed"
    NOT_WITH_OUR_CONTEXT = "not-with-our-context"
    KEY_POLICY_SILENT = "key-policy-silent"
    DENIED_BY_KEY_POLICY = "denied-by-key-policy"
    DENIED_BY_ROLE_POLICY = "denied-by-role-policy"
    DENIED_BY_ORGANISATION = "denied-by-organisation"
    DENIED_BY_BOUNDARY = "denied-by-boundary"
    OUR_POLICY = "our-policy"
    CONTEXT_NOT_ENFORCED = "context-not-enforced"
    TOO_MANY_RIGHTS = "too-many-rights"
    NOT_AWS_KMS = "not-aws-kms"
    REFUSED_BY_AWS = "refused-by-aws"


@dataclass(frozen=True, slots=True)
class Explanation:
    """A cause in a sentence, and what to do; ``{names}`` are filled in by the preflight."""

    cause: str
    remedy: str


EXPLANATIONS: Mapping[Cause, Explanation] = {
    Cause.KEY_IN_VENDOR_ACCOUNT: Explanation(
        "the KMS key lies in the vendor's own account {account}",
        "use a KMS key in an account that only the customer controls",
    ),
    Cause.OTHER_PARTITION: Explanation(
        "the KMS key is in partition {partition}, the vendor's role in {vendor_partition}",
        "roles can't be assumed across partitions: use a KMS key in {vendor_partition}",
    ),
    Cause.REGION_NOT_SERVED: Explanation(
        "this vendor serves no KMS key in {region}", "use a KMS key in one of: {regions}"
    ),
    Cause.ROLE_REFUSES_US: Explanation(
        "STS does not tell which: the role does not exist, its trust policy does not name {vendor_role}, "
        "or it asks for another external id",
        "compare the role's trust policy with the one printed by: byok tenant policy {tenant}",
    ),
    Cause.OUR_IDENTITY: Explanation(
        "the vendor's own AWS identity is refused, for this and any other customer",
        "vendor: give the workers the role {vendor_role} with sts:AssumeRole; nothing to do for the customer",
    ),
    Cause.REGION_DISABLED: Explanation(
        "region {region} or its STS endpoint is switched off in the customer's account",
        "enable the region for the account, and STS in it (IAM console, Account settings)",
    ),
    Cause.EXTERNAL_ID_NOT_REQUIRED: Explanation(
        "the trust policy lets us in without any external id",
        "add the condition StringEquals sts:ExternalId {external_id}, without IfExists",
    ),
    Cause.EXTERNAL_ID_NOT_CHECKED: Explanation(
        "the trust policy accepts an external id that was just made up",
        "the condition must be StringEquals sts:ExternalId {external_id}, without a wildcard",
    ),
    Cause.WRONG_ACCOUNT: Explanation(
        "the session acts in account {seen_account}, the KMS key is in {account}",
        "create the role in the account that owns the KMS key",
    ),
    Cause.KEY_NOT_FOUND: Explanation(
        "there is no such KMS key in account {account}, region {region}",
        "check the ARN for the region and the key id",
    ),
    Cause.KEY_DISABLED: Explanation(
        "the KMS key is disabled", "aws kms enable-key --region {region} --key-id {key_id}"
    ),
    Cause.KEY_PENDING_DELETION: Explanation(
        "AWS deletes the KMS key{deletion_date}: nothing encrypted under it can ever be read again then",
        "aws kms cancel-key-deletion --region {region} --key-id {key_id}, "
        "then aws kms enable-key --region {region} --key-id {key_id}",
    ),
    Cause.KEY_WITHOUT_MATERIAL: Explanation(
        "the KMS key's imported material is missing or has expired",
        "import the same key material again",
    ),
    Cause.KEY_NOT_READY: Explanation(
        "the KMS key is {state}", "connect its key store, or wait until AWS says Enabled"
    ),
    Cause.KEY_OF_WRONG_KIND: Explanation(
        "the KMS key is {spec} for {usage}", "make a symmetric key: SYMMETRIC_DEFAULT, ENCRYPT_DECRYPT"
    ),
    Cause.KEY_NOT_CUSTOMER_MANAGED: Explanation(
        "the KMS key is managed by AWS, so that its owner can't change its policy",
        "make a customer managed key",
    ),
    Cause.ACTION_NOT_ALLOWED: Explanation(
        "{layer} does not allow {action}", "add {action} to the statement ByokUseWithContext or ByokLook"
    ),
    Cause.NOT_WITH_OUR_CONTEXT: Explanation(
        "{layer} allows neither kms:GenerateDataKeyWithoutPlaintext nor kms:Decrypt under our context, "
        "though it lets us look at the key: the statement is missing, or its condition names another tenant "
        "id, or it has one more condition, such as kms:ViaService",
        "the condition must be StringEquals kms:EncryptionContext:byok-tenant {tenant_id}",
    ),
    Cause.KEY_POLICY_SILENT: Explanation(
        "the KMS key's own policy names {missing}, for {action}",
        "add the key policy statements printed by: byok tenant policy {tenant}{mode} --kms-key-arn {kms_key}",
    ),
    Cause.DENIED_BY_KEY_POLICY: Explanation(
        "a Deny in the KMS key's policy speaks against {action}", "except {principal} from that Deny"
    ),
    Cause.DENIED_BY_ROLE_POLICY: Explanation(
        "a Deny in a policy of the role speaks against {action}", "take that Deny away from {principal}"
    ),
    Cause.DENIED_BY_ORGANISATION: Explanation(
        "{layer} of the customer's organisation does not let {action} pass",
        "have the organisation's administrators let {principal} through",
    ),
    Cause.DENIED_BY_BOUNDARY: Explanation(
        "the permissions boundary of the role does not let {action} pass",
        "add {action} to the permissions boundary of {principal}, or take its Deny away",
    ),
    Cause.OUR_POLICY: Explanation(
        "on the vendor's side, {layer} does not let {action} pass",
        "vendor: allow {vendor_role} {action} there; nothing to do for the customer",
    ),
    Cause.CONTEXT_NOT_ENFORCED: Explanation(
        "the policy lets an encryption context of {what} pass",
        "add the condition StringEquals kms:EncryptionContext:byok-tenant {tenant_id}",
    ),
    Cause.TOO_MANY_RIGHTS: Explanation(
        "the {principal} may also do what byok never does: {actions}",
        "leave it kms:GenerateDataKeyWithoutPlaintext, kms:Decrypt and the right to look",
    ),
    Cause.NOT_AWS_KMS: Explanation(
        "this does not behave as AWS KMS: {what}", "don't use it; find out what answers in AWS's place"
    ),
    Cause.REFUSED_BY_AWS: Explanation(
        "AWS refuses {action}: {code}", "see the AWS KMS API reference for {code}"
    ),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One named check and its verdict. ``seen`` is what AWS said; ``cause`` is None where nothing is wrong.

    ``may_pass_later``: IAM changes take seconds to minutes to be seen everywhere, so a refusal right after
    the customer provisioned means little.
    """

    check: str
    verdict: Verdict
    seen: str
    cause: Cause | None = None
    explanation: str = ""
    remedy: str = ""
    may_pass_later: bool = False


def failed(findings: Sequence[Finding], *, refuse_warnings: bool = False) -> Sequence[Finding]:
    """The findings that keep a tenant from becoming active."""
    stopping = {Verdict.FAILED, Verdict.WARNING} if refuse_warnings else {Verdict.FAILED}
    return [finding for finding in findings if finding.verdict in stopping]
