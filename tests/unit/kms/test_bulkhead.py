"""One tenant's trouble stays its own, and a region's trouble suspends nobody."""

import threading
from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import pytest

from byok.core.arns import KmsKeyArn, RoleArn
from byok.core.model import Connection
from byok.errors import KmsAccessRevoked, KmsBackingOff, KmsUnavailable
from byok.kms import bulkhead as module
from byok.kms.bulkhead import Bulkhead


class Monotonic:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def time() -> Monotonic:
    return Monotonic()


@pytest.fixture
def bulkhead(time: Monotonic, monkeypatch: pytest.MonkeyPatch) -> Bulkhead:
    monkeypatch.setattr(module, "_MAX_WAIT_SECONDS", 0.01)
    return Bulkhead(2, time)


def tenant(number: int = 1, region: str = "eu-central-1", *, has_role: bool = True) -> Connection:
    account = 222222222000 + number
    arn = f"arn:aws:kms:{region}:{account}:key/00000000-0000-4000-8000-{number:012d}"
    role = RoleArn.parse(f"arn:aws:iam::{account}:role/byok") if has_role else None
    return Connection(
        UUID(int=number), KmsKeyArn.parse(arn), "external-id", role, tenant_name=f"tenant-{number}"
    )


def call(bulkhead: Bulkhead, who: Connection, ends: Callable[[], None] = lambda: None) -> None:
    with bulkhead.admitted(who):
        ends()


def outage() -> None:
    raise KmsUnavailable("throttled")


def well() -> None:
    pass


def denial() -> None:
    """By STS."""
    raise KmsAccessRevoked("denied", aws_code="AccessDenied")


def kms_denial() -> None:
    """By KMS, in a session that was made just now."""
    raise KmsAccessRevoked("denied", aws_code="AccessDeniedException")


def disabled() -> None:
    raise KmsAccessRevoked("disabled", aws_code="DisabledException")


