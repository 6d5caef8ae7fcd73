"""What a process holds: bounded, dropped at a word, and nothing from before a drop is kept after it."""

import threading
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from byok.core.model import Key, Tenant, TenantState
from byok.crypto.hazmat import SecretBytes, XaesKey
from byok.ports import LeaseId
from byok.services import held as held_module
from byok.services.held import Held, View
from byok.services.lease import Lane, Lease, Sealing
from tests.fakes import FakeClock

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CIPHER = XaesKey(SecretBytes(bytes(32)))


def lease_id(tenant_id: UUID, number: int = 1) -> LeaseId:
    return LeaseId(tenant_id, 1, UUID(int=7), number)


def lease() -> Lease:
    return Lease(
        1, CIPHER, SecretBytes(bytes(32)), NOW, began_ticks=0.0, refresh_ticks=1.0, ends_ticks=2000.0
    )


def view(tenant_id: UUID) -> View:
    tenant = Tenant(tenant_id, "acme", TenantState.ACTIVE, "external", NOW)
    return View(tenant, Key(uuid4(), tenant_id, "pii", timedelta(1), timedelta(1), NOW), 1, 60.0, 5.0)


def test_the_oldest_lease_makes_room() -> None:
    held, tenant_id = Held(FakeClock(), max_leases=3), uuid4()
    for number in range(1, 6):
        held.keep_lease(held.drops, lease_id(tenant_id, number), lease())
    assert [one.version_number for one in held.leases] == [3, 4, 5]
    held.keep_lease(held.drops, lease_id(tenant_id, 3), lease())  # renewed
    held.keep_lease(held.drops, lease_id(tenant_id, 6), lease())
    assert [one.version_number for one in held.leases] == [5, 3, 6]


def test_a_drop_takes_all_of_one_tenant_and_nothing_of_another() -> None:
    held, one, other = Held(FakeClock()), uuid4(), uuid4()
    for tenant_id in (one, other):
        held.keep_lease(held.drops, lease_id(tenant_id), lease())
        held.keep_view(held.drops, (str(tenant_id), "pii"), view(tenant_id))
    assert held.drop(one) == 1
    assert set(held.leases) == {lease_id(other)}
    assert set(held.views) == {(str(other), "pii")}


