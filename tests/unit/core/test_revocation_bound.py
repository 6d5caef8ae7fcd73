"""The bound on a revocation, and how often access is proven."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from byok.core.model import SuspensionKind
from byok.core.stops import (
    Acknowledgement,
    Stop,
    StopReport,
    next_probe_time,
    probe_period,
    revocation_bound,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TICK = timedelta(seconds=5)


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


@pytest.mark.parametrize(
    ("longest", "ttls", "period"),
    [
        (minutes(5), [minutes(60)], minutes(5)),
        (minutes(5), [minutes(60), minutes(2)], minutes(1)),
        (minutes(5), [], minutes(5)),
        (minutes(5), [minutes(0)], minutes(5)),  # no lease, so no lease to end
        (minutes(5), [timedelta(seconds=4)], timedelta(seconds=5)),  # ends by itself before that
        (timedelta(seconds=1), [minutes(60)], timedelta(seconds=1)),
    ],
)
def test_a_tenant_is_probed_at_least_twice_a_ttl(
    longest: timedelta, ttls: list[timedelta], period: timedelta
) -> None:
    assert probe_period(longest, ttls) == period


@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.999])
def test_the_next_probe_is_within_the_period_though_it_waits_for_a_tick(fraction: float) -> None:
    at = next_probe_time(NOW, minutes(5), TICK, fraction)
    assert minutes(5) * 0.75 < at - NOW
    assert at + TICK - NOW <= minutes(5)


@pytest.mark.parametrize("seconds", [1.0, 3.0, 5.0, 6.0, 7.5, 8.0, 10.0, 14.0, 30.0, 300.0])
@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.999])
def test_no_gap_between_probes_is_longer_than_the_period(seconds: float, fraction: float) -> None:
    period = timedelta(seconds=seconds)
    tick = min(TICK, period)  # as the settings have it
    at = next_probe_time(NOW, period, tick, fraction)
    assert at > NOW, "or a tick would find the same tenant again and again"
    first_tick_from_then = -((NOW - at) // tick) * tick
    assert first_tick_from_then <= period


def test_the_bound_is_the_ttl_or_the_probe_whichever_is_first() -> None:
    recheck = timedelta(seconds=5)
    hour = revocation_bound(minutes(60), minutes(5), recheck)
    assert hour.pushed == minutes(5) + timedelta(seconds=6)
    assert hour.polled == minutes(5) + timedelta(seconds=11)
    assert hour.unprobed == minutes(60)
    short = revocation_bound(minutes(1), timedelta(seconds=30), recheck)
    assert short.pushed == timedelta(seconds=36)
    tiny = revocation_bound(timedelta(seconds=4), timedelta(seconds=5), recheck)
    assert tiny.pushed == tiny.polled == tiny.unprobed == timedelta(seconds=4)
    off = revocation_bound(timedelta(0), minutes(5), recheck)
    assert off.polled == timedelta(0), "without leases each use asks KMS"


def test_a_report_names_the_silent_and_measures_from_the_refusal() -> None:
    stop = Stop(uuid4(), uuid4(), 2, SuspensionKind.REVOKED, NOW, NOW + timedelta(milliseconds=5))
    assert StopReport(stop, []).latency == timedelta(milliseconds=5)
    report = StopReport(
        stop,
        [
            Acknowledgement("service 1@a", NOW + timedelta(milliseconds=40), 3),
            Acknowledgement("service 2@a", NOW + timedelta(milliseconds=9), 0),
            Acknowledgement("service 3@b", None, None),
        ],
    )
    assert report.silent == ["service 3@b"]
    assert report.answered == 2
    assert report.latency == timedelta(milliseconds=40)
