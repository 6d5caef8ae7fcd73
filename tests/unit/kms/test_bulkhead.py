"""One tenant's trouble stays its own, and a region's trouble suspends nobody."""

import threading
from collections.abc import Callable
from uuid import UUID

import pytest

from byok.core.model import Connection, KmsKeyArn
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


def tenant(number: int = 1, region: str = "eu-central-1") -> Connection:
    arn = f"arn:aws:kms:{region}:{222222222000 + number}:key/00000000-0000-4000-8000-{number:012d}"
    return Connection(UUID(int=number), KmsKeyArn.parse(arn), "external-id")


def call(bulkhead: Bulkhead, who: Connection, ends: Callable[[], None] = lambda: None) -> None:
    with bulkhead.admitted(who):
        ends()


def outage() -> None:
    raise KmsUnavailable("throttled")


def denial() -> None:
    raise KmsAccessRevoked("denied", aws_code="AccessDenied")


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
            call(bulkhead, tenant(number), denial)
    with pytest.raises(KmsUnavailable, match="taken for an outage"):
        call(bulkhead, tenant(5), denial)
    with pytest.raises(KmsBackingOff, match="eu-central-1"):
        call(bulkhead, tenant(6))
    with pytest.raises(KmsAccessRevoked):
        call(bulkhead, tenant(7, "us-east-1"), denial)
    time.seconds += 1.5
    with pytest.raises(KmsUnavailable, match="taken for an outage"):
        call(bulkhead, tenant(8), denial)  # a trial that is refused proves nothing
    time.seconds += 1.5
    call(bulkhead, tenant(9))  # a trial that goes well does
    call(bulkhead, tenant(10))
    with pytest.raises(KmsAccessRevoked):
        call(bulkhead, tenant(1), denial)


def test_few_refusals_among_many_are_the_customers_will(bulkhead: Bulkhead) -> None:
    for number in range(100, 130):
        call(bulkhead, tenant(number))
    for number in range(10):
        with pytest.raises(KmsAccessRevoked):
            call(bulkhead, tenant(number), denial)


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
