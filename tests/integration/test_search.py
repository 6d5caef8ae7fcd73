"""Blind indexes over a real PostgreSQL: kept over rotations, rebuilt under way, stopped with the rest."""

import itertools
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from byok.core.blind_index import index_version, pinned_versions
from byok.core.model import IndexVersions, Key, RotationReason, VersionEvent
from byok.errors import (
    ByokError,
    EmptyContext,
    EmptyValue,
    IllegalTransition,
    InvalidInput,
    LostRace,
    NotReady,
    NotSearchable,
    TenantNotActive,
    UnknownKey,
)
from byok.services.fields import Cipher
from byok.store.postgres import PostgresStore
from byok.wiring import Services
from tests.fakes import MemoryLeaseCache
from tests.world import RECHECK, World

EMAIL = b"users.email"
ADA = b"ada@example.com"


def cipher(services: Services, tenant: str = "acme", key: str = "pii") -> Cipher:
    return services.vault.cipher(tenant, key)


def rotate(world: World, reason: RotationReason = RotationReason.FORCED) -> None:
    world.services.requests.request("acme", "pii", reason=reason, requested_by="test")
    world.run_published()


@pytest.fixture
def searchable(world: World, key: None) -> World:
    world.services.indexes.enable("acme", "pii", actor="test")
    return world


def index_versions(world: World) -> IndexVersions | None:
    return world.show().key.index


# --- values ---------------------------------------------------------------------------------------


def test_equal_values_have_one_index_in_every_process(searchable: World) -> None:
    indexes = {cipher(searchable.another_process()).blind_index(ADA, context=EMAIL) for _ in range(3)}
    (index,) = indexes
    assert len(index) == 20
    assert index_version(index) == 1
    assert ADA not in index


def test_nothing_is_alike_across_tenants_keys_columns_versions_and_values(searchable: World) -> None:
    searchable.add_key(key="other")
    searchable.add_tenant("globex")
    searchable.add_key("globex")
    for names in (("acme", "other"), ("globex", "pii")):
        searchable.services.indexes.enable(*names, actor="test")
    places = list(
        itertools.product([("acme", "pii"), ("acme", "other"), ("globex", "pii")], [EMAIL, b"users.name"])
    )
    values = [ADA, ADA + b" ", b"Ada@example.com"]

    def all_indexes() -> list[bytes]:
        return [
            cipher(searchable.services, *names).blind_index(value, context=context)
            for (names, context), value in itertools.product(places, values)
        ]

    before = all_indexes()
    rotate(searchable)
    searchable.services.indexes.rebuild("acme", "pii", actor="test")
    rebuilt = [index for index in all_indexes() if index not in before]
    assert len(rebuilt) == 2 * len(values), "of the one key that was rebuilt"
    hashes = {index[4:] for index in before + rebuilt}
    assert len(hashes) == len(places) * len(values) + len(rebuilt), "without the number in front, too"


def test_a_byte_that_moves_from_the_value_to_the_context_changes_the_index(searchable: World) -> None:
    pii = cipher(searchable.services)
    assert pii.blind_index(b"bc", context=b"a") != pii.blind_index(b"c", context=b"ab")


def test_what_can_not_be_searched_for_is_refused(searchable: World) -> None:
    pii = cipher(searchable.services)
    with pytest.raises(EmptyContext, match="context"):
        pii.blind_index(ADA, context=b"")
    with pytest.raises(EmptyValue):
        pii.blind_index(b"", context=EMAIL)
    with pytest.raises(EmptyValue):
        pii.blind_indexes(b"", context=EMAIL)
    with pytest.raises(InvalidInput, match="20 bytes"):
        pii.needs_reindex(ADA)


def test_a_key_without_an_index_says_how_it_gets_one(world: World, key: None) -> None:
    pii = cipher(world.services)
    uses: list[Callable[[], object]] = [
        lambda: pii.blind_index(ADA, context=EMAIL),
        lambda: pii.blind_indexes(ADA, context=EMAIL),
        lambda: pii.needs_reindex(bytes(3) + b"\x01" + bytes(16)),
        lambda: world.services.indexes.rebuild("acme", "pii", actor="test"),
        lambda: world.services.indexes.finish("acme", "pii", actor="test"),
    ]
    for use in uses:
        with pytest.raises(NotSearchable) as caught:
            use()
        assert caught.value.remedy == "byok key index acme pii --enable"