def test_what_a_tenant_has_is_known_without_a_search_and_forgotten_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whichever way it goes: by age, by its deadline, by a drop."""
    monkeypatch.setattr(held_module, "MAX_VIEWS", 3)
    clock = FakeClock()
    held, tenants = Held(clock, max_leases=3), [uuid4() for _ in range(6)]

    def agree() -> None:
        assert {one for ids in held._leases_of.values() for one in ids} == set(held.leases)
        assert all(one.tenant_id == of for of, ids in held._leases_of.items() for one in ids)
        assert {one for names in held._views_of.values() for one in names} == set(held.views)
        assert all(held._leases_of.values())
        assert all(held._views_of.values())

    for tenant_id in [*tenants, *tenants]:
        held.keep_lease(held.drops, lease_id(tenant_id), lease())
        held.keep_view(held.drops, (str(tenant_id), "pii"), view(tenant_id))
        agree()
    assert len(held.leases) == len(held.views) == 3
    held.drop(tenants[-1])
    held.drop_lease(lease_id(tenants[-2]))
    agree()
    held.drop_views()
    agree()
    clock.advance(seconds=3000)
    held.prune()
    agree()
    assert not held.leases
    assert not held._leases_of


def test_what_was_begun_before_a_drop_is_not_kept_after_it() -> None:
    held, tenant_id = Held(FakeClock()), uuid4()
    since = held.drops
    held.drop(tenant_id)
    assert not held.keep_lease(since, lease_id(tenant_id), lease())
    assert not held.keep_view(since, ("acme", "pii"), view(tenant_id))
    assert (held.leases, held.views) == ({}, {})
    assert held.keep_lease(held.drops, lease_id(tenant_id), lease())


def test_looking_again_keeps_leases() -> None:
    held, tenant_id = Held(FakeClock()), uuid4()
    held.keep_lease(held.drops, lease_id(tenant_id), lease())
    held.keep_view(held.drops, ("acme", "pii"), view(tenant_id))
    held.drop_views(tenant_id)
    assert held.views == {}
    assert len(held.leases) == 1


def test_a_drop_of_one_tenant_overtakes_nothing_of_another() -> None:
    held, one, other = Held(FakeClock()), uuid4(), uuid4()
    since = held.drops
    held.drop(one)
    assert held.keep_lease(since, lease_id(other), lease())
    assert held.keep_view(since, ("globex", "pii"), view(other))
    assert not held.is_overtaken(other, since)
    assert held.is_overtaken(one, since)


def test_what_was_begun_before_everything_was_forgotten_is_not_kept_after_it() -> None:
    held, tenant_id = Held(FakeClock()), uuid4()
    since = held.drops
    held.forget()
    assert not held.keep_lease(since, lease_id(tenant_id), lease())


def test_a_drop_that_is_long_forgotten_still_overtakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_module, "_MAX_DROPS", 3)
    held, tenant_id = Held(FakeClock()), uuid4()
    since = held.drops
    held.drop(tenant_id)
    for _ in range(5):
        held.drop(uuid4())
    assert not held.keep_lease(since, lease_id(tenant_id), lease())
    assert held.keep_lease(held.drops, lease_id(tenant_id), lease())


def test_leases_that_have_ended_are_pruned_though_nobody_uses_them() -> None:
    clock = FakeClock()
    held, tenant_id = Held(clock), uuid4()
    held.keep_lease(held.drops, lease_id(tenant_id), lease())
    held.prune()
    assert held.leases
    clock.advance(seconds=1001)
    held.prune()
    assert not held.leases


def test_the_last_drop_is_remembered_with_its_time_and_count() -> None:
    clock = FakeClock()
    held, tenant_id = Held(clock), uuid4()
    began = clock.now()
    held.keep_lease(held.drops, lease_id(tenant_id), lease())
    held.drop(tenant_id)
    held.drop(tenant_id)  # there was nothing left
    assert held.last_drop(tenant_id, since=began) == (began, 1)
    assert held.last_drop(tenant_id, since=began + timedelta(seconds=1)) is None


def test_nobody_arms_a_lease_while_everything_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    held, tenant_id, armed = Held(FakeClock()), uuid4(), lease()
    known = view(tenant_id)
    held.keep_view(held.drops, known.names, known)
    held.keep_lease(held.drops, lease_id(tenant_id), armed)
    arming = threading.Thread(target=held.arm, args=(known, lease_id(tenant_id), armed))
    let_go = Lease.let_go

    def let_go_and_meet_another_thread(one: Lease) -> None:
        let_go(one)
        arming.start()
        arming.join(0.1)

    monkeypatch.setattr(Lease, "let_go", let_go_and_meet_another_thread)
    held.drop_all()
    arming.join()
    assert (armed.encrypts_until_ticks, armed.decrypts_until_ticks) == (0.0, 0.0)


def test_a_lease_that_leaves_the_memory_serves_nobody_any_more() -> None:
    held, tenant_id = Held(FakeClock(), max_leases=1), uuid4()
    known = view(tenant_id)
    held.keep_view(held.drops, known.names, known)

    def renew(one: LeaseId) -> None:
        held.keep_lease(held.drops, one, lease())

    def evict(_: LeaseId) -> None:
        held.keep_lease(held.drops, lease_id(uuid4()), lease())

    for remove in (held.drop_lease, renew, evict):
        armed, lane = lease(), Lane()
        held.keep_lease(held.drops, lease_id(tenant_id), armed)
        held.arm(known, lease_id(tenant_id), armed)
        assert armed.encrypts_until_ticks == 1.0
        held.keep_sealing(lane, Sealing(b"", CIPHER.message_key(bytes(12)).encrypt, armed))
        assert lane.sealing is not None
        remove(lease_id(tenant_id))
        assert (armed.encrypts_until_ticks, armed.decrypts_until_ticks) == (0.0, 0.0)
        cleared: Sealing | None = lane.sealing
        assert cleared is None
        held.keep_sealing(lane, Sealing(b"", CIPHER.message_key(bytes(12)).encrypt, armed))
        assert lane.sealing is None
