"""Names and durations that are accepted, and what is assumed where nothing is said."""

import re
from datetime import timedelta

from byok.errors import InvalidName, OutOfBounds

MIN_ROTATION_PERIOD = timedelta(hours=1)
MAX_ROTATION_PERIOD = timedelta(days=3650)
DEFAULT_ROTATION_PERIOD = timedelta(days=365)  # the default of AWS KMS automatic rotation
MAX_LEASE_TTL = timedelta(hours=24)
DEFAULT_LEASE_TTL = timedelta(hours=1)
MAX_OUTAGE_WAIT = timedelta(minutes=5)

_SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def check_name(kind: str, name: str) -> str:
    """Return ``name`` if it is a slug: 1 to 63 of a-z, 0-9 and inner hyphens.

    Raises:
        InvalidName: it is not.
    """
    if _SLUG.fullmatch(name) is None:
        raise InvalidName(
            f"{name!r} is not a {kind} name",
            remedy="use 1 to 63 of a-z, 0-9 and hyphens, beginning and ending with a letter or digit",
        )
    return name


def check_rotation_period(period: timedelta) -> timedelta:
    """Return ``period`` if it lies within 1 hour and 3650 days.

    Raises:
        OutOfBounds: it does not.
    """
    remedy = "choose between 1 hour (1h) and 10 years (3650d)"
    return _within(
        MIN_ROTATION_PERIOD, period, MAX_ROTATION_PERIOD, "a rotation period of {} seconds", remedy
    )


def check_outage_wait(wait: timedelta) -> timedelta:
    """Return ``wait`` if it lies within 0 (fail at once) and 5 minutes.

    Raises:
        OutOfBounds: it does not.
    """
    remedy = "choose between 0 (fail at once) and 5 minutes (5m)"
    return _within(timedelta(0), wait, MAX_OUTAGE_WAIT, "waiting {} seconds for a KMS", remedy)


def check_lease_ttl(ttl: timedelta) -> timedelta:
    """Return ``ttl`` if it lies within 0 (caching off) and 24 hours.

    Raises:
        OutOfBounds: it does not.
    """
    remedy = "choose between 0 (caching off) and 24 hours (24h)"
    return _within(timedelta(0), ttl, MAX_LEASE_TTL, "a cache TTL of {} seconds", remedy)


def _within(
    shortest: timedelta, duration: timedelta, longest: timedelta, what: str, remedy: str
) -> timedelta:
    if not shortest <= duration <= longest:
        told = what.format(f"{duration.total_seconds():.0f}")
        raise OutOfBounds(f"{told} is out of bounds", remedy=remedy)
    return duration
