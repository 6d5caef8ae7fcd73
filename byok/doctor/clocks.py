"""How far this machine's clock is off.

byok itself goes by PostgreSQL's clock and by clocks that nobody can set. AWS does not: it refuses what is
signed more than 5 minutes off (SigV4), and by then no KMS call of this machine works. NTP keeps clocks within
milliseconds: a minute means that it does not run.
"""

from datetime import UTC, datetime, timedelta

from byok.doctor.result import Result, failed, passed, warning

REFUSED = timedelta(minutes=5)
_NO_NTP = timedelta(minutes=1)
_REMEDY = "have NTP set this machine's clock (chronyc tracking, timedatectl), or the other's"


def wall_clock() -> datetime:
    """This machine's idea of the time, which is what is examined here."""
    return datetime.now(UTC)  # noqa: TID251  # the Clock port tells PostgreSQL's


def judge(name: str, other: str, offset: timedelta) -> Result:
    """``offset``: this machine's time less the other's."""
    seconds = offset.total_seconds()
    seen = f"this machine is {abs(seconds):.1f} s {'ahead of' if seconds > 0 else 'behind'} {other}"
    if abs(offset) >= REFUSED:
        return failed(name, f"{seen}: AWS refuses signatures that are 5 minutes off", _REMEDY)
    if abs(offset) >= _NO_NTP:
        return warning(name, seen, _REMEDY)
    return passed(name, seen)
