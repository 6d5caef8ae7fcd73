"""When a job of Beat's counts as late."""

from datetime import UTC, datetime, timedelta

import pytest

from byok.core.jobs import ALLOWANCE, judge
from byok.core.model import Job, Tick

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("age", "is_late"),
    [
        (timedelta(0), False),
        (2 * MINUTE + ALLOWANCE, False),
        (2 * MINUTE + ALLOWANCE + timedelta(seconds=1), True),
        (-timedelta(seconds=1), False),  # begun since the time was read
    ],
)
def test_a_job_is_late_after_two_of_its_own_periods(age: timedelta, is_late: bool) -> None:
    (state,) = judge([Tick(Job.SWEEP, NOW - age, None)], {Job.SWEEP: MINUTE}, NOW)
    assert (state.is_late, state.age) == (is_late, max(age, timedelta(0)))


def test_a_job_that_never_ran_is_late_and_one_that_is_not_to_run_is_not_judged() -> None:
    (state,) = judge([Tick(Job.PROBE, NOW, NOW)], {Job.SWEEP: MINUTE}, NOW)
    assert (state.job, state.is_late, state.age) == (Job.SWEEP, True, None)