def test_a_key_without_an_active_version_is_not_made_searchable(world: World) -> None:
    world.add_tenant()
    world.services.registry.create_key(
        "acme", "pii", rotation_period=None, lease_ttl=timedelta(hours=1), actor="test"
    )
    with pytest.raises(NotReady):
        world.services.indexes.enable("acme", "pii", actor="test")
    with pytest.raises(UnknownKey):
        world.services.indexes.enable("acme", "nothing", actor="test")


# --- leases ---------------------------------------------------------------------------------------


def test_with_a_lease_in_hand_nothing_is_asked(searchable: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pii = cipher(searchable.services)
    index = pii.blind_index(ADA, context=EMAIL)
    asked = len(searchable.kms.calls)
    monkeypatch.delattr(PostgresStore, "transaction")
    monkeypatch.delattr(MemoryLeaseCache, "take")
    assert pii.blind_index(ADA, context=EMAIL) == index
    assert pii.blind_indexes(ADA, context=EMAIL) == [index]
    assert not pii.needs_reindex(index)
    assert len(searchable.kms.calls) == asked


def test_computing_counts_as_a_use_of_the_lease(searchable: World) -> None:
    process = searchable.another_process(max_lease_uses=10)
    before = searchable.metrics.counts["lease", "cache"]
    for _ in range(31):
        cipher(process).blind_index(ADA, context=EMAIL)
    assert searchable.metrics.counts["lease", "cache"] - before >= 3


def test_no_index_is_computed_for_a_tenant_that_is_stopped(searchable: World) -> None:
    other = searchable.another_process()
    index = cipher(other).blind_index(ADA, context=EMAIL)
    searchable.services.kill_switch.suspend("acme", "a test", actor="test")
    uses: list[Callable[[], object]] = [
        lambda: cipher(other).blind_index(ADA, context=EMAIL),
        lambda: cipher(other).blind_indexes(ADA, context=EMAIL),
        lambda: cipher(other).needs_reindex(index),
    ]
    for use in uses:
        with pytest.raises(TenantNotActive):
            use()


def test_no_index_is_computed_past_the_deadline(searchable: World) -> None:
    cipher(searchable.services).blind_index(ADA, context=EMAIL)
    searchable.kms.disable(searchable.versions()[0].kms_key_arn)
    searchable.clock.advance(minutes=61)
    with pytest.raises(ByokError) as caught:
        cipher(searchable.services).blind_index(ADA, context=EMAIL)
    assert caught.value.code == "kms-access-revoked"


# --- rotation and rebuild -------------------------------------------------------------------------


def test_a_rotation_changes_no_index(searchable: World) -> None:
    index = cipher(searchable.services).blind_index(ADA, context=EMAIL)
    rotate(searchable)
    rotate(searchable, RotationReason.COMPROMISE)
    assert searchable.states() == ["retired", "compromised", "active"]
    assert cipher(searchable.another_process()).blind_index(ADA, context=EMAIL) == index
    assert index_versions(searchable) == IndexVersions(1)


def test_what_changes_a_key_leaves_its_index_alone(searchable: World) -> None:
    searchable.services.registry.set_rotation("acme", "pii", actor="test", lease_ttl=timedelta(minutes=5))
    searchable.services.follower.sync("acme", actor="test")
    assert index_versions(searchable) == IndexVersions(1)


def test_a_rebuild_finds_every_row_at_every_step_and_ends_under_the_new_version(searchable: World) -> None:
    """The procedure of docs/search.md, by a service whose other processes go on writing and looking."""
    fleet = [searchable.another_process() for _ in range(3)]
    rows = {number: cipher(fleet[0]).blind_index(b"user%d" % number, context=EMAIL) for number in range(6)}

    def all_are_found() -> bool:
        return all(
            rows[number] in cipher(process).blind_indexes(b"user%d" % number, context=EMAIL)
            for process in fleet
            for number in rows
        )

    rotate(searchable, RotationReason.COMPROMISE)
    assert all_are_found()
    searchable.services.indexes.rebuild("acme", "pii", actor="test")
    rows[6] = cipher(fleet[1]).blind_index(b"user6", context=EMAIL)
    assert index_version(rows[6]) == 2
    assert all_are_found()
    for number, index in rows.items():
        assert cipher(fleet[2]).needs_reindex(index) == (number != 6)
        rows[number] = cipher(fleet[2]).blind_index(b"user%d" % number, context=EMAIL)
        assert all_are_found()
    searchable.services.indexes.finish("acme", "pii", actor="test")
    assert all_are_found()
    assert {len(cipher(process).blind_indexes(ADA, context=EMAIL)) for process in fleet} == {1}
    assert index_versions(searchable) == IndexVersions(2)
    actions = [action for action in searchable.audit_actions() if action.startswith("index.")]
    assert actions == [
        "index.enabled",
        "index.rebuild.begun",
        "index.rebuild.switched",
        "index.rebuild.finished",
    ]


def test_without_any_push_no_process_writes_what_another_does_not_look_for(
    searchable: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process looks at another moment; between any two steps all of them write and all look."""
    rotate(searchable)
    fleet = [searchable.another_process() for _ in range(5)]
    for process in fleet:
        cipher(process).blind_index(ADA, context=EMAIL)
        searchable.clock.advance(seconds=1)
    searchable.board.loses_all = True
    written: set[int] = set()

    def sleep(seconds: float) -> None:
        for _ in range(int(seconds * 4)):
            searchable.clock.advance(seconds=0.25)
            indexes = {cipher(process).blind_index(ADA, context=EMAIL) for process in fleet}
            written.update(map(index_version, indexes))
            for process in fleet:
                assert indexes <= set(cipher(process).blind_indexes(ADA, context=EMAIL))
        assert written in ({1}, {1, 2})

    monkeypatch.setattr(searchable.clock, "sleep", sleep)  # what goes on while the command waits
    searchable.services.indexes.rebuild("acme", "pii", actor="test")
    assert written == {1, 2}
    assert {index_version(cipher(process).blind_index(ADA, context=EMAIL)) for process in fleet} == {2}


def test_a_process_that_was_idle_looks_before_it_writes(searchable: World) -> None:
    rotate(searchable)
    idle = searchable.another_process()
    cipher(idle).blind_index(ADA, context=EMAIL)
    searchable.board.loses_all = True
    searchable.services.indexes.rebuild("acme", "pii", actor="test")
    assert index_version(cipher(idle).blind_index(ADA, context=EMAIL)) == 2


def test_another_process_learns_of_a_rebuild_by_push_at_once(
    searchable: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = searchable.another_process()
    cipher(other).blind_index(ADA, context=EMAIL)
    rotate(searchable)
    seen: list[int] = []

    def sleep(_: float) -> None:  # no time passes at all
        seen.append(len(cipher(other).blind_indexes(ADA, context=EMAIL)))

    monkeypatch.setattr(searchable.clock, "sleep", sleep)
    searchable.services.indexes.rebuild("acme", "pii", actor="test")
    assert seen == [2, 2]
    assert index_version(cipher(other).blind_index(ADA, context=EMAIL)) == 2


def test_a_rebuild_whose_command_died_goes_on(searchable: World, monkeypatch: pytest.MonkeyPatch) -> None:
    rotate(searchable)

    def die(_: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as during:
        during.setattr(searchable.clock, "sleep", die)
        with pytest.raises(KeyboardInterrupt):
            searchable.services.indexes.rebuild("acme", "pii", actor="test")
    assert index_versions(searchable) == IndexVersions(1, 2)
    with pytest.raises(IllegalTransition, match="ended early"):
        searchable.services.indexes.finish("acme", "pii", actor="test")
    rotate(searchable)
    searchable.services.indexes.rebuild("acme", "pii", actor="test")
    assert index_versions(searchable) == IndexVersions(2, 1)
    assert searchable.audit_actions().count("index.rebuild.begun") == 1


def test_a_rebuild_waits_for_what_processes_may_still_go_by(searchable: World) -> None:
    rotate(searchable)
    began = searchable.clock.now()
    searchable.services.indexes.rebuild("acme", "pii", actor="test")
    assert searchable.clock.now() - began > 2 * RECHECK


# --- concurrency and destruction ------------------------------------------------------------------


def test_of_many_who_enable_at_once_one_does(world: World, key: None) -> None:
    def enable(_: int) -> str:
        try:
            world.services.indexes.enable("acme", "pii", actor="test")
        except ByokError as error:
            return error.code
        return "enabled"

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(enable, range(8)))
    assert sorted(outcomes) == ["enabled"] + ["illegal-transition"] * 7
    assert world.audit_actions().count("index.enabled") == 1


def test_of_two_who_rebuild_at_once_one_does(searchable: World, monkeypatch: pytest.MonkeyPatch) -> None:
    rotate(searchable)
    pauses = itertools.count()

    def sleep(_: float) -> None:
        if next(pauses) == 0:  # while the first waits, the second does it all
            searchable.services.indexes.rebuild("acme", "pii", actor="second")

    monkeypatch.setattr(searchable.clock, "sleep", sleep)
    with pytest.raises(LostRace):
        searchable.services.indexes.rebuild("acme", "pii", actor="first")
    assert index_versions(searchable) == IndexVersions(2, 1)
    assert searchable.audit_actions().count("index.rebuild.switched") == 1


def test_what_was_changed_meanwhile_is_not_changed_again(searchable: World) -> None:
    rotate(searchable)
    stale = searchable.show().key
    with searchable.store.transaction() as tx:
        tx.keys.set_index(stale, IndexVersions(1, 2))
    with pytest.raises(LostRace), searchable.store.transaction() as tx:
        tx.keys.set_index(stale, IndexVersions(2))


def destroy(world: World, number: int) -> None:
    version = world.versions()[number - 1]
    with world.store.transaction() as tx:
        tx.versions.transition([version], VersionEvent.DESTROY, world.clock.now())


@pytest.fixture
def rebuilding(searchable: World) -> World:
    """Version 1 looked for, 2 written, 3 active, and none of the others pinned."""
    rotate(searchable)
    searchable.services.indexes.rebuild("acme", "pii", actor="test")
    rotate(searchable)
    return searchable


@pytest.mark.parametrize("number", [1, 2])
def test_the_database_destroys_no_version_that_an_index_rests_on(rebuilding: World, number: int) -> None:
    assert pinned_versions(rebuilding.show().key) == {1, 2}
    with pytest.raises(LostRace, match="blind index"):
        destroy(rebuilding, number)
    assert rebuilding.states() == ["retired", "retired", "active"]


def test_after_its_rebuild_the_former_version_can_be_destroyed(rebuilding: World) -> None:
    rebuilding.services.indexes.finish("acme", "pii", actor="test")
    destroy(rebuilding, 1)
    assert rebuilding.states() == ["destroyed", "retired", "active"]
    assert index_version(cipher(rebuilding.another_process()).blind_index(ADA, context=EMAIL)) == 2


def test_the_database_pins_no_version_that_does_not_decrypt(rebuilding: World) -> None:
    rebuilding.services.indexes.finish("acme", "pii", actor="test")
    destroy(rebuilding, 1)
    for index in (IndexVersions(1), IndexVersions(2, 1), IndexVersions(4), IndexVersions(2, 4)):
        with pytest.raises(LostRace), rebuilding.store.transaction() as tx:
            tx.keys.set_index(rebuilding.show().key, index)


def test_a_destruction_and_a_pin_at_once_never_both_succeed(searchable: World) -> None:
    rotate(searchable)
    rotate(searchable)
    key: Key = searchable.show().key

    def pin() -> None:
        with searchable.store.transaction() as tx:
            tx.keys.set_index(key, IndexVersions(1, 2))

    def outcome(act: Callable[[], None]) -> bool:
        try:
            act()
        except LostRace:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(outcome, [pin, lambda: destroy(searchable, 2)]))
    assert done.count(True) == 1
    assert (searchable.states()[1] == "destroyed") == (index_versions(searchable) == IndexVersions(1))


# --- the guide ------------------------------------------------------------------------------------


@pytest.fixture
def users_table_dropped(engine: sa.Engine) -> Iterator[None]:
    yield
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE IF EXISTS users"))


def test_the_guides_example_runs(searchable: World, engine: sa.Engine, users_table_dropped: None) -> None:
    page = (Path(__file__).parents[2] / "docs/search.md").read_text()
    names: dict[str, object] = {"engine": engine, "pii": cipher(searchable.services)}
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    for block in blocks[:-1]:
        exec(block, names)  # noqa: S102  # the project's own page
    add, find = names["add_user"], names["find_user"]
    assert callable(add)
    assert callable(find)
    add("1", "Ada@Example.com")
    add("2", "bob@example.com")
    assert find(" ada@EXAMPLE.com") == "1"
    assert find("eve@example.com") is None
    rotate(searchable, RotationReason.COMPROMISE)
    searchable.services.indexes.rebuild("acme", "pii", actor="test")
    add("3", "eve@example.com")
    assert [find(f"{name}@example.com") for name in ("ada", "bob", "eve")] == ["1", "2", "3"]
    exec(blocks[-1], names)  # noqa: S102  # the loop that computes them anew
    with engine.connect() as connection:
        found = connection.execute(sa.text("SELECT email_index FROM users")).scalars()
        assert {index_version(index) for index in found} == {2}
    searchable.services.indexes.finish("acme", "pii", actor="test")
    assert [find(f"{name}@example.com") for name in ("ada", "bob", "eve")] == ["1", "2", "3"]