def fail(bulkhead: Bulkhead, who: Connection, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(KmsUnavailable) as caught:
            call(bulkhead, who, outage)
        assert not isinstance(caught.value, KmsBackingOff)


def test_a_tenant_has_a_few_calls_at_a_time_and_others_have_theirs(bulkhead: Bulkhead) -> None:
    with bulkhead.admitted(tenant(1)), bulkhead.admitted(tenant(1)):
        with pytest.raises(KmsBackingOff, match="2 calls of this tenant"):
            call(bulkhead, tenant(1))
        call(bulkhead, tenant(2))
    call(bulkhead, tenant(1))


def test_who_waits_gets_the_place_that_becomes_free(
    bulkhead: Bulkhead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_WAIT_SECONDS", 10)
    done = threading.Event()

    def third() -> None:
        call(bulkhead, tenant())
        done.set()

    with bulkhead.admitted(tenant()):
        with bulkhead.admitted(tenant()):
            waiting = threading.Thread(target=third)
            waiting.start()
            assert not done.wait(0.05)
        assert done.wait(5)
    waiting.join()


def test_a_slow_tenant_has_one_call_at_a_time_until_it_is_quick_again(
    bulkhead: Bulkhead, time: Monotonic
) -> None:
    def slowly() -> None:
        time.seconds += 3

    call(bulkhead, tenant(), slowly)
    with bulkhead.admitted(tenant()), pytest.raises(KmsBackingOff):
        call(bulkhead, tenant())
    with bulkhead.admitted(tenant()):
        call(bulkhead, tenant())  # the one before was quick


def test_a_tenant_that_fails_in_a_row_is_left_alone_for_longer_and_longer(
    bulkhead: Bulkhead, time: Monotonic
) -> None:
    fail(bulkhead, tenant(), 5)
    waits = []
    for _ in range(8):
        with pytest.raises(KmsBackingOff) as caught:
            call(bulkhead, tenant())
        waits.append(caught.value.retry_after_seconds)
        time.seconds += caught.value.retry_after_seconds
        fail(bulkhead, tenant())  # one call tries
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300]
    call(bulkhead, tenant(2))


def test_while_one_call_tries_the_others_wait(bulkhead: Bulkhead, time: Monotonic) -> None:
    fail(bulkhead, tenant(), 5)
    time.seconds += 5
    with bulkhead.admitted(tenant()), pytest.raises(KmsBackingOff, match="left alone"):
        call(bulkhead, tenant())
    call(bulkhead, tenant())  # the trial went well


def test_a_success_in_between_starts_the_count_anew(bulkhead: Bulkhead) -> None:
    for _ in range(3):
        fail(bulkhead, tenant(), 4)
        call(bulkhead, tenant())


def test_a_refusal_is_no_failure_of_kms(bulkhead: Bulkhead) -> None:
    for _ in range(10):
        with pytest.raises(KmsAccessRevoked):
            call(bulkhead, tenant(), disabled)


def test_where_half_a_region_is_refused_nobody_is_suspended(bulkhead: Bulkhead, time: Monotonic) -> None:
    for number in range(1, 5):
        call(bulkhead, tenant(100 + number))
        with pytest.raises(KmsAccessRevoked):
            call(bulkhead, tenant(number), kms_denial)
    with pytest.raises(KmsUnavailable, match="taken for an outage"):
        call(bulkhead, tenant(5), kms_denial)
    with pytest.raises(KmsBackingOff, match="eu-central-1"):
        call(bulkhead, tenant(6))
    with pytest.raises(KmsAccessRevoked):
        call(bulkhead, tenant(7, "us-east-1"), kms_denial)
    time.seconds += 1.5
    with pytest.raises(KmsUnavailable, match="taken for an outage"):
        call(bulkhead, tenant(8), kms_denial)  # a trial that is refused proves nothing
    time.seconds += 1.5
    call(bulkhead, tenant(9))  # a trial that goes well does
    call(bulkhead, tenant(10))
    with pytest.raises(KmsAccessRevoked):
        call(bulkhead, tenant(11), kms_denial)


def test_few_refusals_among_many_are_the_customers_will(bulkhead: Bulkhead) -> None:
    for number in range(100, 130):
        call(bulkhead, tenant(number))
    for number in range(10):
        with pytest.raises(KmsAccessRevoked):
            call(bulkhead, tenant(number), kms_denial)


def ends_of(bulkhead: Bulkhead, who: Connection, how: Callable[[], None]) -> str:
    try:
        call(bulkhead, who, how)
    except KmsAccessRevoked:
        return "suspended"
    except KmsUnavailable:
        return "outage"
    return "well"


@pytest.mark.parametrize("everyone", [True, False], ids=["our own identity", "one customer"])
@pytest.mark.parametrize("tenants", [200, 12])
@pytest.mark.parametrize("probe_seconds", [300, 10_000])
def test_our_lost_right_to_assume_roles_suspends_a_handful_and_one_customers_will_suspends_it(
    bulkhead: Bulkhead, time: Monotonic, *, everyone: bool, tenants: int, probe_seconds: int
) -> None:
    """Without a canary. Sessions that live go on for up to 900 s, so that most calls succeed for long."""
    start, suspended = time.seconds, set[int]()
    session_ends = {number: 4 * number for number in range(tenants)}
    for second in range(0, 3000, 20):
        time.seconds = start + second
        for number in range(tenants):
            probed = (second + 20 * (number % 7)) % probe_seconds < 20
            assumes = probed or second >= session_ends[number]
            if number in suspended and not probed:
                continue
            refused = assumes and second >= 1000 and (everyone or number == 3)
            if assumes and not refused:
                bulkhead.note_assumed()
                session_ends[number] = second + 900
            if ends_of(bulkhead, tenant(number), denial if refused else well) == "suspended":
                suspended.add(number)
    assert len(suspended) == (4 if everyone else 1)


def test_our_lost_right_to_use_kms_keys_suspends_a_handful(bulkhead: Bulkhead) -> None:
    """In key-policy mode; that the sessions of others' roles go on says nothing of it."""
    ends = []
    for number in range(50):
        call(bulkhead, tenant(1000 + number))
        ends.append(ends_of(bulkhead, tenant(number, has_role=False), kms_denial))
    assert ends == ["suspended"] * 4 + ["outage"] * 46
    call(bulkhead, tenant(100, has_role=False))
    assert ends_of(bulkhead, tenant(101, has_role=False), kms_denial) == "suspended"


def test_where_a_role_of_our_own_can_be_assumed_each_refusal_is_the_customers(bulkhead: Bulkhead) -> None:
    for number in range(20):
        bulkhead.note_assumed()  # by the canary, which is asked at each refusal
        assert ends_of(bulkhead, tenant(number), denial) == "suspended"


def test_customers_that_left_long_ago_are_no_sign_of_an_outage(bulkhead: Bulkhead, time: Monotonic) -> None:
    for number in range(10):
        bulkhead.note_assumed()
        assert ends_of(bulkhead, tenant(number), denial) == "suspended"
    for _ in range(3):
        bulkhead.note_assumed()
        time.seconds += 300  # the next probes, one after the other
        assert {ends_of(bulkhead, tenant(number), denial) for number in range(10)} == {"suspended"}
    assert ends_of(bulkhead, tenant(10), denial) == "suspended"


@pytest.mark.parametrize("how", [denial, kms_denial])
def test_a_benefit_of_the_doubt_expires(bulkhead: Bulkhead, time: Monotonic, how: Callable[[], None]) -> None:
    ends = [ends_of(bulkhead, tenant(number), how) for number in range(5)]
    assert ends == ["suspended"] * 4 + ["outage"]
    time.seconds += 901
    assert ends_of(bulkhead, tenant(4), how) == "suspended"


def test_a_small_region_in_which_all_are_refused_is_suspended_whole(
    bulkhead: Bulkhead, time: Monotonic
) -> None:
    for number in range(6):
        ends_of(bulkhead, tenant(number), kms_denial)
    time.seconds += 300  # the next probes, in the same order
    assert {ends_of(bulkhead, tenant(number), kms_denial) for number in range(6)} == {"suspended"}


def test_a_tenant_that_is_left_alone_does_not_use_up_its_regions_trial(
    bulkhead: Bulkhead, time: Monotonic
) -> None:
    fail(bulkhead, tenant(0), 5)
    for number in range(1, 5):
        fail(bulkhead, tenant(number))
    time.seconds += 1.5
    with pytest.raises(KmsBackingOff, match="this tenant's KMS"):
        call(bulkhead, tenant(0))
    call(bulkhead, tenant(6))


def test_what_only_the_owner_can_do_stops_a_tenant_in_any_number(bulkhead: Bulkhead) -> None:
    for number in range(20):
        with pytest.raises(KmsAccessRevoked):
            call(bulkhead, tenant(number), disabled)


def test_failures_of_a_minute_ago_are_forgotten(bulkhead: Bulkhead, time: Monotonic) -> None:
    for number in range(4):
        fail(bulkhead, tenant(number))
    time.seconds += 61
    for number in range(4, 8):
        fail(bulkhead, tenant(number))
    call(bulkhead, tenant(9))


def test_a_tenants_two_kms_keys_do_not_suffer_from_each_other(bulkhead: Bulkhead) -> None:
    old = tenant()
    new = replace(old, kms_key_arn=replace(old.kms_key_arn, region="eu-west-1"))
    fail(bulkhead, new, times=5)
    with pytest.raises(KmsBackingOff):
        call(bulkhead, new)
    call(bulkhead, old)


def test_a_region_that_fails_for_many_is_left_alone(bulkhead: Bulkhead) -> None:
    for number in range(5):
        fail(bulkhead, tenant(number))
    with pytest.raises(KmsBackingOff, match="many tenants"):
        call(bulkhead, tenant(6))


def test_it_remembers_a_bounded_number_of_tenants(
    bulkhead: Bulkhead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_TENANTS", 10)
    for number in range(50):
        call(bulkhead, tenant(number))
    assert len(bulkhead._tenants) == 10
