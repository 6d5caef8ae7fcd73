"""What ``byok doctor`` makes of what it sees, where no server is needed to see it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from byok.core.arns import RoleArn
from byok.core.findings import Verdict
from byok.doctor import clocks
from byok.doctor.aws import is_session_of, judge_endpoint, judge_identity
from byok.doctor.fleet import judge_workers
from byok.doctor.master_keys import judge
from byok.doctor.redis import judge_broker, judge_cache, judge_separation
from byok.doctor.result import Result
from byok.doctor.settings import examine_settings
from byok.kms.identity import CallerIdentity
from byok.ports import RedisFacts
from byok.services.ring import Sealed
from byok.settings import Settings

ROLE = RoleArn.parse("arn:aws:iam::111111111111:role/teams/byok-worker")
SESSION = "arn:aws:sts::111111111111:assumed-role/byok-worker/i-0abc"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SAFE: dict[str, Any] = {
    "env": "production",
    "database_url": "postgresql+psycopg://u:p@db/d?sslmode=verify-full",
    "broker_url": "rediss://broker/0",
    "cache_url": "rediss://cache/0",
    "master_keys": "mk:" + "A" * 43 + "=",
    "vendor_role_arn": str(ROLE),
    "canary_role_arn": "arn:aws:iam::111111111111:role/canary",
}


def verdicts(results: Any) -> dict[str, str]:
    found: dict[str, Result] = {one.name: one for one in results}
    assert all(one.remedy for one in found.values() if one.verdict in (Verdict.WARNING, Verdict.FAILED))
    return {name: one.verdict.value for name, one in found.items()}


def settings(**other: Any) -> dict[str, str]:
    return verdicts(examine_settings(Settings.model_validate(SAFE | other)))


def test_production_as_it_should_be() -> None:
    assert settings() == {"settings": "passed", "tls": "passed"}


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({"canary_role_arn": None}, {"canary-role": "warning"}),
        ({"vendor_role_arn": None}, {"vendor-role": "warning"}),
        ({"metrics_port": 9100, "metrics_address": "0.0.0.0"}, {"metrics": "warning"}),
        ({"database_url": "postgresql+psycopg://u:p@db/d?sslmode=require"}, {"tls": "warning"}),
        ({"database_url": "postgresql+psycopg://u:p@127.0.0.1,db/d"}, {"tls": "warning"}),
        ({"broker_url": "redis://broker/0"}, {"tls": "warning"}),
        ({"cache_url": "redis+sentinel://s-1,s-2/main/0"}, {"tls": "warning"}),
    ],
)
def test_production_as_it_should_not_be(other: dict[str, Any], expected: dict[str, str]) -> None:
    assert settings(**other).items() >= expected.items()


@pytest.mark.parametrize(
    "other",
    [
        {"metrics_port": 9100},
        {"metrics_port": 9100, "metrics_address": "::1"},
        {"database_url": "postgresql+psycopg://u:p@localhost/d"},
        {"broker_url": "redis://[::1]/0"},
        {"cache_url": "redis://127.0.0.1/0"},
    ],
)
def test_what_stays_on_this_machine_needs_no_tls(other: dict[str, Any]) -> None:
    assert "warning" not in settings(**other).values()


def test_development_is_noted() -> None:
    assert settings(env="dev", kms_endpoint_url="http://127.0.0.1:1")["settings"] == "note"


@pytest.mark.parametrize(
    ("offset_seconds", "verdict"),
    [(0, "passed"), (-59, "passed"), (60, "warning"), (-299, "warning"), (300, "failed"), (-300, "failed")],
)
def test_clocks(offset_seconds: int, verdict: str) -> None:
    seen = clocks.judge("clock", "AWS", timedelta(seconds=offset_seconds))
    assert seen.verdict.value == verdict
    assert ("behind" in seen.seen) == (offset_seconds <= 0)


@pytest.mark.parametrize(
    ("arn", "is_ours"),
    [
        (SESSION, True),
        (str(ROLE), True),
        (SESSION.replace("byok-worker/", "byok-worker-2/"), False),
        (SESSION.replace("111111111111", "222222222222"), False),
        ("arn:aws:iam::111111111111:user/somebody", False),
    ],
)
def test_a_session_of_the_vendors_role(arn: str, is_ours: bool) -> None:
    assert is_session_of(ROLE, arn) == is_ours
    judged = judge_identity(CallerIdentity(arn, "https://sts.amazonaws.com", NOW), ROLE)
    assert judged.verdict is (Verdict.PASSED if is_ours else Verdict.WARNING)


@pytest.mark.parametrize(
    ("url", "verdict"),
    [
        ("https://sts.eu-central-1.amazonaws.com", Verdict.PASSED),
        ("https://sts.cn-north-1.amazonaws.com.cn", Verdict.PASSED),
        ("http://127.0.0.1:4599", Verdict.FAILED),
        ("https://amazonaws.com.example", Verdict.FAILED),
    ],
)
def test_in_production_aws_is_asked_at_aws(url: str, verdict: Verdict) -> None:
    assert judge_endpoint(url).verdict is verdict


@pytest.mark.parametrize(
    ("is_in_ring", "tried", "opened", "verdict"),
    [
        (True, 5, 5, "passed"),
        (True, 5, 4, "failed"),
        (True, 5, 0, "failed"),
        (True, 0, 0, "note"),
        (False, 0, 0, "failed"),
    ],
)
def test_a_master_key_passes_only_where_a_record_was_opened(
    is_in_ring: bool, tried: int, opened: int, verdict: str
) -> None:
    assert judge(Sealed("mk", 7, is_in_ring, tried, opened)).verdict.value == verdict


UNKNOWN = RedisFacts(0, None, None, None, None)


def test_a_managed_redis_that_tells_nothing_is_noted_and_does_not_fail() -> None:
    told = verdicts([*judge_broker(UNKNOWN), *judge_cache(UNKNOWN), judge_separation(UNKNOWN, UNKNOWN)])
    assert set(told.values()) == {"note"}
    assert len(told) == 5


def test_queues_that_nobody_consumes_are_named() -> None:
    found = list(judge_workers(["w@a"], {"maintenance": ["w@a"], "validate": []}))
    assert found[-1].verdict is Verdict.FAILED
    assert "validate" in found[-1].seen
    assert "maintenance" not in found[-1].seen
