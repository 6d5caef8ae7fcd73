"""The KMS encryption context of a version. Pure.

Rebuilt from the stored columns on every call and never stored itself, so that a row swapped between
tenants, keys or versions makes KMS refuse the wrapped key. It names no person and no company: AWS
CloudTrail shows it in clear to the customer.
"""

from uuid import UUID

APP = "byok"
SCHEMA = "1"
CONTEXT_KEYS = ("byok-app", "byok-key", "byok-purpose", "byok-schema", "byok-tenant", "byok-version")


def version_context(tenant_id: UUID, key_id: UUID, number: int) -> dict[str, str]:
    """The context under which a version's secret is wrapped."""
    return {
        "byok-app": APP,
        "byok-key": str(key_id),
        "byok-purpose": "data-key",
        "byok-schema": SCHEMA,
        "byok-tenant": str(tenant_id),
        "byok-version": str(number),
    }


def probe_context(tenant_id: UUID) -> dict[str, str]:
    """The context of a connection check, told apart in the customer's CloudTrail by its purpose."""
    return {
        "byok-app": APP,
        "byok-purpose": "probe",
        "byok-schema": SCHEMA,
        "byok-tenant": str(tenant_id),
    }


def master_key_context(master_key_id: str) -> dict[str, str]:
    """The context under which a KMS key of the vendor's wraps a master key: an entry under another id does
    not open."""
    return {
        "byok-app": APP,
        "byok-master-key": master_key_id,
        "byok-purpose": "master-key",
        "byok-schema": SCHEMA,
    }
