"""Every use is reported once, whatever becomes of its lease, and looking counts as none."""

from itertools import repeat
from uuid import UUID

from byok.core.usage import VersionId
from byok.ports import LeaseId
from byok.services.tallies import Tallies

KEY = UUID(int=7)
FIRST, SECOND = VersionId(KEY, 1), VersionId(KEY, 2)


def lease_id(number: int = 1) -> LeaseId:
    return LeaseId(UUID(int=1), 1, KEY, number)


def use(uses: "repeat[None]", times: int) -> None:
    for _ in range(times):
        next(uses)


def test_each_reading_gives_what_came_since_the_last() -> None:
    tallies, one, two = Tallies(), repeat(None, 1000), repeat(None, 1000)
    held = {lease_id(1): one, lease_id(2): two}
    for each, uses in held.items():
        tallies.add(each, uses)
    use(one, 3)
    assert tallies.read(held) == {FIRST: 3}
    assert tallies.read(held) == {}
    use(one, 1)
    use(two, 2)
    assert tallies.read(held) == {FIRST: 1, SECOND: 2}
    assert tallies.read(held) == {}


def test_a_lease_and_its_renewal_add_up() -> None:
    tallies, old, new = Tallies(), repeat(None, 1000), repeat(None, 1000)
    tallies.add(lease_id(), old)
    use(old, 2)
    tallies.add(lease_id(), new)
    use(new, 3)
    assert tallies.read({lease_id(): new}) == {FIRST: 5}


def test_a_use_by_a_thread_that_took_the_lease_before_it_was_let_go_is_found_at_the_next_reading() -> None:
    tallies, uses = Tallies(), repeat(None, 1000)
    tallies.add(lease_id(), uses)
    use(uses, 1)
    assert tallies.read({}) == {FIRST: 1}
    use(uses, 1)
    assert tallies.read({}) == {FIRST: 1}
    use(uses, 1)
    assert tallies.read({}) == {}, "nothing is kept for ever"


def test_a_check_of_our_own_is_excused_before_or_after_it_was_read() -> None:
    tallies, uses = Tallies(), repeat(None, 1000)
    tallies.add(lease_id(), uses)
    held = {lease_id(): uses}
    use(uses, 2)
    tallies.excuse(uses)
    assert tallies.read(held) == {FIRST: 1}
    use(uses, 1)
    assert tallies.read(held) == {FIRST: 1}
    tallies.excuse(uses)
    assert tallies.read(held) == {}
    use(uses, 2)
    assert tallies.read(held) == {FIRST: 1}, "the one that was read too early is made up for"


def test_an_excuse_for_a_lease_that_nobody_knows_is_none() -> None:
    tallies = Tallies()
    tallies.excuse(repeat(None, 1000))
    assert tallies.read({}) == {}
