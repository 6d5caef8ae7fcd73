"""A simulator of AWS KMS, STS and IAM that enforces what AWS enforces. For development and tests only.

It puts a layer in front of moto, which by itself decrypts under disabled keys, ignores key policies,
external ids, encryption-context conditions and DryRun. Start it with ``python -m byok.simulator``.
"""

VENDOR_ACCOUNT_ID = "111111111111"
VENDOR_ROLE_ARN = f"arn:aws:iam::{VENDOR_ACCOUNT_ID}:role/byok-worker"
# Well-known development credentials; the simulator takes their bearer for the vendor's worker role.
VENDOR_ACCESS_KEY_ID = "AKIASIMULATORVENDOR0"
VENDOR_SECRET_ACCESS_KEY = "simulator-not-a-secret"  # noqa: S105  # grants nothing outside the simulator
ADMIN_ACCESS_KEY_PREFIX = "AKIAADMN"  # followed by an account id: that account's administrator
