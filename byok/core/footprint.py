"""What one act of byok costs, and what AWS takes and allows: what `byok.core.capacity` reckons with.

All those numbers are here, each with its source, and nothing else is. What is measured says by which
command; what AWS says, where and when it was read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Act(StrEnum):
    """What byok does over and over."""

    FIRST_ROTATION = "first rotation of a key"
    ROTATION = "rotation"
    VALIDATION = "validation of a key"
    PROBE = "probe of a tenant"
    SYNC = "sync of a tenant"
    WATCH = "look over a tenant's side"
    LEASE = "lease, or a use without caching"


# Requests to the customer's KMS where nothing fails, with the one of the gate that KMS must refuse.
# `tests/integration/test_kms_calls.py` counts them in the simulator's CloudTrail. When a key rotates, its
# previous version has a lease in Redis; when it is validated, it has none. A sync is that of a tenant with
# a role, which alone may read tags.
KMS_REQUESTS: Mapping[Act, Mapping[str, int]] = {
    Act.FIRST_ROTATION: {"GenerateDataKeyWithoutPlaintext": 1, "DescribeKey": 1, "Decrypt": 2},
    Act.ROTATION: {"GenerateDataKeyWithoutPlaintext": 1, "Decrypt": 1},
    Act.VALIDATION: {"DescribeKey": 1, "Decrypt": 3},
    Act.PROBE: {"Decrypt": 1},
    Act.SYNC: {"DescribeKey": 1, "GetKeyRotationStatus": 1, "ListResourceTags": 1},
    Act.WATCH: {
        "Decrypt": 5,
        "GenerateDataKeyWithoutPlaintext": 4,
        "DescribeKey": 1,
        "Encrypt": 1,
        "GenerateDataKey": 1,
        "ReEncrypt": 1,
        "CreateGrant": 1,
        "GetKeyRotationStatus": 1,
        "ListResourceTags": 1,
    },
    Act.LEASE: {"Decrypt": 1},
}
# AssumeRole where the customer gives a role. A look tries it without external id, and with a wrong one, and
# asks for a session that is not cut down: what the customer gave is seen in no other.
ASSUMED_ROLES: Mapping[Act, int] = {Act.PROBE: 1, Act.WATCH: 4}
# These share one quota of an account and region; the others have quotas of their own.
CRYPTOGRAPHIC_OPERATIONS = frozenset(
    {"Decrypt", "GenerateDataKeyWithoutPlaintext", "Encrypt", "GenerateDataKey", "ReEncrypt"}
)

# CPU of the worker process, Celery's part and all, on two cores. The rotation's is measured by `python -m
# benchmarks.rotations`, 25 to a message. The others are by `python -m benchmarks.footprint`, which leaves
# Celery out: medians of three runs, and 2 ms for a message of their own. The sync's is that of a tenant with
# ten keys; the look's is from one run of 400.
CPU_MS: Mapping[Act, float] = {
    Act.ROTATION: 3.9,
    Act.VALIDATION: 9.0,
    Act.PROBE: 7.5,
    Act.SYNC: 13.0,
    Act.WATCH: 27.3,
}
# Of the time of its threads and of its core a worker should be busy: bursts wait in the rest.
TARGET_LOAD = 0.6


@dataclass(frozen=True, slots=True)
class Stored:
    """What is added to a table: rows, and bytes with all indexes."""

    rows: float
    bytes: float


# Measured by `python -m benchmarks.footprint`, 2,000 keys of 200 tenants, means of three runs; a tenant's
# by one run with 400 keys. A key comes with its first version, and a tenant with a finding: that its KMS key
# never rotated by itself. A rotation's version took 1,650 to 2,950 bytes, since its row is updated and
# autovacuum comes when it does. The simulator's wrapped keys are 97 bytes long; AWS's may be longer.
STORED_BY_TENANT: Mapping[str, Stored] = {
    "tenants": Stored(1, 1_555),
    "audit_heads": Stored(1, 330),
    "audit_events": Stored(4, 1_475),
    "audit_checkpoints": Stored(1, 330),
    "findings": Stored(1, 575),
}
STORED: Mapping[Act, Mapping[str, Stored]] = {
    Act.FIRST_ROTATION: {
        "keys": Stored(1, 275),
        "rotations": Stored(1, 340),
        "rotation_requests": Stored(1, 195),
        "key_versions": Stored(1, 2_390),
        "audit_events": Stored(5, 1_755),
    },
    Act.ROTATION: {
        "rotations": Stored(1, 240),
        "key_versions": Stored(1, 2_100),
        "audit_events": Stored(4, 1_450),
    },
    Act.VALIDATION: {"audit_events": Stored(1, 230)},
    # The checkpoint that a look signs where anything came since the last one, measured on 4,000 rows of 200
    # tenants. What validations leave each day is enough for that.
    Act.WATCH: {"audit_events": Stored(1, 365), "signed_checkpoints": Stored(1, 280)},
}

# Redis memory: of a tenant's first lease together with the set that names its leases, and of a further one.
# Measured by `python -m benchmarks.footprint`, 10,000 each in Valkey.
FIRST_LEASE_BYTES = 625
LEASE_BYTES = 365

# A lease in use is renewed in the last fifth to tenth of its life (`byok/services/filling.py`).
LEASE_RENEWED_FROM = 0.8
LEASE_RENEWED_SPREAD = 0.1


@dataclass(frozen=True, slots=True)
class Price:
    """What AWS takes for KMS, in US dollars."""

    per_10_000_requests: float
    free_requests_per_month: int
    per_kms_key_per_month: float
    source: str
    read_on: str


# Charged is "the AWS account that makes the API request": the customer's when we act as its role.
KMS_PRICE = Price(
    per_10_000_requests=0.03,
    free_requests_per_month=20_000,
    per_kms_key_per_month=1.0,
    source="https://aws.amazon.com/kms/pricing/",
    read_on="2026, in an undated copy; guides of March and June 2026 say the same",
)


@dataclass(frozen=True, slots=True)
class Quota:
    """What AWS allows an account in a region by default, in requests a second. Both can be raised."""

    per_second: int
    source: str


# For symmetric operations, of the account that makes the request, whose ever the KMS key is. It is 100,000
# in us-east-1, us-west-2 and eu-west-1, 20,000 in six more, eu-central-1 among them, and 10,000 elsewhere.
KMS_QUOTA = Quota(10_000, "https://docs.aws.amazon.com/kms/latest/developerguide/requests-per-second.html")
# AssumeRole across accounts counts against the caller's account only, which is the vendor's.
STS_QUOTA = Quota(600, "https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html")
