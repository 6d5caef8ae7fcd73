"""How often a key is rotated: the customer's wish first, then the vendor's. Pure."""

from datetime import timedelta

from byok.core.bounds import DEFAULT_ROTATION_PERIOD, MAX_ROTATION_PERIOD
from byok.core.model import (
    KmsKeyRotation,
    RotationSource,
)

# The tag on the customer's KMS key: whole days, 1 to 3650. AWS's own rotation knows no less than 90.
ROTATION_TAG = "byok:rotation-days"
_TAG_DAYS = range(1, MAX_ROTATION_PERIOD.days + 1)


def parse_rotation_tag(text: str) -> int | None:
    """The days that a tag's value asks for; None if it makes no sense, and then it counts for nothing."""
    if not (text.isascii() and text.isdigit() and len(text) <= 4) or int(text) not in _TAG_DAYS:
        return None
    return int(text)


def resolve_rotation_period(
    setting: timedelta | None, kms_key: KmsKeyRotation, longest: timedelta
) -> tuple[timedelta, RotationSource]:
    """The period in force, and who decided it; never longer than ``longest``, the vendor's own bound."""
    if kms_key.tag_days is not None:
        period, source = timedelta(days=kms_key.tag_days), RotationSource.TAG
    elif kms_key.period_days is not None:
        period, source = timedelta(days=kms_key.period_days), RotationSource.KMS_KEY
    elif setting is not None:
        period, source = setting, RotationSource.SETTING
    else:
        period, source = DEFAULT_ROTATION_PERIOD, RotationSource.DEFAULT
    return min(period, longest), source
