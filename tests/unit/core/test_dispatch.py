"""Who is dispatched first: no tenant's many hold up another's few."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from byok.core.dispatch import DueKey, InFlight, Place, Window

START = datetime(2026, 1, 1, tzinfo=UTC)


def due(number: int, tenant: int, *, is_free: bool = True) -> DueKey:
    return DueKey(Place(START + timedelta(seconds=number), UUID(int=number)), UUID(int=tenant), is_free)


def test_a_place_is_what_its_text_says() -> None:
    place = due(7, 1).place
    assert Place.parse(str(place)) == place


def test_keys_are_chosen_in_the_order_of_their_due_times_while_there_is_room() -> None:
    window = Window(3, {})
    page = [due(number, tenant=number) for number in range(5)]
    chosen, last = window.choose(page)
    assert chosen == [key.place.key_id for key in page[:3]]
    assert last == page[2].place
    assert window.room == 0
    assert window.choose(page) == ([], None)


def test_a_tenant_has_a_tenth_of_the_window_and_those_behind_it_the_rest() -> None:
    window = Window(20, {})
    page = [due(number, tenant=1) for number in range(50)] + [due(50, tenant=2)]
    chosen, last = window.choose(page)
    assert chosen == [UUID(int=0), UUID(int=1), UUID(int=50)]
    assert last == page[-1].place, "the others of the first were looked at, and wait their turn"


def test_what_is_in_flight_counts_in_the_window_and_in_its_tenants_share() -> None:
    window = Window(20, {UUID(int=1): InFlight(open=1, waiting=0), UUID(int=3): InFlight(open=17, waiting=0)})
    assert window.room == 17, "what a tenant has beyond its share is its own affair"
    chosen, _ = window.choose([due(number, tenant=1) for number in range(5)] + [due(9, tenant=3)])
    assert chosen == [UUID(int=0)]


def test_what_waits_for_its_next_attempt_takes_no_room_but_its_tenants() -> None:
    down = {UUID(int=tenant): InFlight(open=2, waiting=2) for tenant in range(100)}
    window = Window(20, down)
    assert window.room == 20
    chosen, _ = window.choose([due(1, tenant=5), due(2, tenant=500)])
    assert chosen == [UUID(int=2)]


def test_keys_that_may_not_rotate_now_are_passed_over() -> None:
    window = Window(20, {})
    chosen, last = window.choose([due(1, tenant=1, is_free=False), due(2, tenant=2)])
    assert chosen == [UUID(int=2)]
    assert window.room == 19
    assert last == due(2, tenant=2).place


@given(
    size=st.integers(1, 60),
    tenants=st.lists(st.integers(1, 6), max_size=60),
    page_size=st.integers(1, 7),
)
def test_every_key_has_its_turn_however_many_others_are_due(
    size: int, tenants: list[int], page_size: int
) -> None:
    """Rotations end between two runs; each run goes on where the last one left off."""
    waiting = [due(number, tenant) for number, tenant in enumerate(tenants)]
    place: Place | None = None
    for _ in range(2 * len(tenants) + 2):
        window = Window(size, {})
        behind = [key for key in waiting if place is None or key.place > place]
        chosen: list[UUID] = []
        for start in range(0, len(behind), page_size):
            picked, last = window.choose(behind[start : start + page_size])
            chosen += picked
            place = last or place
        assert len(chosen) <= size
        shares = Counter(key.tenant_id for key in waiting if key.place.key_id in chosen)
        assert all(count <= max(1, size // 10) for count in shares.values())
        waiting = [key for key in waiting if key.place.key_id not in chosen]
        if window.room > 0:  # it came to the end
            place = None
    assert waiting == []
