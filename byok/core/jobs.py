"""Whether Beat's jobs come in time. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from byok.core.model import Job, Tick

# A job is late once it has missed a whole period, and this on top: Beat looks every 5 s whether something is
# due, and a tick waits in its queue behind others. The alert goes by the same (`deploy/monitoring`).
LATE_PERIODS = 2
ALLOWANCE = timedelta(seconds=15)


@dataclass(frozen=True, slots=True)
class JobState:
    """A job, how often it is to begin, and when it last did; None: never."""

    job: Job
    period: timedelta
    began_at: datetime | None
    age: timedelta | None
    is_late: bool


def judge(ticks: Sequence[Tick], periods: Mapping[Job, timedelta], now: datetime) -> Sequence[JobState]:
    """Each job that is to run. One that never began is late: nobody ticks."""
    began = {tick.job: tick.began_at for tick in ticks}
    return [_judge_one(job, period, began.get(job), now) for job, period in periods.items()]


def _judge_one(job: Job, period: timedelta, began_at: datetime | None, now: datetime) -> JobState:
    if began_at is None:
        return JobState(job, period, None, None, is_late=True)
    age = max(now - began_at, timedelta(0))  # begun since the time was read
    return JobState(job, period, began_at, age, is_late=age > LATE_PERIODS * period + ALLOWANCE)
