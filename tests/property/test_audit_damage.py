"""Whatever is changed in the tables of an audit chain, ``verify`` names the place."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from byok.errors import AuditChainBroken
from byok.store import schema
from byok.store.postgres import PostgresStore
from tests.conftest import empty
from tests.world import World

_EVENTS, _HEADS, _CHECKPOINTS = schema.audit_events, schema.audit_heads, schema.signed_checkpoints
_TABLES = (_EVENTS, _HEADS, _CHECKPOINTS)
_LENGTH, _SIGNED = 10, {1: 3, 2: 9}  # the events of the chain, and of which the checkpoints speak

Row = Mapping[str, Any]
Rows = Mapping[sa.Table, Sequence[Row]]


def _is_written_by_sql(row: Row) -> bool:
    return any(isinstance(value, sa.TextClause) for value in row.values())


@dataclass(frozen=True)
class Site:
    """A world with a chain of ten events and two checkpoints, beside a tenant of the same size."""

    world: World
    engine: sa.Engine
    rows: Rows = field(repr=False)
    tenant_id: UUID
    other_id: UUID

    def write(self, rows: Rows) -> None:
        """Have these rows in the tables, and nothing else. Raises IntegrityError: the database refuses."""
        with self.engine.begin() as connection:
            connection.execute(sa.text("TRUNCATE audit_events, audit_heads, signed_checkpoints"))
            for table in _TABLES:
                plain = [row for row in rows[table] if not _is_written_by_sql(row)]
                if plain:
                    connection.execute(table.insert(), plain)
                for row in rows[table]:
                    if _is_written_by_sql(row):
                        connection.execute(table.insert().values(row))

    def verify(self) -> None:
        """Raises AuditChainBroken."""
        auditor = self.world.services.auditor
        auditor.verify(auditor.chain("acme"))

    def of_tenant(self, table: sa.Table) -> list[int]:
        """The places of the tenant's rows in a table's."""
        return [place for place, row in enumerate(self.rows[table]) if row["tenant_id"] == self.tenant_id]


@pytest.fixture(scope="module")
def site(engine: sa.Engine) -> Iterator[Site]:
    empty(engine)
    world = World(PostgresStore(engine))
    for name in ("acme", "globex"):
        world.add_tenant(name)
        world.services.checkpoints.sign(name, actor="test")
        world.add_key(name)
        world.services.checkpoints.sign(name, actor="test")
    with engine.connect() as connection:
        rows: dict[sa.Table, list[Row]] = {
            table: [dict(row) for row in connection.execute(sa.select(table)).mappings()] for table in _TABLES
        }
    tenant_id, other_id = (world.tenant(name).id for name in ("acme", "globex"))
    made = Site(world, engine, rows, tenant_id, other_id)
    assert len(made.of_tenant(_EVENTS)) == _LENGTH
    assert {rows[_CHECKPOINTS][one]["number"]: rows[_CHECKPOINTS][one]["sequence"]
            for one in made.of_tenant(_CHECKPOINTS)} == _SIGNED  # fmt: skip
    yield made
    empty(engine)


_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
_NUMBERS = st.integers(min_value=-(2**63), max_value=2**63 - 1)
_JSON = st.recursive(
    st.none() | st.booleans() | _TEXT | _NUMBERS | st.floats(allow_nan=False, allow_infinity=False),
    lambda some: st.lists(some, max_size=3) | st.dictionaries(_TEXT, some, max_size=3),
    max_leaves=6,
)
_TIMES = st.datetimes(timezones=st.just(UTC)) | st.sampled_from(
    [sa.text("'infinity'"), sa.text("'0044-03-15 BC'")]
)


def _values(column: sa.Column[Any], before: Any, other_id: UUID) -> st.SearchStrategy[Any]:
    """Any value that a column takes."""
    if column.name == "details":
        members = {name: st.fixed_dictionaries({**{n: st.just(v) for n, v in before.items()}, name: _JSON})
                   for name in (*before, "more")}  # fmt: skip
        without = st.sampled_from(sorted(before)).map(lambda n: {k: v for k, v in before.items() if k != n})
        return st.one_of(*members.values(), without, _JSON.filter(lambda value: value is not None))
    match column.type:
        case sa.LargeBinary():
            size = len(before)
            flipped = st.integers(0, 8 * size - 1).map(
                lambda bit: bytes(b ^ (1 << bit % 8 if at == bit // 8 else 0) for at, b in enumerate(before))
            )
            return flipped | st.binary(min_size=size, max_size=size)
        case sa.BigInteger():
            return st.integers(1, 2**63 - 1) | st.integers(1, _LENGTH + 2)
        case sa.DateTime():
            return _TIMES
        case sa.Text():
            return _TEXT | st.just(before + " ")
    return st.just(other_id)


def _named(message: str) -> set[str]:
    return set(re.findall(r"(?:event|checkpoint) \d+", message))


def _event(*numbers: int) -> set[str]:
    return {f"event {number}" for number in numbers}


def _require_found(site: Site, rows: Rows, places: set[str]) -> None:
    """What the tables are made to hold must be found, and one of these places be named."""
    try:
        site.write(rows)
    except (sa.exc.IntegrityError, sa.exc.DataError):
        return  # the database refuses such rows by itself
    with pytest.raises(AuditChainBroken) as caught:
        site.verify()
    assert _named(caught.value.message) & places, (caught.value.message, places)


def _with(rows: Rows, table: sa.Table, changed: Sequence[Row]) -> Rows:
    return {**rows, table: changed}


def _places_of(table: sa.Table, row: Row) -> set[str]:
    """What may be named if this row is no more what it was."""
    if table is _HEADS:
        return _event(_LENGTH, _LENGTH + 1)
    if table is _CHECKPOINTS:
        return {f"checkpoint {row['number']}", f"event {row['sequence']}"}
    return _event(row["sequence"])


_slow = settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)


def test_the_chain_is_whole_to_begin_with(site: Site) -> None:
    site.write(site.rows)
    site.verify()


@_slow
@given(data=st.data())
def test_any_field_of_any_row(site: Site, data: st.DataObject) -> None:
    table = data.draw(st.sampled_from(_TABLES), "table")
    place = data.draw(st.sampled_from(site.of_tenant(table)), "row")
    column = data.draw(st.sampled_from(list(table.columns)), "column")
    row = site.rows[table][place]
    value = data.draw(_values(column, row[column.name], site.other_id), "value")
    assume(not _is_same(value, row[column.name]))
    changed = list(site.rows[table])
    changed[place] = {**row, column.name: value}
    wanted = _places_of(table, row)
    if table is _HEADS and column.name == "sequence":
        wanted |= _event(min(value + 1, _LENGTH + 1))
    _require_found(site, _with(site.rows, table, changed), wanted)


def _is_same(value: object, before: object) -> bool:
    """As PostgreSQL has it: in JSON 9 and 9.0 are one number."""
    return type(value) is type(before) and value == before


@_slow
@given(data=st.data())
def test_any_row_taken_out(site: Site, data: st.DataObject) -> None:
    table = data.draw(st.sampled_from(_TABLES), "table")
    place = data.draw(st.sampled_from(site.of_tenant(table)), "row")
    rest = [row for at, row in enumerate(site.rows[table]) if at != place]
    gone = site.rows[table][place]
    _require_found(
        site, _with(site.rows, table, rest), _event(1) if table is _HEADS else _places_of(table, gone)
    )


@_slow
@given(first=st.integers(1, _LENGTH), second=st.integers(1, _LENGTH))
def test_any_two_events_swapped(site: Site, first: int, second: int) -> None:
    assume(first < second)
    numbers = {first: second, second: first}
    swapped = [
        {**row, "sequence": numbers.get(row["sequence"], row["sequence"])}
        if row["tenant_id"] == site.tenant_id
        else row
        for row in site.rows[_EVENTS]
    ]
    _require_found(site, _with(site.rows, _EVENTS, swapped), _event(first))


@_slow
@given(left=st.integers(0, _LENGTH - 1), with_head=st.booleans())
@example(left=9, with_head=True)
def test_any_end_cut_off(site: Site, left: int, with_head: bool) -> None:
    """With the head made right as well, the checkpoints tell, as far as they go."""
    mine = [row for row in site.rows[_EVENTS] if row["tenant_id"] == site.tenant_id]
    rest = [
        row for row in site.rows[_EVENTS] if row["tenant_id"] != site.tenant_id or row["sequence"] <= left
    ]
    rows = _with(site.rows, _EVENTS, rest)
    if with_head:
        hash_ = next((row["hash"] for row in mine if row["sequence"] == left), bytes(32))
        heads = [
            {**row, "sequence": left, "hash": hash_} if row["tenant_id"] == site.tenant_id else row
            for row in site.rows[_HEADS]
        ]
        rows = _with(rows, _HEADS, heads)
    _require_found(site, rows, _event(left + 1, *_SIGNED.values()))


@_slow
@given(data=st.data())
def test_any_event_put_in(site: Site, data: st.DataObject) -> None:
    """A copy of an event at any place; what comes behind moves on, the head too."""
    copied = site.rows[_EVENTS][data.draw(st.sampled_from(site.of_tenant(_EVENTS)), "row")]
    place = data.draw(st.integers(1, _LENGTH + 1), "place")
    moves_head = data.draw(st.booleans(), "moves head")
    rows = [
        {
            **row,
            "sequence": row["sequence"] + (row["tenant_id"] == site.tenant_id and row["sequence"] >= place),
        }
        for row in site.rows[_EVENTS]
    ]
    heads = [
        {**row, "sequence": row["sequence"] + (moves_head and row["tenant_id"] == site.tenant_id)}
        for row in site.rows[_HEADS]
    ]
    put_in = _with(_with(site.rows, _EVENTS, [*rows, {**copied, "sequence": place}]), _HEADS, heads)
    # A copy of an event behind itself: from there on nothing follows any more.
    _require_found(site, put_in, _event(place, place + 1))


@_slow
@given(number=st.integers(1, 4), sequence=st.integers(1, _LENGTH), copied=st.integers(0, 1))
def test_any_checkpoint_put_in(site: Site, number: int, sequence: int, copied: int) -> None:
    row = site.rows[_CHECKPOINTS][site.of_tenant(_CHECKPOINTS)[copied]]
    put_in = {**row, "number": number, "sequence": sequence}
    rows = _with(site.rows, _CHECKPOINTS, [*site.rows[_CHECKPOINTS], put_in])
    _require_found(site, rows, _event(sequence))
